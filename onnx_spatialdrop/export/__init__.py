"""Exporter hooks, one module a framework, each importing its framework when it is called and not before."""

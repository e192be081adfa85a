"""Recognise dropout by what a graph computes: draws, two-valued masks, products. Nothing here changes a graph."""

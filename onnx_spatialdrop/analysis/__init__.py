"""A dataflow analysis that recognises dropout by what a graph computes: draws, masks, products. It changes no graph."""

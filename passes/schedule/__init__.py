"""Schedule steps: data that say how loops run, and the functions that apply them.  May import: ir,
passes.lower.
"""

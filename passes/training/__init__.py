"""Passes that make a train step of a forward function: precision, loss scale, clipping, the
optimizer, accumulation, rematerialisation.  May import: ir, passes.
"""

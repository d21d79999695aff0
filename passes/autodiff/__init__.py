"""Differentiation as a pass over tensor IR.

`pullback` goes back through one block by the ops' own rules; `control` says how structured control
flow is reversed; `grad` makes functions of functions.  May import: ir, passes.
"""

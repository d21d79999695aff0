"""From tensors to loops.  May import: ir, and passes."""

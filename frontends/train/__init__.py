"""Training: data, optimizers, the train step, the loop people like to use, checkpoints.

May import: ir, passes, backends, deploy, frontends/nn.
"""

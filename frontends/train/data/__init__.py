"""Data for training: sources, pipelines, augmentation.

`data.arrays(X, y).shuffle(seed=0).batch(64)` is a `Dataset`; every `for` over it is an epoch.
Steps compute positions, a batch is one numpy take per array; worker processes and a prefetch thread
join where asked for.  May import: ir.
"""

from . import augment
from .dataset import Cursor, Dataset
from .images import images
from .sources import arrays, characters, generator, npz, text, tokens
from .tables import csv, frame, parquet

__all__ = [
    "Cursor",
    "Dataset",
    "arrays",
    "augment",
    "characters",
    "csv",
    "frame",
    "generator",
    "images",
    "npz",
    "parquet",
    "text",
    "tokens",
]

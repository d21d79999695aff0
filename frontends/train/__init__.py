"""Training: the step, the loop people like to use, metrics, callbacks, checkpoints.

    t = train.Trainer(net, loss="cross_entropy", optimizer=optim.AdamW(2e-3), metrics=["accuracy"])
    history = t.fit(data.arrays(X, y).shuffle(seed=0).batch(64), epochs=30)

`train.TrainStep` is the compiled step alone, for a loop of one's own.
May import: ir, passes, backends, deploy, frontends/nn.
"""

from .callbacks import (
    Callback,
    Checkpoint,
    CSVLog,
    EarlyStopping,
    Plateau,
    TensorBoard,
)
from .checkpoint import load_checkpoint, save_checkpoint
from .distributed import rank, world
from .metrics import (
    AUC,
    F1,
    MAE,
    MSE,
    Accuracy,
    Confusion,
    IoU,
    Metric,
    Precision,
    Recall,
    TopK,
)
from .step import TrainStep
from .trainer import History, Trainer

__all__ = [
    "AUC", "F1", "MAE", "MSE", "Accuracy", "CSVLog", "Callback", "Checkpoint", "Confusion",
    "EarlyStopping", "History", "IoU", "Metric", "Plateau", "Precision", "Recall", "TensorBoard",
    "TopK", "TrainStep", "Trainer", "load_checkpoint", "rank", "save_checkpoint",
    "world",
]  # fmt: skip

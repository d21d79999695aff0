"""A network for a table: pandas in, scikit-learn's breast cancer data, precision and recall out.

python examples/tabular.py [--epochs 40]
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer

from irc import data, nn, optim, train


def tables() -> tuple[Any, Any]:
    """The training and the held-out rows, as pandas frames with the column `target`."""
    table = load_breast_cancer(as_frame=True).frame.sample(frac=1.0, random_state=0)
    table["target"] = table["target"].astype(np.int64)
    cut = len(table) * 4 // 5
    kept, held = table.iloc[:cut], table.iloc[cut:]
    columns = [c for c in table.columns if c != "target"]
    mean, deviation = kept[columns].mean(), kept[columns].std()
    for part in (kept, held):
        part.loc[:, columns] = (part[columns] - mean) / deviation
    return kept, held


def fit(epochs: int = 40, seed: int = 0) -> dict[str, Any]:
    """Loss and metrics on the held-out rows."""
    kept, held = tables()
    nn.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(kept.shape[1] - 1, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 2)
    )
    t = train.Trainer(
        net,
        loss="cross_entropy",
        metrics=["accuracy", "precision", "recall", "f1", "auc"],
        optimizer=optim.AdamW(optim.one_cycle(1e-2, total=epochs * 8)),
        seed=seed,
    )
    stop = train.EarlyStopping("val_loss", patience=10, restore_best=True)
    validation = data.frame(held, target="target").batch(256)
    t.fit(
        data.frame(kept, target="target").shuffle(seed=seed).batch(64),
        epochs=epochs,
        validation=validation,
        callbacks=[stop],
    )
    return t.evaluate(validation)


def main() -> None:
    """Train and print the metrics."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=40)
    given = parser.parse_args()
    for name, value in fit(given.epochs).items():
        print(f"{name:10s} {value:.4f}")


if __name__ == "__main__":
    main()

"""Metrics: what a batch contributes is computed with `nn`, inside the compiled step; the host adds.

A metric says what one batch gives (`partial`: named tensors that are summed over batches, or kept
whole where `gathers`) and what the totals mean (`value`).  So a metric over an epoch is exact, not
a mean of means.  May import: ir, frontends/nn, names.
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...ir.core import Array
from ...ir.errors import Error
from .. import nn
from .names import unknown

Tensor = Any


@dataclass(frozen=True)
class Metric:
    """The base: subclass it with `partial` and `value`, give it a `name`."""

    gathers: ClassVar[bool] = False
    """Partials are kept for every sample (concatenated along axis 0), not summed."""

    @property
    def name(self) -> str:
        """What the value is called in logs and histories."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

    def partial(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        """What one batch contributes, from the network's output and the target."""
        raise Error("E0692", f"the metric {type(self).__name__} does not define `partial`")

    def value(self, totals: Mapping[str, Array]) -> Any:
        """The metric of the totals."""
        raise Error("E0692", f"the metric {type(self).__name__} does not define `value`")


def classes_of(output: Tensor, target: Tensor) -> int | None:
    """How many classes the output's axis 1 scores; None for one logit per target.

    E0692 where the output is neither: it has the shape of the target, or one axis more.
    """
    rank = len(target.shape)
    if len(output.shape) == rank:
        return None
    if len(output.shape) != rank + 1:
        raise Error(
            "E0692", "the metrics do not know what the network's output says of the target",
            details=(
                f"output {list(output.shape)}, target {list(target.shape)}",
                "expected the target's shape, with or without an axis 1 of classes",
            ),
        )  # fmt: skip
    count = output.shape[1]
    return None if count == 1 else count


def decisions(output: Tensor, target: Tensor) -> Tensor:
    """The class each output says, in the shape of the target.

    The greatest along axis 1 where there are classes (as the losses have it), or whether a single
    logit ([N], [N, 1], ...) is above zero.
    """
    if classes_of(output, target):
        return nn.argmax(output, axis=1)
    return (output > 0).astype("i64").reshape(target.shape)


def truth(output: Tensor, target: Tensor) -> Tensor:
    """The class of each target: its number, or whether a binary one (0 and 1, -1 and 1, or a
    probability) is the positive one.
    """
    if classes_of(output, target):
        return target.astype("i64")
    return (target > (0.5 if target.dtype.is_float else 0)).astype("i64")


def _count(target: Tensor) -> Tensor:
    """The number of targets in the batch, f64."""
    return nn.sum(nn.ones_like(target).astype("f64"))


@dataclass(frozen=True)
class Accuracy(Metric):
    """The share of targets that are hit: classes by argmax, binary logits by their sign."""

    def partial(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        hit = decisions(output, target) == truth(output, target)
        return {"hits": nn.sum(hit.astype("f64")), "count": _count(target)}

    def value(self, totals: Mapping[str, Array]) -> float:
        return _share(totals["hits"], totals["count"])


@dataclass(frozen=True)
class TopK(Metric):
    """The share of targets among the k greatest outputs; of outputs that tie all count."""

    k: int = 5

    def __post_init__(self) -> None:
        if self.k < 1:
            raise Error("E0692", f"top-k accuracy of k = {self.k}", hint="k is 1 or more")

    @property
    def name(self) -> str:
        return f"top{self.k}"

    def partial(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        if classes_of(output, target) is None:
            raise Error(
                "E0692", f"{self.name} is for several classes, the output has one per target",
                details=(f"output {list(output.shape)}, target {list(target.shape)}",),
                hint="accuracy",
            )  # fmt: skip
        # fewer than k outputs above the target's own are a hit; one that is no number is none
        own = nn.take_along_axis(output, nn.expand_dims(target.astype("i64"), 1), 1)
        above = nn.sum(nn.logical_not(output <= own).astype("f64"), 1)
        hits = nn.sum((above < float(self.k)).astype("f64"))
        return {"hits": hits, "count": _count(target)}

    def value(self, totals: Mapping[str, Array]) -> float:
        return _share(totals["hits"], totals["count"])


@dataclass(frozen=True)
class Confusion(Metric):
    """The matrix counts[true class, class said]; targets that are no class (255) do not count.

    `classes`: how many there are, by default as many as the output has, two for binary logits.
    """

    classes: int | None = None

    def partial(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        found = classes_of(output, target) or 2
        if self.classes not in (None, found):
            raise Error(
                "E0692", f"{self.name} of {self.classes} classes, the output has {found}",
                details=(f"output {list(output.shape)}, target {list(target.shape)}",),
            )  # fmt: skip
        said = self._rows(decisions(output, target), found)
        true = self._rows(truth(output, target), found)
        return {"counts": nn.transpose(true) @ said}

    @staticmethod
    def _rows(classes: Tensor, count: int) -> Tensor:
        """A row of 0 and 1 for each number."""
        return (classes.reshape((-1, 1)) == nn.arange(count)).astype("f64")

    def value(self, totals: Mapping[str, Array]) -> Any:
        return totals["counts"].astype(np.int64)


@dataclass(frozen=True)
class _OfConfusion(Confusion):
    """A mean over classes of what their hits, said and true counts give.

    `average` is "macro" (mean over the classes that occur or are said), "micro" (all together),
    "binary" (class 1 alone, the default for two classes) or "none" (an array, one per class).
    """

    average: str | None = None

    def __post_init__(self) -> None:
        if self.average not in (None, "macro", "micro", "binary", "none"):
            raise Error(
                "E0692",
                f"{self.name}: no average '{self.average}'",
                hint="macro, micro, binary or none",
            )

    def value(self, totals: Mapping[str, Array]) -> Any:
        counts = totals["counts"]
        hits, said, true = np.diag(counts), counts.sum(0), counts.sum(1)
        average = self.average or ("binary" if len(counts) == 2 else "macro")
        if average == "none":
            return self.of_counts(hits, said, true)
        if average == "binary":
            hits, said, true = hits[1:2], said[1:2], true[1:2]
        elif average == "micro":
            hits, said, true = [np.sum(v, keepdims=True) for v in (hits, said, true)]
        else:
            hits, said, true = [v[said + true > 0] for v in (hits, said, true)]
        return float(np.mean(self.of_counts(hits, said, true))) if len(hits) else math.nan

    @staticmethod
    @abstractmethod
    def of_counts(hits: Array, said: Array, true: Array) -> Array:
        """The figure of each class."""


def _ratio(a: Array, b: Array) -> Array:
    """a / b, 0 where b is 0."""
    return np.divide(a, b, out=np.zeros_like(a, dtype=np.float64), where=b != 0)


@dataclass(frozen=True)
class Precision(_OfConfusion):
    """Of those said to be of a class, the share that are."""

    @staticmethod
    def of_counts(hits: Array, said: Array, true: Array) -> Array:
        return _ratio(hits, said)


@dataclass(frozen=True)
class Recall(_OfConfusion):
    """Of those of a class, the share that are said to be."""

    @staticmethod
    def of_counts(hits: Array, said: Array, true: Array) -> Array:
        return _ratio(hits, true)


@dataclass(frozen=True)
class F1(_OfConfusion):
    """The harmonic mean of precision and recall."""

    @staticmethod
    def of_counts(hits: Array, said: Array, true: Array) -> Array:
        return _ratio(2 * hits, said + true)


@dataclass(frozen=True)
class IoU(_OfConfusion):
    """Intersection over union per class, their mean (Jaccard); each pixel is a target."""

    average: str | None = "macro"

    @property
    def name(self) -> str:
        return "iou"

    @staticmethod
    def of_counts(hits: Array, said: Array, true: Array) -> Array:
        return _ratio(hits, said + true - hits)


@dataclass(frozen=True)
class _Error(Metric):
    """A mean over all elements of a distance between output and target."""

    def distance(self, d: Tensor) -> Tensor:
        """The distance of one element."""
        return d

    def partial(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        d = output.astype("f64") - target.astype("f64").reshape(output.shape)
        return {"sum": nn.sum(self.distance(d)), "count": _count(output)}

    def value(self, totals: Mapping[str, Array]) -> float:
        return _share(totals["sum"], totals["count"])


@dataclass(frozen=True)
class MAE(_Error):
    """The mean absolute error."""

    def distance(self, d: Tensor) -> Tensor:
        return nn.abs(d)


@dataclass(frozen=True)
class MSE(_Error):
    """The mean squared error."""

    def distance(self, d: Tensor) -> Tensor:
        return d * d


@dataclass(frozen=True)
class AUC(Metric):
    """The area under the receiver operating characteristic: how often a positive scores above a
    negative, ties by half.  Of a binary logit, or of two logits their difference; NaN where all
    targets are of one class.
    """

    gathers: ClassVar[bool] = True

    def partial(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        classes = classes_of(output, target)
        if classes not in (None, 2):
            raise Error(
                "E0692", f"auc is for two classes, the output has {classes}",
                details=(f"output {list(output.shape)}, target {list(target.shape)}",),
            )  # fmt: skip
        if classes:
            output = output[:, 1] - output[:, 0]
        score = output if output.dtype is nn.f64 else output.astype("f32")
        positive = truth(score.reshape(target.shape), target)
        return {"score": score.reshape((-1,)), "positive": positive.reshape((-1,))}

    def value(self, totals: Mapping[str, Array]) -> float:
        score, positive = totals["score"], totals["positive"] > 0
        _, at, counts = np.unique(score, return_inverse=True, return_counts=True)
        rank = (np.cumsum(counts) - (counts - 1) / 2)[at]
        n, m = int(positive.sum()), int((~positive).sum())
        return float((rank[positive].sum() - n * (n + 1) / 2) / (n * m)) if n and m else math.nan


def _share(part: Array, count: Array) -> float:
    return float(part) / float(count) if float(count) else float("nan")


NAMES: dict[str, Callable[[], Metric]] = {
    "accuracy": Accuracy, "top5": TopK, "precision": Precision, "recall": Recall, "f1": F1,
    "auc": AUC, "mae": MAE, "mse": MSE, "iou": IoU, "confusion": Confusion,
}  # fmt: skip


def as_metric(metric: Any) -> Metric:
    """A metric by name ("accuracy", "top3") or itself; E0692 for an unknown one."""
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, str):
        if metric in NAMES:
            return NAMES[metric]()
        if top := re.fullmatch(r"top(\d+)", metric):
            return TopK(int(top[1]))
    raise unknown("E0692", "metric", metric, NAMES, "a train.Metric")


class Totals:
    """The running totals of some metrics over the batches of an epoch."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.metrics = tuple(metrics)
        self.parts: dict[tuple[int, str], list[Array]] = {}

    def add(self, partials: Sequence[Mapping[str, Any]]) -> None:
        """The partials of one batch, one mapping per metric, as arrays."""
        for k, (metric, partial) in enumerate(zip(self.metrics, partials, strict=True)):
            for name, value in partial.items():
                array = np.array(value)
                known = self.parts.setdefault((k, name), [])
                if metric.gathers or not known:
                    known.append(array)
                else:
                    known[0] = known[0] + array

    def values(self) -> dict[str, Any]:
        """The metrics so far by name; nothing before the first batch."""
        found = {}
        for k, metric in enumerate(self.metrics):
            totals = {n: np.concatenate(v) if metric.gathers else v[0]
                      for (j, n), v in self.parts.items() if j == k}  # fmt: skip
            if totals:
                found[metric.name] = metric.value(totals)
        return found


__all__ = [
    "AUC", "F1", "MAE", "MSE", "Accuracy", "Confusion", "IoU", "Metric", "Precision", "Recall",
    "TopK", "Totals", "as_metric", "decisions",
]  # fmt: skip

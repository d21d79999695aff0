"""Losses as functions, with torch's arguments and reductions ("none", "mean", "sum").

Labels out of range are an error where the values are known (eager).  May import: ir, its siblings.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...ir.errors import Error
from ...ir.ops.ctc import CtcLoss
from ...ir.ops.losses import CrossEntropy
from .activation import logsigmoid, relu, softplus
from .dispatch import apply, as_tensor
from .embedding import check_range
from .functions import abs as absolute
from .functions import clip, exp, log, maximum, minimum, sqrt, where
from .indexing import take_along_axis
from .reductions import log_softmax
from .shaping import expand_dims, reshape, squeeze
from .tensor import Tensor

REDUCTIONS = ("none", "mean", "sum")


def reduced(x: Tensor, reduction: str) -> Tensor:
    """All elements, their mean, or their sum; E0641 for another name."""
    if reduction not in REDUCTIONS:
        raise Error("E0641", f"no reduction '{reduction}'", hint=", ".join(REDUCTIONS))
    if reduction == "none":
        return x
    return x.mean() if reduction == "mean" else x.sum()


def _pair(loss: str, x: Any, target: Any) -> tuple[Tensor, Tensor]:
    """Input and target of one shape, the target in the input's element type."""
    x, target = as_tensor(x), as_tensor(target)
    if x.ndim != target.ndim or any([
        isinstance(a, int) and isinstance(b, int) and a != b
        for a, b in zip(x.type.shape, target.type.shape)
    ]):  # fmt: skip
        raise Error("E0644", f"{loss}: input and target differ in shape",
                    details=(f"input {x.type}", f"target {target.type}"),
                    hint="reshape the target; losses do not broadcast")  # fmt: skip
    return x, target if target.dtype is x.dtype else target.astype(x.dtype)


# ------------------------------------------------------------ classes


def cross_entropy(
    input: Any, target: Any, weight: Any = None, ignore_index: int = -100,
    reduction: str = "mean", label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """-log softmax(input)[target], of logits [N, C, *S] (or [C]) and labels [N, *S] (or []), or of
    probabilities in the input's shape.

    `weight` [C] scales the classes, labels equal to `ignore_index` do not count, `label_smoothing`
    moves this share of the probability to all classes (Szegedy 2016).
    """
    x, target = as_tensor(input), as_tensor(target)
    if not 0 <= label_smoothing <= 1:
        raise Error("E0641", f"label_smoothing lies between 0 and 1, found {label_smoothing}")
    axis = 1 if x.ndim > 1 else 0
    scale = None if weight is None else _class_weights("cross_entropy", x, weight, axis)
    if target.dtype.is_float:
        if target.ndim == x.ndim - 1:
            raise Error("E0644", "cross_entropy: labels are integers",
                        details=(f"found {target.type}",), hint="target.astype('i64')")  # fmt: skip
        return _soft(log_softmax(x, axis), target, scale, axis, reduction, label_smoothing)
    _check_labels("cross_entropy", x, target, axis, _classes(x, axis), ignore_index)
    if reduction not in REDUCTIONS:
        raise Error("E0641", f"no reduction '{reduction}'", hint=", ".join(REDUCTIONS))
    flat = None if scale is None else reshape(scale, (_classes(x, axis),))
    made: Tensor = apply(CrossEntropy, x, target, flat, axis=axis, ignored=ignore_index,
                         smoothing=float(label_smoothing), reduction=reduction)  # fmt: skip
    return made


def _class_weights(loss: str, x: Tensor, weight: Any, axis: int) -> Tensor:
    """The classes' weights as [C, 1, ...]."""
    weight = as_tensor(weight)
    count = x.type.shape[axis]
    if weight.ndim != 1 or weight.type.shape[0] != count:
        raise Error("E0644", f"{loss}: one weight per class",
                    details=(f"expected [{count}]", f"found {weight.type}"))  # fmt: skip
    return reshape(weight.astype(x.dtype), (count, *[1] * (x.ndim - axis - 1)))


def _soft(
    logp: Tensor, target: Any, weight: Tensor | None, axis: int, reduction: str, smoothing: float
) -> Tensor:
    """Of probabilities; the mean is over the examples, as in torch."""
    logp, target = _pair("cross_entropy", logp, target)
    if smoothing:
        target = target * (1 - smoothing) + smoothing / _classes(logp, axis)
    each = logp * target if weight is None else logp * target * weight
    losses = -each.sum(axis)
    return reduced(losses, reduction)


def _classes(x: Tensor, axis: int) -> int:
    count = x.type.shape[axis]
    if not isinstance(count, int):
        raise Error("E0644", "the number of classes must be known", details=(f"found {x.type}",))
    return count


def nll_loss(
    input: Any, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """-input[target], of log probabilities [N, C, *S] (or [C]) and labels [N, *S] (or [])."""
    x, target = as_tensor(input), as_tensor(target)
    axis = 1 if x.ndim > 1 else 0
    scale = None if weight is None else _class_weights("nll_loss", x, weight, axis)
    classes = _classes(x, axis)
    _check_labels("nll_loss", x, target, axis, classes, ignore_index)
    counted = target != ignore_index
    safe = where(counted, target, 0)
    picked = -squeeze(take_along_axis(x, expand_dims(safe, axis), axis), axis)
    share: Tensor = counted.astype(x.dtype)
    if scale is not None:
        share = share * scale.reshape((classes,))[safe]
    losses = where(counted, picked, 0.0) * share
    if reduction != "mean":
        return reduced(losses, reduction)
    return losses.sum() / share.sum()


def _check_labels(
    loss: str, x: Tensor, target: Tensor, axis: int, classes: int, ignore: int | None
) -> None:
    """E0643 for a label out of range, E0644 for labels of the wrong shape or type."""
    wanted = (*x.type.shape[:axis], *x.type.shape[axis + 1 :])
    if not target.dtype.is_integer:
        raise Error("E0644", f"{loss}: labels are integers", details=(f"found {target.type}",))
    differs = target.ndim != len(wanted) or any([
        isinstance(a, int) and isinstance(b, int) and a != b
        for a, b in zip(wanted, target.type.shape)
    ])  # fmt: skip
    if differs:
        raise Error("E0644", f"{loss}: the labels do not fit the input",
                    details=(f"expected {list(wanted)} for {x.type}", f"found {target.type}"),
                    hint="labels have the input's shape without the axis of classes")  # fmt: skip
    if target.value is None and ignore is not None:
        target = as_tensor(np.where(target.array == ignore, 0, target.array))
    check_range(target, classes, loss, "label")


def ctc_loss(
    log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any, blank: int = 0,
    reduction: str = "mean", zero_infinity: bool = False,
) -> Tensor:  # fmt: skip
    """-log of the probability of the labels over all alignments (Graves 2006).

    log_probs [T, N, C] (or [T, C]), targets [N, S] (or one after the other, [sum of lengths]).  The
    mean is over sequences, each divided by its number of labels, as in torch.
    """
    x = as_tensor(log_probs)
    if x.ndim == 2:
        steps, counts = [as_tensor(n).reshape((1,)) for n in (input_lengths, target_lengths)]
        way = "sum" if reduction == "none" else reduction
        return ctc_loss(x[:, None], as_tensor(targets)[None], steps, counts, blank, way,
                        zero_infinity)  # fmt: skip
    steps, counts = as_tensor(input_lengths), as_tensor(target_lengths)
    labels = as_tensor(targets)
    if labels.ndim == 1:
        labels = _rows(labels, counts)
    if not 0 <= blank < _classes(x, 2):
        raise Error("E0643", f"ctc_loss: blank {blank} is no class of {x.type.shape[2]}")
    check_range(_spelled(labels, counts), _classes(x, 2), "ctc_loss", "label")
    losses: Tensor = apply(CtcLoss, x, labels, steps, counts, blank=blank,
                           zero_infinity=zero_infinity)  # fmt: skip
    return reduced(losses / _at_least_one(counts, x) if reduction == "mean" else losses, reduction)


def _at_least_one(lengths: Any, like: Tensor) -> Tensor:
    return maximum(as_tensor(lengths).astype(like.dtype), 1.0)


def _spelled(labels: Tensor, counts: Tensor) -> Tensor:
    """The labels that count, where they are known; the rest as 0."""
    if labels.value is not None or counts.value is not None:
        return labels
    inside = np.arange(labels.array.shape[1]) < counts.array[:, None]
    return as_tensor(np.where(inside, labels.array, 0))


def _rows(labels: Tensor, counts: Tensor) -> Tensor:
    """Labels that follow one another as one row per sequence, 0 behind."""
    if labels.value is not None or counts.value is not None:
        raise Error("E0644", "ctc_loss: labels one after the other are taken eagerly only",
                    hint="give them as [N, S], with lengths")  # fmt: skip
    ends = np.cumsum(counts.array)
    if labels.array.size != (ends[-1] if ends.size else 0):
        raise Error(
            "E0644",
            "ctc_loss: the lengths do not add up to the labels",
            details=(f"expected {int(ends[-1])}", f"found {labels.array.size}"),
        )
    made = np.zeros((counts.array.size, int(counts.array.max(initial=0))), labels.array.dtype)
    for row, (end, count) in enumerate(zip(ends, counts.array)):
        made[row, :count] = labels.array[end - count : end]
    return as_tensor(made)


# ------------------------------------------------------------ numbers


def mse_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """(input - target)**2."""
    x, target = _pair("mse_loss", input, target)
    difference = x - target
    return reduced(difference * difference, reduction)


def l1_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """|input - target|."""
    x, target = _pair("l1_loss", input, target)
    return reduced(absolute(x - target), reduction)


def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """d**2 / 2 up to |d| = delta, delta * (|d| - delta / 2) beyond (Huber 1964)."""
    if delta <= 0:
        raise Error("E0641", f"huber_loss: delta is positive, found {delta}")
    x, target = _pair("huber_loss", input, target)
    d = absolute(x - target)
    near = minimum(d, delta)
    return reduced(near * (d - near * 0.5), reduction)


def smooth_l1_loss(input: Any, target: Any, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """d**2 / (2 beta) up to |d| = beta, |d| - beta / 2 beyond."""
    if beta < 0:
        raise Error("E0641", f"smooth_l1_loss: beta is not negative, found {beta}")
    if beta == 0:
        return l1_loss(input, target, reduction)
    x, target = _pair("smooth_l1_loss", input, target)
    d = absolute(x - target)
    near = minimum(d, beta)
    return reduced(near * (d - near * 0.5) / beta, reduction)


def binary_cross_entropy(
    input: Any, target: Any, weight: Any = None, reduction: str = "mean"
) -> Tensor:
    """-(t log p + (1 - t) log(1 - p)) of probabilities; logarithms are at least -100, as in torch.

    E0643 for probabilities outside [0, 1], as far as the values are known.
    """
    p, t = _pair("binary_cross_entropy", input, target)
    if p.value is None and p.array.size and not (p.array.min() >= 0 and p.array.max() <= 1):
        raise Error("E0643", "binary_cross_entropy takes probabilities between 0 and 1",
                    details=(f"found {p.array.min()} to {p.array.max()}",),
                    hint="binary_cross_entropy_with_logits takes any number")  # fmt: skip
    each = -(t * _bounded_log(p) + (1 - t) * _bounded_log(1 - p))
    return reduced(_weighted(each, weight), reduction)


_LEAST = 1e-12


def _bounded_log(p: Tensor) -> Tensor:
    """log p, at least -100; below 1e-12 the slope is that of 1e-12, so no gradient is infinite."""
    small = p < _LEAST
    ordinary = log(where(small, 1.0, p))
    end = maximum(log(p), -100.0).detach() + (p - p.detach()) * (1 / _LEAST)
    return where(small, end, ordinary)


def _weighted(each: Tensor, weight: Any) -> Tensor:
    return each if weight is None else each * as_tensor(weight).astype(each.dtype)


def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, reduction: str = "mean", pos_weight: Any = None
) -> Tensor:
    """The binary cross entropy of sigmoid(input), without overflow; `pos_weight` scales t = 1."""
    x, t = _pair("binary_cross_entropy_with_logits", input, target)
    if pos_weight is None:
        each = softplus(x) - x * t
    else:
        scale = as_tensor(pos_weight).astype(x.dtype)
        each = (1 - t) * x - ((scale - 1) * t + 1) * logsigmoid(x)
    return reduced(_weighted(each, weight), reduction)


def kl_div(input: Any, target: Any, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target * (log target - input), of log probabilities; reduction "batchmean" is the right mean.

    `log_target` says that the target is logarithms too.
    """
    x, t = _pair("kl_div", input, target)
    if log_target:
        each = exp(t) * (t - x)
    else:
        each = where(t > 0, t * log(where(t > 0, t, 1.0)), 0.0) - t * x
    if reduction == "batchmean":
        return each.sum() / each.type.shape[0]
    return reduced(each, reduction)


def poisson_nll_loss(
    input: Any, target: Any, log_input: bool = True, full: bool = False, eps: float = 1e-8,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """exp(x) - t x (or x - t log(x + eps)); `full` adds Stirling's term for t > 1."""
    x, t = _pair("poisson_nll_loss", input, target)
    each = exp(x) - t * x if log_input else x - t * log(x + eps)
    if full:
        large = where(t > 1, t, 1.0)
        stirling = large * log(large) - large + log(large * (2 * math.pi)) * 0.5
        each = each + where(t > 1, stirling, 0.0)
    return reduced(each, reduction)


def gaussian_nll_loss(
    input: Any, target: Any, var: Any, full: bool = False, eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """(log var + (x - t)**2 / var) / 2, var at least eps without a gradient for that."""
    x, t = _pair("gaussian_nll_loss", input, target)
    var = as_tensor(var).astype(x.dtype)
    if var.ndim == x.ndim - 1:
        var = expand_dims(var, -1)
    if var.value is None and var.array.size and var.array.min() < 0:
        raise Error("E0643", "gaussian_nll_loss: a variance is negative",
                    details=(f"found {var.array.min()}",))  # fmt: skip
    held = var + (maximum(var, eps) - var).detach()
    each = (log(held) + (x - t) * (x - t) / held) * 0.5
    if full:
        each = each + 0.5 * math.log(2 * math.pi)
    return reduced(each, reduction)


# ------------------------------------------------------------ margins


def hinge_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """max(0, 1 - t x) of targets -1 and 1."""
    x, t = _pair("hinge_loss", input, target)
    return reduced(relu(1 - t * x), reduction)


def soft_margin_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """log(1 + exp(-t x)) of targets -1 and 1."""
    x, t = _pair("soft_margin_loss", input, target)
    return reduced(softplus(-(t * x)), reduction)


def multilabel_soft_margin_loss(
    input: Any, target: Any, weight: Any = None, reduction: str = "mean"
) -> Tensor:
    """The binary cross entropy of logits [N, C], averaged over the classes."""
    each = binary_cross_entropy_with_logits(input, target, weight, "none")
    return reduced(each.mean(-1), reduction)


def hinge_embedding_loss(
    input: Any, target: Any, margin: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """x where t = 1, max(0, margin - x) where t = -1."""
    x, t = _pair("hinge_embedding_loss", input, target)
    near = where(t != -1, x, 0.0)
    far = where(t != 1, clip(margin - x, 0.0), 0.0)
    return reduced(near + far, reduction)


def multi_margin_loss(
    input: Any, target: Any, p: int = 1, margin: float = 1.0, weight: Any = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """The mean over classes c other than the label of max(0, margin - x[label] + x[c])**p."""
    x, target = as_tensor(input), as_tensor(target)
    if p not in (1, 2):
        raise Error("E0641", f"multi_margin_loss: p is 1 or 2, found {p}")
    if x.ndim == 1:
        each = multi_margin_loss(x[None], target.reshape((1,)), p, margin, weight, "none")
        return each[0] if reduction == "none" else reduced(each, reduction)
    classes = _classes(x, 1)
    _check_labels("multi_margin_loss", x, target, 1, classes, None)
    at = expand_dims(target, 1)
    gap = clip(margin - take_along_axis(x, at, 1) + x, 0.0)
    if p == 2:
        gap = gap * gap
    if weight is not None:
        gap = gap * expand_dims(as_tensor(weight).astype(x.dtype)[target], 1)
    others = at != np.arange(classes)[None]
    return reduced(where(others, gap, 0.0).sum(1) / classes, reduction)


def margin_ranking_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """max(0, -t (x1 - x2) + margin) of targets -1 and 1."""
    a, b = _pair("margin_ranking_loss", input1, input2)
    t = as_tensor(target).astype(a.dtype)
    return reduced(clip(-t * (a - b) + margin, 0.0), reduction)


def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """x1 . x2 / (|x1| |x2|) along `dim`, each norm at least eps."""
    a, b = as_tensor(x1), as_tensor(x2)
    norms = [sqrt(maximum((x * x).sum(dim), eps * eps)) for x in (a, b)]
    return (a * b).sum(dim) / (norms[0] * norms[1])


def pairwise_distance(
    x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """The p-norm of x1 - x2 + eps along the last axis."""
    difference: Tensor = as_tensor(x1) - x2 + eps
    return difference.norm(p, -1, keepdim)


def cosine_embedding_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """1 - cos where t = 1, max(0, cos - margin) where t = -1, of [N, D] (or [D])."""
    a, b = as_tensor(input1), as_tensor(input2)
    t = as_tensor(target)
    eps = 1e-12
    dots = (a * b).sum(-1)
    cos = dots / sqrt(((a * a).sum(-1) + eps) * ((b * b).sum(-1) + eps))
    each = where(t == 1, 1 - cos, where(t == -1, clip(cos - margin, 0.0), 0.0))
    return reduced(each, reduction)


def triplet_margin_loss(
    anchor: Any, positive: Any, negative: Any, margin: float = 1.0, p: float = 2.0,
    eps: float = 1e-6, swap: bool = False, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """max(0, d(anchor, positive) - d(anchor, negative) + margin), d the p-norm distance."""
    near = pairwise_distance(anchor, positive, p, eps)
    far = pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = minimum(far, pairwise_distance(positive, negative, p, eps))
    return reduced(clip(near - far + margin, 0.0), reduction)


__all__ = [
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cosine_embedding_loss",
    "cosine_similarity", "cross_entropy", "ctc_loss", "gaussian_nll_loss", "hinge_embedding_loss",
    "hinge_loss", "huber_loss", "kl_div", "l1_loss", "margin_ranking_loss", "mse_loss",
    "multi_margin_loss", "multilabel_soft_margin_loss", "nll_loss", "pairwise_distance",
    "poisson_nll_loss", "smooth_l1_loss", "soft_margin_loss", "triplet_margin_loss",
]  # fmt: skip

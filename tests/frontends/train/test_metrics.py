"""Metrics held against scikit-learn over batches of unequal size, eager, traced and compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import irc
from irc import nn, train
from irc.frontends.train.metrics import Totals, as_metric
from irc.ir.errors import Error

RNG = np.random.default_rng(0)
Array = np.ndarray


def batches(output: Array, target: Array, size: int = 16) -> Iterator[tuple[Array, Array]]:
    """The last one is smaller."""
    for k in range(0, len(output), size):
        yield output[k : k + size], target[k : k + size]


def value(metric: Any, output: Any, target: Any, size: int = 16) -> Any:
    """The metric over batches, eager."""
    metric = as_metric(metric)
    totals = Totals([metric])
    for o, t in batches(np.asarray(output), np.asarray(target), size):
        totals.add([metric.partial(nn.tensor(o), nn.tensor(t))])
    return totals.values()[metric.name]


@pytest.fixture
def oracle() -> Any:
    return pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")


LOGITS = RNG.standard_normal((53, 4)).astype(np.float32)
CLASSES = RNG.integers(0, 4, 53)
MASKS = RNG.standard_normal((7, 3, 5, 6)).astype(np.float32)
PIXELS = RNG.integers(0, 3, (7, 5, 6))
BINARY = RNG.standard_normal(53).astype(np.float32)
SIGNS = (BINARY + RNG.standard_normal(53) > 0).astype(np.int64)

NEVER = np.where(CLASSES == 2, 3, CLASSES)
"""Class 2 does not occur."""
NOT_SAID = LOGITS - 100 * np.eye(4, dtype=np.float32)[2]
"""... and nobody says it."""

CASES: dict[str, tuple[Array, Array]] = {
    "classes": (LOGITS, CLASSES),
    "never occurs": (LOGITS, NEVER),
    "never said": (NOT_SAID, CLASSES),
    "neither": (NOT_SAID, NEVER),
    "one class": (LOGITS, np.full(53, 1)),
    "i32 targets": (LOGITS, CLASSES.astype(np.int32)),
    "float targets": (LOGITS, CLASSES.astype(np.float32)),
    "pixels": (MASKS, PIXELS),
    "two classes": (LOGITS[:, :2], SIGNS),
    "logit [N]": (BINARY, SIGNS),
    "logit [N, 1]": (BINARY[:, None], SIGNS),
    "both [N, 1]": (BINARY[:, None], SIGNS[:, None]),
    "float [N]": (BINARY, SIGNS.astype(np.float32)),
    "signs": (BINARY, 2 * SIGNS - 1),
    "bools": (BINARY, SIGNS > 0),
    "one sign": (BINARY, np.zeros(53, np.int64)),
    "pixel logits [N, 1, H, W]": (MASKS[:, :1], (PIXELS > 0).astype(np.int64)),
}


def plain(output: Array, target: Array) -> tuple[Array, Array]:
    """Flat numbers of the classes said and the true ones."""
    if output.ndim == target.ndim + 1 and output.shape[1] > 1:
        return output.argmax(1).ravel(), target.astype(np.int64).ravel()
    return (output > 0).astype(np.int64).ravel(), (target > 0).astype(np.int64).ravel()


@pytest.mark.parametrize("case", CASES)
def test_what_counts_classes(case: str, oracle: Any) -> None:
    output, target = CASES[case]
    said, true = plain(output, target)
    assert value("accuracy", output, target) == pytest.approx(oracle.accuracy_score(true, said))
    classes = output.shape[1] if output.ndim > target.ndim and output.shape[1] > 1 else 2
    expected = oracle.confusion_matrix(true, said, labels=range(classes))
    found = value("confusion", output, target)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, expected)
    scores = {
        train.Precision: oracle.precision_score, train.Recall: oracle.recall_score,
        train.F1: oracle.f1_score, train.IoU: oracle.jaccard_score,
    }  # fmt: skip
    for metric, score in scores.items():
        averages = ("macro", "micro", "binary") if classes == 2 else ("macro", "micro")
        for average in averages:
            wanted = score(true, said, average=average, zero_division=0)
            found = value(metric(average=average), output, target)
            assert found == pytest.approx(wanted), (metric.__name__, average)


def test_figures_of_each_class() -> None:
    counts = {"counts": np.array([[2.0, 2, 0], [0, 1, 0], [1, 0, 0]])}
    np.testing.assert_allclose(train.Precision(3, "none").value(counts), [2 / 3, 1 / 3, 0])
    np.testing.assert_allclose(train.Recall(3, "none").value(counts), [0.5, 1, 0])


def test_averages_that_are_not_said() -> None:
    for name in ("precision", "recall", "f1"):
        metric = type(as_metric(name))
        assert value(name, BINARY, SIGNS) == value(metric(average="binary"), BINARY, SIGNS)
        assert value(name, LOGITS, CLASSES) == value(metric(average="macro"), LOGITS, CLASSES)
    assert value("iou", BINARY, SIGNS) == value(train.IoU(average="macro"), BINARY, SIGNS)


def test_targets_that_are_no_class_do_not_count() -> None:
    marked = PIXELS.copy()
    marked[:, 0], marked[:, 1], marked[:, 2] = 255, -100, -1
    found = value("confusion", MASKS, marked)
    np.testing.assert_array_equal(found, value("confusion", MASKS[:, :, 3:], PIXELS[:, 3:]))


@pytest.mark.parametrize("k", [1, 2, 4, 9])
def test_top_k(k: int, oracle: Any) -> None:
    wanted = oracle.top_k_accuracy_score(CLASSES, LOGITS, k=k, labels=range(4)) if k < 4 else 1.0
    assert value(f"top{k}", LOGITS, CLASSES) == pytest.approx(wanted)
    flat = MASKS.transpose(0, 2, 3, 1).reshape(-1, 3)
    order = np.argsort(-flat, 1)[:, :k]
    hits = (order == PIXELS.reshape(-1, 1)).any(1).mean()
    assert value(train.TopK(k), MASKS, PIXELS) == pytest.approx(hits)


def test_outputs_that_tie_are_all_among_the_top() -> None:
    tied = np.array([[1, 1, 1, 0], [2, 1, 1, 0], [3, 2, 1, 1]], np.float32)
    said = [value(f"top{k}", tied, np.array([2, 2, 3])) for k in (1, 2, 3)]
    assert said == pytest.approx([1 / 3, 2 / 3, 1])
    nothing = np.full((2, 4), np.nan, np.float32)
    assert value("top3", nothing, np.array([0, 1])) == 0  # what is no number hits nothing


@pytest.mark.parametrize("kind", ["[N]", "[N, 1]", "[N, 2]", "ties", "float", "f64", "f16"])
def test_auc(kind: str, oracle: Any) -> None:
    output, target, score = BINARY, SIGNS, BINARY
    if kind == "[N, 1]":
        output = BINARY[:, None]
    elif kind == "[N, 2]":
        output, score = LOGITS[:, :2], LOGITS[:, 1] - LOGITS[:, 0]
    elif kind == "ties":
        output = score = np.round(BINARY)
    elif kind == "float":
        target = SIGNS.astype(np.float32)
    elif kind == "f64":  # apart in f64 alone
        output = score = 1 + 1e-12 * BINARY.astype(np.float64)
    elif kind == "f16":
        output = score = BINARY.astype(np.float16)
    wanted = oracle.roc_auc_score(SIGNS, score.astype(np.float64))
    assert value("auc", output, target) == pytest.approx(wanted)


def test_auc_of_one_class_is_no_number() -> None:
    assert np.isnan(value("auc", BINARY, np.ones(53, np.int64)))
    assert np.isnan(value("auc", BINARY, np.zeros(53, np.int64)))


def test_errors_of_numbers(oracle: Any) -> None:
    wanted = RNG.standard_normal((53, 4)).astype(np.float32)
    for name, score in (("mae", oracle.mean_absolute_error), ("mse", oracle.mean_squared_error)):
        assert value(name, LOGITS, wanted) == pytest.approx(score(wanted, LOGITS))
        assert value(name, LOGITS[:, :1], wanted[:, 0]) == pytest.approx(
            score(wanted[:, 0], LOGITS[:, 0])
        )
        assert value(name, LOGITS[:, 0], SIGNS) == pytest.approx(score(SIGNS, LOGITS[:, 0]))


def test_an_epoch_is_exact_whatever_the_batches() -> None:
    for name in ("accuracy", "f1", "auc", "mse"):
        whole = value(name, BINARY, SIGNS, 53)
        for size in (1, 16, 52):  # 52: the last batch is one sample, and weighs one
            assert value(name, BINARY, SIGNS, size) == pytest.approx(whole, abs=1e-12), (name, size)
    assert Totals([as_metric("accuracy")]).values() == {}


def partials_of(metrics: Sequence[Any]) -> Callable[..., Any]:
    """All partials of an output and a target, in a row."""
    return lambda o, t: [p for m in metrics for p in as_metric(m).partial(o, t).values()]


MANY = ("accuracy", "top2", "precision", "iou", "confusion")
TWO = ("accuracy", "f1", "confusion", "auc", "mae", "mse")


@pytest.mark.parametrize(
    ("metrics", "output", "target", "specs"),
    [
        (MANY, LOGITS, CLASSES, (("N", 4), ("N",))),
        (MANY, MASKS, PIXELS, (("N", 3, 5, 6), ("N", 5, 6))),
        (TWO, BINARY[:, None], SIGNS, (("N", 1), ("N",))),
        (TWO, BINARY, SIGNS.astype(np.float32), (("N",), ("N",))),
    ],
    ids=["classes", "pixels", "logits", "probabilities"],
)
def test_traced_and_compiled_equal_eager(
    metrics: Sequence[str], output: Array, target: Array, specs: Any
) -> None:
    call = partials_of(metrics)
    expected = [np.asarray(p) for p in call(nn.tensor(output), nn.tensor(target))]
    kinds = [nn.Spec(s, a.dtype.name.replace("float", "f").replace("int", "i"))
             for s, a in zip(specs, (output, target))]  # fmt: skip
    compiled = irc.compile(call, threads=1)
    for found in (nn.trace(call, *kinds)(output, target), compiled(output, target)):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(np.asarray(a), b, rtol=1e-12)


def test_in_a_trainer() -> None:
    nn.manual_seed(0)
    t = train.Trainer(
        nn.Linear(4, 1), loss=lambda o, y: nn.mse_loss(o[:, 0], y.astype("f32")),
        metrics=["accuracy", "f1", "auc", train.Confusion()], target="reference",
    )  # fmt: skip
    h = t.fit((LOGITS, SIGNS), epochs=1, progress=False, validation=(LOGITS, SIGNS))
    said = t.predict(LOGITS)
    for name in ("accuracy", "f1", "auc"):
        assert h["val_" + name][0] == pytest.approx(value(name, said, SIGNS))
    assert h["confusion"][0].shape == (2, 2) and h["confusion"][0].sum() == 53


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: as_metric("acuracy"), "did you mean 'accuracy'?"),
        (lambda: as_metric("top0"), "k is 1 or more"),
        (lambda: train.Precision(average="weighted"), "macro, micro, binary or none"),
        (lambda: value(train.Confusion(3), LOGITS, CLASSES), "of 3 classes, the output has 4"),
        (lambda: value("auc", LOGITS, CLASSES), "the output has 4"),
        (lambda: value("top2", BINARY, SIGNS), "for several classes"),
        (lambda: value("accuracy", MASKS, CLASSES[:7]), "output [7, 3, 5, 6], target [7]"),
        (lambda: train.Metric().partial(None, None), "does not define `partial`"),
    ],
)
def test_what_does_not_fit_is_refused(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(Error) as caught:
        call()
    assert caught.value.code == "E0692" and said in caught.value.render()

"""Losses against torch, with every reduction; and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irc import nn
from irc.ir.errors import Error


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def labels(*shape: int, classes: int = 5) -> Any:
    return np.random.default_rng(7).integers(0, classes, shape)


def chances(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).uniform(0.01, 0.99, shape)


def simplex(*shape: int) -> Any:
    e = np.exp(normal(*shape, seed=4))
    return e / e.sum(1, keepdims=True)


SIGNS = np.sign(normal(4, 5, seed=8))
WEIGHT = np.array([0.5, 1.0, 2.0, 0.0, 1.5])
LABELS = labels(4)

CASES: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "ce": ("cross_entropy", (normal(4, 5), LABELS), {}),
    "ce weight": ("cross_entropy", (normal(4, 5), LABELS), {"weight": WEIGHT}),
    "ce smooth": ("cross_entropy", (normal(4, 5), LABELS), {"label_smoothing": 0.1}),
    "ce smooth weight": (
        "cross_entropy", (normal(4, 5), LABELS), {"label_smoothing": 0.1, "weight": WEIGHT},
    ),
    "ce ignore": ("cross_entropy", (normal(4, 5), np.array([1, -100, 3, 1])), {}),
    "ce ignore one": ("cross_entropy", (normal(4, 5), LABELS), {"ignore_index": int(LABELS[0])}),
    "ce ignore smooth weight": (
        "cross_entropy", (normal(4, 5), LABELS),
        {"ignore_index": int(LABELS[0]), "label_smoothing": 0.2, "weight": WEIGHT + 1},
    ),
    "ce image": ("cross_entropy", (normal(2, 5, 3, 2), labels(2, 3, 2)), {"weight": WEIGHT + 1}),
    "ce one": ("cross_entropy", (normal(5), np.array(2)), {}),
    "ce soft": ("cross_entropy", (normal(4, 5), simplex(4, 5)), {}),
    "ce soft weight smooth": (
        "cross_entropy", (normal(4, 5), simplex(4, 5)), {"weight": WEIGHT, "label_smoothing": 0.3},
    ),
    "ce soft image": ("cross_entropy", (normal(2, 5, 3), simplex(2, 5, 3)), {}),
    "ce soft one": ("cross_entropy", (normal(5), simplex(1, 5)[0]), {"label_smoothing": 0.1}),
    "nll": ("nll_loss", (normal(4, 5), LABELS), {}),
    "nll weight": ("nll_loss", (normal(4, 5), LABELS), {"weight": WEIGHT}),
    "nll ignore": ("nll_loss", (normal(2, 5, 3), labels(2, 3)), {"ignore_index": 1}),
    "mse": ("mse_loss", (normal(4, 5), normal(4, 5, seed=1)), {}),
    "l1": ("l1_loss", (normal(4, 5), normal(4, 5, seed=1)), {}),
    "huber": ("huber_loss", (normal(4, 5), normal(4, 5, seed=1)), {"delta": 0.7}),
    "smooth": ("smooth_l1_loss", (normal(4, 5), normal(4, 5, seed=1)), {"beta": 0.6}),
    "smooth 0": ("smooth_l1_loss", (normal(4, 5), normal(4, 5, seed=1)), {"beta": 0.0}),
    "bce": ("binary_cross_entropy", (chances(4, 5), chances(4, 5, seed=1)), {}),
    "bce weight": (
        "binary_cross_entropy", (chances(4, 5), chances(4, 5, seed=1)), {"weight": WEIGHT},
    ),
    "bce logits": ("binary_cross_entropy_with_logits", (normal(4, 5), chances(4, 5)), {}),
    "bce logits weight": (
        "binary_cross_entropy_with_logits", (normal(4, 5) * 9, chances(4, 5)),
        {"weight": WEIGHT, "pos_weight": WEIGHT + 0.5},
    ),
    "kl": ("kl_div", (np.log(simplex(4, 5)), chances(4, 5)), {}),
    "kl log": ("kl_div", (normal(4, 5), np.log(chances(4, 5))), {"log_target": True}),
    "poisson": ("poisson_nll_loss", (normal(4, 5), chances(4, 5) * 3), {}),
    "poisson full": (
        "poisson_nll_loss", (chances(4, 5), chances(4, 5, seed=1) * 3),
        {"log_input": False, "full": True},
    ),
    "gaussian": (
        "gaussian_nll_loss", (normal(4, 5), normal(4, 5, seed=1), chances(4, 5)), {},
    ),
    "gaussian full": (
        "gaussian_nll_loss", (normal(4, 5), normal(4, 5, seed=1), chances(4)),
        {"full": True, "eps": 0.5},
    ),
    "soft margin": ("soft_margin_loss", (normal(4, 5),), {"target": SIGNS}),
    "multilabel": ("multilabel_soft_margin_loss", (normal(4, 5), chances(4, 5)), {}),
    "multilabel weight": (
        "multilabel_soft_margin_loss", (normal(4, 5), chances(4, 5)), {"weight": WEIGHT},
    ),
    "hinge embedding": ("hinge_embedding_loss", (normal(4, 5), SIGNS), {"margin": 0.7}),
    "multi margin": ("multi_margin_loss", (normal(4, 5), LABELS), {}),
    "multi margin 2": (
        "multi_margin_loss", (normal(4, 5), LABELS), {"p": 2, "margin": 0.5, "weight": WEIGHT},
    ),
    "multi margin one": ("multi_margin_loss", (normal(5), np.array(3)), {}),
    "ranking": ("margin_ranking_loss", (normal(5), normal(5, seed=1), SIGNS[0]), {"margin": 0.2}),
    "cosine": ("cosine_embedding_loss", (normal(4, 3), normal(4, 3, seed=1), SIGNS[:, 0]),
               {"margin": 0.1}),
    "triplet": ("triplet_margin_loss", tuple(normal(4, 5, seed=k) for k in range(3)), {}),
    "triplet swap": (
        "triplet_margin_loss", tuple(normal(4, 5, seed=k) for k in range(3)),
        {"swap": True, "margin": 2.0, "p": 1.0},
    ),
}  # fmt: skip


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:reduction")
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", CASES)
def test_losses(against: Any, name: str, reduction: str) -> None:
    call, inputs, kwargs = CASES[name]
    against.function(lambda f: against.frozen(f, call, kwargs, reduction), *inputs)


@pytest.mark.oracle
def test_kl_over_the_batch(against: Any) -> None:
    inputs = np.log(simplex(4, 5)), chances(4, 5)
    against.function(lambda f: against.frozen(f, "kl_div", {}, "batchmean"), *inputs)


@pytest.mark.oracle
def test_similarities(against: Any) -> None:
    a, b = normal(4, 5), normal(4, 5, seed=1)
    against.function(lambda f: f.cosine_similarity, a, b, dim=-1)
    against.function(lambda f: f.pairwise_distance, a, b, p=3.0)
    against.layer(lambda n: n.CosineSimilarity(dim=0), a, b)
    against.layer(lambda n: n.PairwiseDistance(keepdim=True), a, b)


MODULES = [
    lambda n: n.MSELoss(), lambda n: n.L1Loss(reduction="sum"), lambda n: n.HuberLoss(delta=0.5),
    lambda n: n.SmoothL1Loss(beta=0.5), lambda n: n.L1Loss(),
    lambda n: n.BCEWithLogitsLoss(), lambda n: n.KLDivLoss(reduction="batchmean", log_target=True),
    lambda n: n.PoissonNLLLoss(log_input=True), lambda n: n.HingeEmbeddingLoss(margin=2.0),
]  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize("k", range(len(MODULES)))
def test_modules(against: Any, k: int) -> None:
    against.layer(MODULES[k], normal(4, 5), normal(4, 5, seed=1))


@pytest.mark.oracle
def test_modules_of_labels(against: Any) -> None:
    against.layer(lambda n: n.CrossEntropyLoss(label_smoothing=0.1), normal(4, 5), LABELS)
    against.layer(lambda n: n.NLLLoss(ignore_index=1), normal(4, 5), LABELS)
    against.layer(lambda n: n.MultiMarginLoss(p=2), normal(4, 5), LABELS)
    against.layer(lambda n: n.BCELoss(), chances(4, 5), chances(4, 5, seed=1))
    three = [normal(4, 5, seed=k) for k in range(3)]
    against.layer(lambda n: n.TripletMarginLoss(swap=True), *three)
    against.layer(lambda n: n.GaussianNLLLoss(), *three[:2], chances(4, 5))
    against.layer(lambda n: n.CosineEmbeddingLoss(0.1), *three[:2], SIGNS[:, 0])
    against.layer(lambda n: n.MarginRankingLoss(0.1), three[0][0], three[1][0], SIGNS[0])


def test_class_weights_are_state() -> None:
    loss = nn.CrossEntropyLoss(weight=WEIGHT)
    assert list(loss.state_dict()) == ["weight"]
    x = normal(4, 5)
    want = nn.cross_entropy(x, LABELS, weight=WEIGHT)
    assert loss(nn.tensor(x), nn.tensor(LABELS)).item() == want.item()


def test_soft_margin_as_a_module() -> None:
    x, signs = normal(4, 5), SIGNS
    loss = nn.SoftMarginLoss(reduction="sum")(nn.tensor(x), nn.tensor(signs))
    np.testing.assert_allclose(loss.item(), np.log1p(np.exp(-x * signs)).sum(), rtol=1e-12)


def test_hinge() -> None:
    loss = nn.HingeLoss(reduction="none")(nn.tensor([0.5, 2.0, -1.0]), nn.tensor([1.0, 1.0, 1.0]))
    assert loss.tolist() == [0.5, 0.0, 2.0]


def test_bce_at_its_ends_is_finite() -> None:
    p = nn.tensor([0.0, 1.0, 1.0], requires_grad=True)
    loss = nn.binary_cross_entropy(p, nn.tensor([1.0, 0.0, 1.0]), reduction="none")
    assert loss.tolist() == [100.0, 100.0, 0.0]
    loss.sum().backward()
    np.testing.assert_allclose(p.grad.numpy()[:2], [-1e12, 1e12], rtol=1e-6)
    assert np.isfinite(p.grad.numpy()[2])


# ------------------------------------------------------------ errors


@pytest.mark.parametrize("target,said", [
    (np.array([0, 1, 5, 2]), "label 5 is out of range"),
    (np.array([0, 1, -1, 2]), "label -1 is out of range"),
])  # fmt: skip
@pytest.mark.parametrize("loss", [nn.cross_entropy, nn.nll_loss, nn.multi_margin_loss])
def test_labels_out_of_range(loss: Any, target: Any, said: str) -> None:
    with pytest.raises(Error, match=said) as raised:
        loss(normal(4, 5), target)
    assert raised.value.code == "E0643" and "at [2]" in str(raised.value)


@pytest.mark.parametrize("call,said", [
    (lambda: nn.mse_loss(normal(4, 1), normal(4)), "differ in shape"),
    (lambda: nn.mse_loss(normal(4, 1), normal(4, 2)), "differ in shape"),
    (lambda: nn.cross_entropy(normal(4, 5), labels(3)), "do not fit"),
    (lambda: nn.cross_entropy(normal(4, 5), labels(4, 1)), "do not fit"),
    (lambda: nn.nll_loss(normal(4, 5), normal(4)), "labels are integers"),
    (lambda: nn.cross_entropy(normal(4, 5), labels(4), weight=np.ones(4)), "one weight per class"),
])  # fmt: skip
def test_shapes_that_do_not_fit(call: Any, said: str) -> None:
    with pytest.raises(Error, match=said) as raised:
        call()
    assert raised.value.code == "E0644"


@pytest.mark.parametrize("call", [
    lambda: nn.mse_loss(normal(2), normal(2), reduction="average"),
    lambda: nn.cross_entropy(normal(2, 3), labels(2, classes=3), reduction="average"),
    lambda: nn.cross_entropy(normal(2, 3), labels(2, classes=3), label_smoothing=2.0),
    lambda: nn.huber_loss(normal(2), normal(2), delta=0.0),
    lambda: nn.MSELoss(weight=1.0),
])  # fmt: skip
def test_wrong_arguments(call: Any) -> None:
    with pytest.raises(Error) as raised:
        call()
    assert raised.value.code == "E0641"


# ------------------------------------------------------------ connectionist temporal classification


def steps(*shape: int) -> Any:
    x = normal(*shape, seed=11)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


CTC_LABELS = np.array([[1, 2, 2, 0], [3, 1, 4, 2], [2, 0, 0, 0]])
CTC_COUNTS, CTC_STEPS = np.array([3, 4, 1]), np.array([7, 8, 5])


@pytest.mark.oracle
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_ctc(against: Any, reduction: str) -> None:
    given = {"targets": CTC_LABELS, "input_lengths": CTC_STEPS, "target_lengths": CTC_COUNTS}
    against.function(lambda f: against.logits(f, given, reduction), normal(8, 3, 5))


@pytest.mark.oracle
def test_ctc_with_labels_in_a_row_and_another_blank(against: Any) -> None:
    row = np.concatenate([r[:n] for r, n in zip(CTC_LABELS, CTC_COUNTS)])
    given = {"targets": row, "input_lengths": CTC_STEPS, "target_lengths": CTC_COUNTS}
    against.function(lambda f: against.logits(f, given, "mean", blank=0), normal(8, 3, 5))
    given["targets"] = np.where(CTC_LABELS == 4, 0, CTC_LABELS)
    against.function(lambda f: against.logits(f, given, "mean", blank=4), normal(8, 3, 6))


@pytest.mark.oracle
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_ctc_of_one_sequence(against: Any, reduction: str) -> None:
    given = {"targets": CTC_LABELS[0, :3], "input_lengths": np.array(7),
             "target_lengths": np.array(3)}  # fmt: skip
    against.function(lambda f: against.logits(f, given, reduction), normal(7, 5))


def test_ctc_refuses_labels_out_of_range() -> None:
    with pytest.raises(Error, match="label 7 is out of range"):
        nn.ctc_loss(steps(8, 1, 5), np.array([[1, 7]]), np.array([8]), np.array([2]))
    ours = nn.CTCLoss(reduction="none")(steps(8, 1, 5), np.array([[1, 7]]), np.array([8]), [1])
    assert np.isfinite(ours.numpy()).all()

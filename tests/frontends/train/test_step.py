"""The train step: what it changes and refuses, and that its options do not change the result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irc import nn, optim
from irc.frontends.train.step import TrainStep
from irc.frontends.train.trainer import Trainer
from irc.ir.errors import Error

RNG = np.random.default_rng(0)
X = RNG.standard_normal((24, 6))
Y = RNG.integers(0, 4, 24)


def network(dtype: str = "f64", **options: Any) -> nn.Module:
    nn.manual_seed(3)
    layers = [nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4)]
    return nn.Sequential(*layers).to(dtype)


def trained(steps: int = 3, dtype: str = "f64", net: Any = None, **options: Any) -> TrainStep:
    options = {"optimizer": optim.Adam(1e-2), "target": "reference"} | options
    step = TrainStep(net or network(dtype), loss="cross_entropy", **options)
    for _ in range(steps):
        step((X, Y))
    return step


def parameters(step: TrainStep) -> np.ndarray:
    return np.concatenate([p.numpy().reshape(-1) for p in step.net.parameters()])


def test_compiled_equals_the_reference() -> None:
    compiled, reference = trained(target="cpu", threads=1), trained()
    np.testing.assert_allclose(parameters(compiled), parameters(reference), rtol=1e-12)
    assert compiled.count == reference.count == 3


def test_parameters_are_changed_in_place() -> None:
    step = trained(1, target="cpu", threads=1)
    weight = next(iter(step.net.parameters()))
    before, array = weight.numpy().copy(), weight.array
    step((X, Y))
    assert weight.array is array and (weight.numpy() != before).any()
    assert not next(iter(step._steps.values()))[1].program.copies


def test_values_given_to_the_module_are_taken() -> None:
    step = trained(2)
    weight = next(iter(step.net.parameters()))
    weight.assign(np.zeros(weight.shape))
    step((X, Y))
    moved = np.abs(weight.numpy())
    assert 0 < moved.max() < 0.05 and step.arrays()["params/0.weight"] is weight.array


@pytest.mark.parametrize("dtype, bound", [("f64", 1e-10), ("f32", 1e-5)])
@pytest.mark.parametrize("count", [2, 3, 8])
def test_micro_batches_equal_the_large_batch(dtype: str, bound: float, count: int) -> None:
    whole = trained(5, dtype, metrics=["accuracy", "auc"][:1])
    parts = trained(5, dtype, accumulate=count, metrics=["accuracy"])
    np.testing.assert_allclose(parameters(parts), parameters(whole), rtol=0, atol=bound)
    one, two = whole((X, Y)), parts((X, Y))
    assert one.partials[0]["count"] == two.partials[0]["count"] == 24
    np.testing.assert_allclose(one.logs["loss"], two.logs["loss"], atol=bound)


def test_micro_batches_compiled() -> None:
    parts = trained(3, accumulate=4, target="cpu", threads=1)
    np.testing.assert_allclose(parameters(parts), parameters(trained(3)), rtol=1e-9)


def test_a_batch_that_does_not_split_is_refused() -> None:
    with pytest.raises(Error, match="does not split into 5 micro-batches"):
        trained(1, accumulate=5)


def test_a_step_without_a_number_changes_nothing() -> None:
    step = trained(2, target="cpu", threads=1)
    before = {n: a.copy() for n, a in step.arrays().items()}
    bad = X.copy()
    bad[3, 2] = np.nan
    assert np.isnan(step((bad, Y)).logs["loss"])
    for name, array in step.arrays().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


@pytest.mark.parametrize("scale", [1024.0, "dynamic"])
def test_a_scaled_loss_gives_the_same_parameters(scale: Any) -> None:
    scaled = trained(3, loss_scale=scale)
    np.testing.assert_allclose(parameters(scaled), parameters(trained(3)), rtol=1e-12)


def test_a_dynamic_scale_halves_and_skips() -> None:
    step = trained(0, loss_scale="dynamic")
    bad = X.copy()
    bad[0] = np.inf
    step((bad, Y))
    assert step.arrays()["scale/value"] == 2.0**15 and step.count == 0
    step((X, Y))
    assert step.count == 1 and step.arrays()["scale/good"] == 1


@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_narrow_products_over_wide_weights(precision: str) -> None:
    narrow, wide = trained(3, "f32", precision=precision), trained(3, "f32")
    program = next(iter(narrow._steps.values()))[0]
    text = str(program.forward)
    assert f"{precision}[24, 6]" in text and "f32[16, 6]" in text
    difference = np.abs(parameters(narrow) - parameters(wide)).max()
    assert 0 < difference < 0.05


def test_frozen_parameters_stay() -> None:
    net = network()
    next(iter(net.parameters())).requires_grad_(False)
    before = next(iter(net.parameters())).numpy().copy()
    step = trained(3, net=net)
    np.testing.assert_array_equal(next(iter(net.parameters())).numpy(), before)
    assert "slots/0.weight/mean" not in step.arrays() and "slots/2.weight/mean" in step.arrays()


def test_tied_parameters_are_one() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(6, 6)
            self.b = nn.Linear(6, 4)
            self.c = nn.Linear(6, 6)
            self.c.weight = self.a.weight

        def forward(self, x: Any) -> Any:
            return self.b(self.c(nn.tanh(self.a(x))))

    net = Tied().to("f64")
    step = trained(2, net=net)
    assert [
        n for n in step.parameters if "weight" in n
    ] and "params/c.weight" not in step.parameters
    assert net.c.weight.array is net.a.weight.array


def test_batch_norm_and_dropout_draw_and_count() -> None:
    def build() -> nn.Module:
        nn.manual_seed(1)
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))

    steps = [
        TrainStep(build(), loss="cross_entropy", optimizer=optim.SGD(0.1), seed=7, target=target)
        for target in ("reference", "cpu")
    ]
    for _ in range(3):
        for step in steps:
            step((X.astype("f"), Y))
    one, two = [step.arrays() for step in steps]
    np.testing.assert_array_equal(one["rng/counter"], two["rng/counter"])
    assert one["rng/counter"].any() and one["buffers/1.num_batches_tracked"] == 3
    for name in ("buffers/1.running_mean", "buffers/1.running_var"):
        np.testing.assert_allclose(one[name], two[name], rtol=0, atol=1e-6)


def test_a_label_out_of_range_names_the_line() -> None:
    labels = Y.copy()
    labels[5] = 4
    step = TrainStep(network("f32"), loss="cross_entropy", target="cpu", threads=1)
    with pytest.raises(Error) as caught:
        step((X, labels))
    assert "cross_entropy" in str(caught.value) and "4" in str(caught.value)


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: TrainStep(network(), loss="crossentropy"), "did you mean 'cross_entropy'"),
        (lambda: TrainStep(network(), loss="mse", optimizer="adm"), "did you mean 'ada"),
        (lambda: TrainStep(network(), loss="mse", metrics=["acuracy"]), "did you mean 'accuracy'"),
        (lambda: TrainStep(network(), loss="mse", precision="f8"), "unknown precision 'f8'"),
        (lambda: TrainStep(network()), "either a loss or an objective"),
        (lambda: TrainStep(network(), loss=lambda o, t: o)((X, Y)), "the loss is no scalar"),
        (lambda: TrainStep(network(), loss="cross_entropy")((X, Y[:7])), "one row per sample"),
        (lambda: TrainStep(network(), loss=nn.CrossEntropyLoss), "nn.CrossEntropyLoss(), an obj"),
        (lambda: TrainStep(network(), loss="mse", optimizer=optim.Adam), "optim.Adam(1e-3), an ob"),
        (lambda: TrainStep(network(), loss="cross_entropy")((X, Y * 1.0)), "labels are integers"),
        (lambda: TrainStep(network(), loss="mse")(([[1.0], [1.0, 2.0]], Y)), "different lengths"),
        (lambda: TrainStep(nn.ReLU(), loss="mse"), "ReLU has no parameters"),
        (lambda: TrainStep(network(), loss="mse", accumulate=0), "accumulate is a number from 1"),
        (lambda: optim.Adam(1e-3).attach(network().parameters()), "attached to a module"),
    ],
)  # fmt: skip
def test_mistakes_are_named(make: Any, said: str) -> None:
    with pytest.raises(Error) as caught:
        make()
    assert said in str(caught.value)


def test_an_objective_of_ones_own() -> None:
    def objective(net: Any, x: Any) -> Any:
        return nn.mean((net(x) - x[:, :4]) ** 2)

    step = TrainStep(network(), objective=objective, optimizer=optim.SGD(0.1), target="reference")
    losses = [float(step((X,)).logs["loss"]) for _ in range(20)]
    assert losses[-1] < losses[0]


def test_state_of_another_network_is_refused_and_nothing_changes() -> None:
    step = trained(1)
    before = parameters(step).copy()
    other = dict(step.arrays()) | {"params/0.weight": np.zeros((3, 3))}
    with pytest.raises(Error, match=r"params/0.weight: expected f64\[16, 6\], found f64\[3, 3\]"):
        step.restore(other)
    np.testing.assert_array_equal(parameters(step), before)


def test_a_loss_that_is_a_module_with_buffers_trains_alike() -> None:
    weight = np.array([1.0, 2.0, 0.5, 1.0])
    loss = nn.CrossEntropyLoss(weight=weight)
    one = TrainStep(network(), loss=loss, target="reference")
    two = TrainStep(
        network(), loss=lambda o, y: nn.cross_entropy(o, y, weight=weight), target="reference"
    )
    first = one((X, Y)).logs["loss"]
    assert first == two((X, Y)).logs["loss"] and one((X, Y)).logs["loss"] < first
    two((X, Y))
    np.testing.assert_array_equal(parameters(one), parameters(two))
    again = TrainStep(network(), loss=loss, target="reference")
    again.restore(one.arrays())  # the loss's buffers are no part of the state


def test_other_networks_in_an_objective_are_read_as_they_are() -> None:
    net, other = network(), network()
    norm = nn.BatchNorm1d(4).to("f64")

    def objective(net: Any, x: Any) -> Any:
        return nn.mean((norm(net(x)) - other(x)) ** 2)

    step = TrainStep(net, objective=objective, target="cpu", threads=1)
    before, weight = parameters(step), net[0].weight.numpy().copy()
    theirs = other[0].weight.numpy().copy()
    first = float(step((X,)).logs["loss"])
    assert (parameters(step) != before).any() and (net[0].weight.numpy() != weight).any()
    assert (other[0].weight.numpy() == theirs).all() and (norm.running_mean.numpy() != 0).any()
    for p in other.parameters():
        p.assign(p.numpy() * 0.0)
    now = float(nn.mean(nn.batch_norm(net(X), None, None, training=True) ** 2))
    assert float(step((X,)).logs["loss"]) == pytest.approx(now) != first


def test_a_network_changed_behind_the_step_is_refused() -> None:
    step = trained(1)
    step.net[0].requires_grad_(False)
    with pytest.raises(Error, match="'0.weight' is frozen now"):
        step((X, Y))
    step.net[0].requires_grad_(True)
    step((X, Y))
    step.net[2] = nn.Linear(16, 7, dtype="f64")
    with pytest.raises(Error, match="'2.weight' is another"):
        step((X, Y))


class Foreign:
    """An array of another library."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape = array, array.shape

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.array


@pytest.mark.parametrize("batch", [[X.tolist(), Y.tolist()], [Foreign(X), Foreign(Y)]])
def test_lists_and_arrays_of_other_libraries_are_arrays(batch: Any) -> None:
    step = TrainStep(network(), loss="cross_entropy", target="reference")
    assert step(batch).logs["loss"] == trained(0)((X, Y)).logs["loss"]
    np.testing.assert_array_equal(step.predict(batch[0]), step.predict(X))
    trainer = Trainer(network(), loss="cross_entropy", target="reference")
    np.testing.assert_array_equal(trainer.predict(batch[0]), trainer.predict(X))
    assert trainer.net(Foreign(X)).shape == (24, 4)


def test_metrics_of_probabilities_take_the_likeliest_class() -> None:
    one = TrainStep(network(), loss="cross_entropy", metrics=["accuracy"], target="reference")
    two = TrainStep(network(), loss="cross_entropy", metrics=["accuracy"], target="reference")
    assert one((X, np.eye(4)[Y])).partials == two((X, Y)).partials


def test_it_says_what_it_is() -> None:
    assert repr(trained(1)) == "<TrainStep of Sequential, cross_entropy, Adam, step 1>"

"""What is normalised has the mean, the deviation or the norm that its op promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irc.ir.dims import sym

RNG = np.random.default_rng(0)
X = RNG.uniform(-1, 3, (2, 6, 4, 5))


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_groups(apply: Any, groups: int) -> None:
    scale, bias = RNG.uniform(0.5, 2, 6), RNG.uniform(-1, 1, 6)
    plain = apply("group_norm", X, groups=groups, epsilon=0.0)
    for n in range(2):
        for part in np.split(plain[n], groups):
            np.testing.assert_allclose([part.mean(), part.var()], [0, 1], atol=1e-12)
    assert np.corrcoef(plain[0, 0].ravel(), X[0, 0].ravel())[0, 1] > 1 - 1e-12
    scaled = apply("group_norm", X, scale, bias, groups=groups, epsilon=0.0)
    want = plain * scale[:, None, None] + bias[:, None, None]
    np.testing.assert_allclose(scaled, want, atol=1e-12)


def test_epsilon_adds_to_the_variance(apply: Any) -> None:
    x = np.array([[[1.0, 3.0]]])
    found = apply("group_norm", x, groups=1, epsilon=3.0)
    np.testing.assert_allclose(found, [[[-0.5, 0.5]]])
    found = apply("rms_norm", x, epsilon=4.0)
    np.testing.assert_allclose(found, x / 3)
    found = apply("mean_variance_norm", x, axes=(2,), epsilon=1.0)
    np.testing.assert_allclose(found, [[[-0.5, 0.5]]])


@pytest.mark.parametrize("axis", [1, 3])
def test_root_mean_square(apply: Any, axis: int) -> None:
    found = apply("rms_norm", X, axis=axis, epsilon=0.0)
    mean = np.mean(found * found, axis=tuple(range(axis, 4)))
    np.testing.assert_allclose(mean, np.ones_like(mean))
    np.testing.assert_array_equal(np.sign(found), np.sign(X))


@pytest.mark.parametrize("p", [1, 2])
def test_p_norm(apply: Any, p: int) -> None:
    x = X.copy()
    x[0, :, 0, 0] = 0
    found = apply("lp_norm", x, axis=1, p=p)
    norms = np.linalg.norm(found, p, axis=1)
    np.testing.assert_allclose(norms[0, 0, 0], 0)
    np.testing.assert_allclose(norms[1], np.ones((4, 5)))


def test_mean_and_deviation(apply: Any) -> None:
    found = apply("mean_variance_norm", X, axes=(0, 2, 3))
    np.testing.assert_allclose(found.mean((0, 2, 3)), np.zeros(6), atol=1e-9)
    np.testing.assert_allclose(found.std((0, 2, 3)), np.ones(6), rtol=1e-8)


def test_symbolic_channels(apply: Any) -> None:
    types = ["f64[N, C, H, W]", "f64[C]"]
    found = apply("group_norm", X, np.ones(6), types=types, groups=sym("C"))
    np.testing.assert_allclose(found, apply("group_norm", X, groups=6))

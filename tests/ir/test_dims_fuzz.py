"""Random dims against their values: no rule, bound or proof may contradict a sampled valuation.

Seeds are fixed; `IRC_FUZZ=n` multiplies the number of expressions.
"""

from __future__ import annotations

import itertools
import os
import pickle
import random

import pytest

from irc.ir import dims
from irc.ir.dims import Dim, DimLike, evaluate, max_, min_, substitute, sym

SCALE = int(os.environ.get("IRC_FUZZ", "1"))
N, M, P = sym("N"), sym("M"), sym("P")
RANGES: dict[str, dims.Range] = {
    "P": (1, None),
    "i": (0, N - 1),
    "j": (0, 15),
    "k": (-5, 7),
    "io": (0, dims.ceildiv(N, 16) - 1),
    "ii": (0, min_(16, N - 16 * sym("io")) - 1),
    "t": (M, M + N),
    "z": (3, 3),
}
NAMES = ("N", "M", "P", *RANGES.keys() - {"P"})
ORDER = ("N", "M", "P", "i", "j", "k", "io", "ii", "t", "z")
INNER = {n: RANGES[n] for n in ("j", "k")}


def expression(rng: random.Random, depth: int, names: tuple[str, ...] = ORDER) -> DimLike:
    """A random expression; divisors are positive for every valuation of `sample`."""
    if depth == 0 or rng.random() < 0.1:
        return sym(rng.choice(names)) if rng.random() < 0.8 else rng.randint(-20, 20)
    one = expression(rng, depth - 1, names)
    kind = rng.choice("+ + - *k *k * // // % % min max //d %d".split())
    if kind == "*k":
        return one * rng.choice((-16, -4, -3, -1, 2, 3, 4, 5, 8, 16, 32))
    divisor: DimLike = rng.choice((1, 2, 3, 4, 5, 8, 12, 16, 32, 64))
    if kind in ("//d", "%d"):
        divisor = rng.choice((P, 2 * P, M + 1, P * (M + 1), max_(1, N), 16 * P))
    if kind[0] == "/":
        return dims.floordiv(one, divisor)
    if kind[0] == "%":
        return dims.mod(one, divisor)
    two = expression(rng, depth - 1, names)
    table = {"+": lambda: one + two, "-": lambda: one - two, "*": lambda: one * two}
    return table.get(kind, lambda: min_(one, two) if kind == "min" else max_(one, two))()


def tree(rng: random.Random, depth: int) -> tuple[DimLike, str]:
    """An expression and the same in plain Python text, to be evaluated without any of our rules."""
    if depth == 0 or rng.random() < 0.1:
        if rng.random() < 0.3:
            value = rng.randint(-20, 20)
            return value, f"({value})"
        name = rng.choice(ORDER)
        return sym(name), name
    (a, s), (b, t) = tree(rng, depth - 1), tree(rng, depth - 1)
    kind = rng.choice(("+", "-", "*", "//", "%", "min", "max"))
    if kind in ("//", "%"):
        b, t = rng.choice(((rng.choice((2, 3, 4, 6, 8, 16)),) * 2, (P, "P"), (M + 1, "(M+1)"),
                           (4 * P, "(4*P)"), (P * M + P, "(P*M+P)")))  # fmt: skip
        return (dims.floordiv(a, b) if kind == "//" else dims.mod(a, b)), f"({s}{kind}{t})"
    if kind in ("min", "max"):
        return (min_ if kind == "min" else max_)(a, b), f"{kind}({s},{t})"
    return {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b}[kind](), f"({s}{kind}{t})"


def sample(rng: random.Random) -> dict[str, int]:
    """A valuation inside RANGES (drawn again where a range is empty)."""
    while True:
        env = {"N": rng.choice((0, 1, 2, 15, 16, 17, 31, 64, rng.randint(0, 200))),
               "M": rng.choice((0, 1, 7, 8, rng.randint(0, 60))),
               "P": rng.choice((1, 2, 3, 16, rng.randint(1, 30)))}  # fmt: skip
        for name in ORDER[3:]:
            low, high = (evaluate(b, env) for b in RANGES[name])
            if low > high:
                break
            env[name] = rng.choice((low, high, rng.randint(low, high)))
        else:
            return env


@pytest.mark.parametrize("seed", range(4))
def test_construction_keeps_the_value(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(150 * SCALE):
        e, text = tree(rng, rng.randint(1, 4))
        code = compile(text, "dim", "eval")
        for env in [sample(rng) for _ in range(6)]:
            env["k"] = rng.randint(-99, 99)  # the rules hold for all integers
            assert evaluate(e, env) == eval(code, {"min": min, "max": max}, env), (text, env)


@pytest.mark.parametrize("seed", range(4))
def test_text_pickle_and_identity_round_trip(seed: int) -> None:
    rng = random.Random(1000 + seed)
    for _ in range(150 * SCALE):
        e = expression(rng, rng.randint(1, 5))
        assert dims.parse_dim(str(e)) is e or (isinstance(e, int) and dims.parse_dim(str(e)) == e)
        assert pickle.loads(pickle.dumps(e)) == e
        assert dims.equal(e, e) is True
        if isinstance(e, Dim):
            assert e - 7 + 7 is e and 0 - (-e) is e and (e + N) - N is e


@pytest.mark.parametrize("seed", range(4))
def test_substitute_then_evaluate(seed: int) -> None:
    rng = random.Random(2000 + seed)
    for _ in range(120 * SCALE):
        e = expression(rng, rng.randint(1, 4))
        names = rng.sample(("i", "j", "k", "t", "z"), 3)
        env = {n: expression(rng, 2) for n in names}
        for values in [sample(rng) for _ in range(5)]:
            composed = {**values, **{n: evaluate(v, values) for n, v in env.items()}}
            assert evaluate(substitute(e, env), values) == evaluate(e, composed)


@pytest.mark.parametrize("seed", range(6))
def test_answers_are_never_contradicted(seed: int) -> None:
    rng = random.Random(3000 + seed)
    decided = 0
    for _ in range(60 * SCALE):
        e, other = expression(rng, rng.randint(1, 4)), expression(rng, 2)
        low, high = dims.bounds(e, RANGES)
        simple = dims.simplify(e, RANGES)
        sign, same = dims.nonneg(e, RANGES), dims.equal(e, other, RANGES)
        decided += sign is not None
        for env in [sample(rng) for _ in range(40)]:
            value, context = evaluate(e, env), (str(e), str(simple), env)
            assert evaluate(simple, env) == value, context
            assert low is None or low <= value, (low, context)
            assert high is None or value <= high, (high, context)
            assert sign is None or sign == (value >= 0), context
            assert same is None or same == (value == evaluate(other, env)), (str(other), context)
    assert decided > 5 * SCALE


@pytest.mark.parametrize("seed", range(6))
def test_simplified_differences_are_proved_equal_or_unknown(seed: int) -> None:
    rng = random.Random(4000 + seed)
    for _ in range(40 * SCALE):
        e = expression(rng, 3)
        assert dims.equal(e, dims.simplify(e, RANGES), RANGES) is not False
        assert dims.equal(e, e + 1, RANGES) is False


@pytest.mark.parametrize("seed", range(6))
def test_extremes_are_attained(seed: int) -> None:
    rng = random.Random(5000 + seed)
    grid = list(itertools.product(range(16), range(-5, 8)))
    said = 0
    for _ in range(40 * SCALE):
        e = expression(rng, rng.randint(1, 3), ("N", "M", "j", "k", "j", "k"))
        low, high = dims.extremes(e, INNER)
        for side, pick in ((low, min), (high, max)):
            if side is None:
                continue
            said += 1
            assert dims.symbols_of(side).isdisjoint(INNER)
            for env in [sample(rng) for _ in range(2)]:
                inside = [evaluate(e, {**env, "j": j, "k": k}) for j, k in grid]
                assert evaluate(side, env) == pick(inside), (str(e), str(side), env)
    assert said > 20 * SCALE


@pytest.mark.parametrize("seed", range(6))
def test_symbolic_extremes_bound_every_point(seed: int) -> None:
    rng = random.Random(6000 + seed)
    inner = {n: RANGES[n] for n in ("ii", "io", "i")}
    for _ in range(40 * SCALE):
        e = expression(rng, rng.randint(1, 3), ("N", "M", "io", "ii", "i", "j"))
        low, high = dims.extremes(e, inner)
        for env in [sample(rng) for _ in range(20)]:
            value = evaluate(e, env)
            assert low is None or evaluate(low, env) <= value, (str(e), str(low), env)
            assert high is None or value <= evaluate(high, env), (str(e), str(high), env)

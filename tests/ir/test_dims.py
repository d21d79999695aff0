"""Each rule of the dim language once, and the facts that the compiler asks of its prover."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import threading

import pytest

from irc.ir import dims
from irc.ir.dims import (
    Dim,
    bounds,
    ceildiv,
    coefficient,
    equal,
    evaluate,
    extremes,
    fresh,
    linear,
    max_,
    min_,
    nonneg,
    parse_dim,
    simplify,
    substitute,
    sym,
    symbols_of,
)
from irc.ir.errors import Error

N, M, H, K = sym("N"), sym("M"), sym("H"), sym("K")
i, j, k, io, ii = sym("i"), sym("j"), sym("k"), sym("io"), sym("ii")

# Construction and text -------------------------------------------------------------------------

CANONICAL = [
    (lambda: 16 * i + j, "16*i + j"),
    (lambda: j + i * 16, "16*i + j"),
    (lambda: N - 16 * io, "N - 16*io"),
    (lambda: 3 - i, "3 - i"),
    (lambda: -i - 3, "-i - 3"),
    (lambda: (i + 1) * (N - 2), "N + N*i - 2*i - 2"),
    (lambda: (N + 15) // 16, "(N + 15) // 16"),
    (lambda: ceildiv(N, 16), "(N + 15) // 16"),
    (lambda: (16 * i + j) // 16, "i + j // 16"),
    (lambda: (16 * i + j) % 16, "j % 16"),
    (lambda: (i // 3) // 5, "i // 15"),
    (lambda: (i // 4 + j) // 3, "(i + 4*j) // 12"),
    (lambda: (4 * i) // 8, "i // 2"),
    (lambda: (4 * i + 3) // 8, "i // 2"),
    (lambda: (4 * i) % 8, "4*(i % 2)"),
    (lambda: (4 * i + 3) % 8, "4*(i % 2) + 3"),
    (lambda: (N + 37) % 16, "(N + 5) % 16"),
    (lambda: (N - 16) // 16, "N // 16 - 1"),
    (lambda: (i % 16) % 4, "i % 4"),
    (lambda: (5 * (i % 16) + j) % 8, "(5*i + j) % 8"),
    (lambda: (i % 16) // 4, "(i // 4) % 4"),
    (lambda: (i % 24) // 16, "(i % 24) // 16"),
    (lambda: N - i // 2, "N - i // 2"),
    (lambda: -(i // 2), "-(i // 2)"),
    (lambda: (N - i) // 4 % 3, "((N - i) // 4) % 3"),
    (lambda: (N * i + j) // N, "i + j // N"),
    (lambda: (N * i + j) % N, "j % N"),
    (lambda: (N * M * i + M * j) // (N * M), "i + j // N"),
    (lambda: (N * i + i + j) // (N + 1), "i + j // (N + 1)"),
    (lambda: (5 * i) % (5 * N), "5*(i % N)"),
    (lambda: (i // N) // M, "i // (M*N)"),
    (lambda: (i % N) % N, "i % N"),
    (lambda: min_(16, N - 16 * io), "min(16, N - 16*io)"),
    (lambda: min_(15, N - 16 * io - 1), "min(16, N - 16*io) - 1"),
    (lambda: max_(0, i - 3), "max(0, i - 3)"),
    (lambda: min_(N, min_(M, N + 2), 7, 9), "min(7, M, N)"),
    (lambda: max_(N, -min_(-i, -j)), "max(N, i, j)"),
    (lambda: min_(4 * N, 8) // 4, "min(2, N)"),
    (lambda: (i // 2) * (j % 3) * 4, "4*(i // 2)*(j % 3)"),
]


@pytest.mark.parametrize("build, text", CANONICAL, ids=[t for _, t in CANONICAL])
def test_canonical_form(build, text) -> None:
    e = build()
    assert str(e) == text
    assert e is build() is parse_dim(text)


CONSTANT = [
    (lambda: i - i, 0),
    (lambda: i % 1, 0),
    (lambda: 0 * i, 0),
    (lambda: (N * i) % N, 0),
    (lambda: (N + 1) // (N + 1), 1),
    (lambda: 16 * i // 16 - i, 0),
    (lambda: 0 // N, 0),
    (lambda: (i % 4) // 8, 0),
    (lambda: min_(3, 5), 3),
    (lambda: N - min_(N, N + 1), 0),
    (lambda: (i + j) - (j + i) + 2, 2),
    (lambda: parse_dim("7 - 3*2"), 1),
]


@pytest.mark.parametrize("build, value", CONSTANT)
def test_a_constant_is_a_plain_int(build, value) -> None:
    assert type(build()) is int and build() == value


def test_floordiv_by_one_and_min_of_one_are_identity() -> None:
    assert i // 1 is i and min_(i) is i and max_(i, i) is i and +1 * i is i


def test_equality_is_identity_and_never_an_int() -> None:
    assert N + 1 is 1 + N and hash(N + 1) == hash(1 + N)
    assert (N == 3) is False and (N != N) is False and N + 1 != N + 2
    assert {N + 1: "a"}[sym("N") + 1] == "a"


def test_order_comparison_points_to_nonneg() -> None:
    for compare in (lambda: N < 3, lambda: N <= M, lambda: N > M, lambda: 3 >= N):
        with pytest.raises(TypeError, match="nonneg"):
            compare()


def test_other_operands_are_refused() -> None:
    for build in (lambda: N + 1.5, lambda: "a" + N, lambda: N // None, lambda: 2.0 % N):
        with pytest.raises(TypeError):
            build()


def test_numpy_integers_are_integers() -> None:
    np = pytest.importorskip("numpy")
    assert N + np.int64(3) is N + 3 is np.int64(3) + N and 3 - N is np.int32(3) - N
    assert np.int64(8) * N is 8 * N and N // np.int32(2) is N // 2
    assert type(min_(np.int64(3), 5)) is int


def test_constant_divisors_are_positive() -> None:
    for build in (lambda: N // 0, lambda: N % 0, lambda: N // -2, lambda: ceildiv(N, 0)):
        with pytest.raises(Error) as caught:
            build()
        assert caught.value.code == "E0321"
    with pytest.raises(ZeroDivisionError):
        evaluate(M // N, {"M": 3, "N": 0})


def test_names_are_checked() -> None:
    assert str(sym("seq.len_2")) == "seq.len_2"
    for bad in ("", "2x", "a-b", "a b", "é\n"):
        with pytest.raises(Error) as caught:
            sym(bad)
        assert caught.value.code == "E0320"


def test_fresh_symbols_differ_from_all_living_ones() -> None:
    a = fresh("u")
    taken = sym(f"u{int(str(a)[1:]) + 1}")
    assert len({a, taken, fresh("u"), fresh("u"), fresh()}) == 5


BAD_TEXT = ["", "N +", "(N", "N)", "min()", "N M", "2.5", "N ** 2", "N, M", "-"]


@pytest.mark.parametrize("text", BAD_TEXT)
def test_parse_refuses_other_text(text: str) -> None:
    with pytest.raises(Error) as caught:
        parse_dim(text)
    assert caught.value.code == "E0290" and repr(text) in caught.value.message


def test_parse_accepts_free_spelling() -> None:
    assert parse_dim(" (N+15)//16*16 - -1*M ".replace("- -1*M", "+ M")) is (N + 15) // 16 * 16 + M
    assert parse_dim("min - max") is sym("min") - sym("max")


def test_copies_and_pickles_are_the_same_object() -> None:
    e = min_(16, N - 16 * io) * (i % 3)
    assert copy.deepcopy(e) is e and copy.copy(e) is e and pickle.loads(pickle.dumps(e)) is e


def test_dead_dims_are_freed() -> None:
    name = str(fresh("dead"))
    assert len([e for e in gc.get_objects() if isinstance(e, Dim) and name in e.symbols]) == 0
    from_module = sys.modules["irc.ir.dims_expr"]
    gc.collect()  # what earlier tests left must not vanish meanwhile
    before = len(from_module._DIMS)
    kept = [sym("leak") + n for n in range(2, 500)]
    assert len(from_module._DIMS) >= before + 498
    del kept
    assert len(from_module._DIMS) <= before + 2


def test_threads_intern_to_one_object() -> None:
    made: list[list[object]] = [[] for _ in range(4)]
    gate = threading.Barrier(4)

    def build(out: list[object]) -> None:
        gate.wait()
        out += [(sym(f"th{n}") * 3 + n) // 2 for n in range(300)]

    threads = [threading.Thread(target=build, args=(out,)) for out in made]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(e is first for first, *others in zip(*made, strict=True) for e in others)


# Queries ---------------------------------------------------------------------------------------


def test_symbols() -> None:
    assert (16 * i + min_(N, j // M)).symbols == {"i", "N", "j", "M"}
    assert symbols_of(3) == frozenset() and symbols_of(N - M) == {"N", "M"}


def test_substitute() -> None:
    e = 16 * i + j
    assert substitute(e, {"i": j, "j": i}) is 16 * j + i  # all at once
    assert substitute(e, {"N": 3}) is e and substitute(5, {"i": 1}) == 5
    assert substitute(e, {"i": 2, "j": 3}) == 35
    assert substitute(min_(16, N - 16 * io) - 1, {"io": 0, "N": 20}) == 15
    assert substitute((N * i + j) // M, {"M": N}) is i + j // N


def test_evaluate() -> None:
    assert evaluate((i - 7) // 4 * 2 + (i - 7) % 4, {"i": 0}) == -4 + 1
    with pytest.raises(Error) as caught:
        evaluate(N + i, {"N": 1})
    assert caught.value.code == "E0323" and "i" in caught.value.message


def test_linear() -> None:
    assert linear(16 * i + j - 3) == ({"i": 16, "j": 1}, -3)
    assert linear(7) == ({}, 7)
    assert linear(N * i) is None and linear(i // 2) is None


def test_coefficient() -> None:
    assert coefficient(16 * i + N * i + j, "i") == (N + 16, j)
    assert coefficient(i // 2, "j") == (0, i // 2)
    assert coefficient(3, "i") == (0, 3)
    assert coefficient((j // 2) * i, "i") == (j // 2, 0)
    assert coefficient(i * i, "i") is None and coefficient(i + i // 2, "i") is None


# The prover ------------------------------------------------------------------------------------

TAIL = {"io": (0, ceildiv(N, 16) - 1), "ii": (0, min_(16, N - 16 * io) - 1)}
CONV = {"oh": (1, (H - 2) // 2 - 1), "kh": (0, 2)}
OH = sym("oh")
PADDED = {"oh": (0, (H + 2 - 3) // 2), "kh": (max_(0, 1 - 2 * OH), min_(2, H - 2 * OH))}
ROW = 2 * OH + sym("kh") - 1
FLAT = {"f": (0, N * M - 1), "N": (1, None), "M": (1, None)}
f = sym("f")
NESTED = {
    "io": (0, ceildiv(N, 64) - 1),
    "im": (0, ceildiv(min_(64, N - 64 * io), 8) - 1),
    "ii": (0, min_(8, N - 64 * io - 8 * sym("im")) - 1),
}
FACTS = [
    ("a tail index stays inside", N - 1 - 16 * io - ii, TAIL),
    ("a tail tile is not empty", min_(16, N - 16 * io) - 1, TAIL),
    ("a full tile is full", N - 16 * io - 16, {"io": (0, N // 16 - 1)}),
    ("the remainder tile is short", 15 - (N - N // 16 * 16), {}),
    ("the remainder is not negative", N - N // 16 * 16, {}),
    ("rounding up covers", ceildiv(N, 16) * 16 - N, {}),
    ("rounding up adds less than a tile", N + 15 - ceildiv(N, 16) * 16, {}),
    ("a two-level tail stays inside", N - 1 - 64 * io - 8 * sym("im") - ii, NESTED),
    ("a convolution row is inside from below", ROW, CONV),
    ("a convolution row is inside from above", H - 1 - ROW, CONV),
    ("a clipped window is inside from below", ROW, PADDED),
    ("a clipped window is inside from above", H - 1 - ROW, PADDED),
    ("a row of a flat index", N - 1 - f // M, FLAT),
    ("a column of a flat index", M - 1 - f % M, FLAT),
    ("a flat index of rows and columns", N * M - 1 - M * i - j, {"i": (0, N - 1), "j": (0, M - 1)}),
    ("a product of positive extents", N * M - N, {"M": (1, None)}),
    ("a triangular loop", N - 1 - j, {"i": (0, N - 1), "j": (0, i)}),
    ("a triangular packed offset", N * N - 1 - N * i - j, {"i": (0, N - 1), "j": (0, i)}),
    ("a group stays in its channels", K - 1 - 32 * i - j, {"i": (0, K // 32 - 1), "j": (0, 31)}),
    ("a modulo in its period", 15 - i % 16, {}),
    ("a modulo below its argument", i - i % 16, {}),
    ("pooling floor window", H - 1 - 2 * i - j, {"i": (0, (H - 2) // 2), "j": (0, 1)}),
    ("the larger of two", max_(N, M) - M, {}),
    ("the smaller of two", N - min_(N, M), {}),
    ("minimum and maximum in order", max_(N, M) - min_(N, M), {}),
    ("a clamp from above", N - max_(0, min_(i, N)), {}),
    ("a ring buffer slot", 2 - (i + 1) % 3, {"i": (0, None)}),
    ("scaled division", N - 8 * (N // 8) + 8 * (M // 3), {}),
]


@pytest.mark.parametrize("fact, e, ranges", FACTS, ids=[name for name, _, _ in FACTS])
def test_prover_proves(fact: str, e: dims.DimLike, ranges: dict[str, dims.Range]) -> None:
    assert nonneg(e, ranges) is True
    assert nonneg(-1 - e, ranges) is False


NOT_FACTS = [
    (N - 1 - 16 * io - ii, {"io": (0, ceildiv(N, 16) - 1), "ii": (0, 15)}),
    (N - 16 * io - 16, {"io": (0, N // 16)}),
    (N - 1, {}),
    (N * M - N, {}),
    (N - M, {}),
    (M - 1 - f % (M + 1), FLAT),
    (ROW, {**CONV, "oh": (0, (H - 2) // 2 - 1)}),
    (14 - i % 16, {}),
]


@pytest.mark.parametrize("e, ranges", NOT_FACTS)
def test_prover_does_not_prove_what_is_sometimes_false(e, ranges) -> None:
    assert nonneg(e, ranges) is None


def test_extents_are_nonnegative_unless_told() -> None:
    assert nonneg(N) is True and nonneg(-1 - N) is False and nonneg(N, {"N": (None, None)}) is None
    assert nonneg(0) is True and nonneg(-1) is False


def test_bounds() -> None:
    assert bounds(16 * i + j, {"i": (0, 3), "j": (-1, 15)}) == (-1, 63)
    assert bounds(i % 3, {}) == (0, 2)
    assert bounds(N // 4 - 1, {"N": (0, 17)}) == (-1, 3)
    assert bounds(N - 4 * (N // 4), {}) == (0, 3)
    assert bounds(min_(N, 16), {}) == (0, 16)
    assert bounds(i * j, {"i": (-2, 3), "j": (-5, 4)}) == (-15, 12)
    assert bounds(i * min_(j, 3), {"i": (-2, 2), "j": (-4, 9)}) == (-8, 8)
    assert bounds(j * (i // 4) + i, {"i": (0, 3), "j": (None, -1)})[0] in (0, None)
    assert bounds(j, {"j": (0, N - 1), "N": (1, 8)}) == (0, 7)
    assert bounds(N, {}) == (0, None) and bounds(7, {}) == (7, 7)
    assert bounds(i, {"i": (0, j), "j": (0, i)}) == (0, None)  # a circle ends at once


def test_accumulator_width() -> None:
    """K products of i8 by u8: the bound that picks an accumulator type."""
    ranges = {"K": (1, 4608), "x": (0, 255), "w": (-128, 127)}
    assert bounds(K * sym("x") * sym("w"), ranges) == (-4608 * 255 * 128, 4608 * 255 * 127)


def test_extremes() -> None:
    assert extremes(16 * io + ii, {"ii": (0, 15)}) == (16 * io, 16 * io + 15)
    assert extremes(2 * i + k, {"i": (0, N - 1), "k": (0, 2)}) == (0, 2 * N)
    assert extremes(N - i, {"i": (0, N - 1)}) == (1, N)
    assert extremes((i + 3) // 4, {"i": (0, N)}) == (0, (N + 3) // 4)
    assert extremes(N * i + j, {"j": (0, N - 1)}) == (N * i, N * i + N - 1)
    last = min_(16, N - 16 * io) + 16 * io - 1
    assert extremes(16 * io + ii, {"ii": TAIL["ii"]}) == (16 * io, last)
    assert extremes(j, {"i": (0, N), "j": (i, i + 2)}) == (0, N + 2)
    assert extremes(i % 3, {"i": (0, 7)}) == (None, None)
    assert extremes(i, {"i": (2, None)}) == (2, None)
    assert extremes((M - 4) * i, {"i": (0, 3)}) == (None, None)
    assert extremes((M - 4) * i, {"i": (0, 3)}, {"M": (4, None)}) == (0, 3 * M - 12)
    assert extremes(N + 1, {"i": (0, 3)}) == (N + 1, N + 1) and extremes(5, {}) == (5, 5)


def test_equal() -> None:
    assert equal(N + 1, 1 + N) is True and equal(3, 3) is True and equal(3, 4) is False
    assert equal(N, M) is None and equal(N, 3) is None
    assert equal(N, N + 1) is False and equal(N, -1) is False
    assert equal(2 * N, 2 * M + 1) is False  # parity
    assert equal(N % 4 + N // 4 * 4, N) is True
    assert equal(min_(16 * i + 16, N) - 16 * i, min_(16, N - 16 * i)) is True
    assert equal(-max_(-N, -M), min_(N, M)) is True
    assert equal(i, 3, {"i": (3, 3)}) is True and equal(i, 4, {"i": (0, 3)}) is False


SIMPLER = [
    ((16 * i + j) // 16, {"j": (0, 15)}, i),
    ((16 * i + j) % 16, {"j": (0, 15)}, j),
    ((16 * i + j) // 64, {"j": (0, 15)}, i // 4),
    ((16 * i + j) % 64, {"j": (0, 15)}, 16 * (i % 4) + j),
    ((16 * i + j + 16) // 64, {"j": (0, 15)}, (i + 1) // 4),
    ((16 * i + j) % 64, {"j": (16, 31)}, 16 * ((i + 1) % 4) + j - 16),
    (j // 8, {"j": (8, 15)}, 1),
    (j % 8, {"j": (-8, -1)}, j + 8),
    ((M * i + j) // M, {"j": (0, M - 1)}, i),
    ((M * i + j) % M, {"j": (0, M - 1)}, j),
    ((N * M * i + M * j + k) // (N * M), {"j": (0, N - 1), "k": (0, M - 1)}, i),
    (min_(16, N - 16 * io), {"io": (0, N // 16 - 1)}, 16),
    (max_(0, N), {}, N),
    (max_(0, 2 * i - 1) + min_(N, N + i), {"i": (1, None)}, 2 * i - 1 + N),
    (4 * (i // 4) + i % 4, {}, i),
    (N * (8 * (i // 2) + 4 * (i % 2)), {}, 4 * N * i),
    (i + N, {"i": (3, 3)}, N + 3),
    (i // 4, {}, i // 4),
    (min_(N, M), {}, min_(N, M)),
]


@pytest.mark.parametrize("e, ranges, expected", SIMPLER, ids=[str(e) for e, _, _ in SIMPLER])
def test_simplify(e, ranges, expected) -> None:
    assert simplify(e, ranges) == expected


def test_prover_gives_up_in_bounded_time() -> None:
    e: dims.DimLike = N
    for n in range(40):
        e = (e * 3 + sym(f"s{n}") % (n + 2)) // 2 - min_(e, sym(f"s{n}"))
        if isinstance(e, Dim) and len(e.terms) > 12:
            break
    assert nonneg(e) in (True, False, None)


def test_a_minimum_met_again_inside_a_quotient():
    u = min_(1000, sym("N"))
    assert nonneg(64 * ((3 * u + 7) // 8) - 24 * u) is True
    assert nonneg(64 * ((3 * u + 7) // 8) - 25 * u) is None
    v = max_(5, sym("N"))
    assert nonneg(64 * ((v + 63) // 64) - v) is True

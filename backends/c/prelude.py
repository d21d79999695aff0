"""The inline functions that printed C may need; a file gets only those it uses.

Each entry names what it needs first.  They are C99 without undefined behaviour and without libm,
except sqrt (and fma where the machine has it).
Imports: nothing of the package.
"""

from __future__ import annotations

from collections.abc import Iterable

CONTEXT = """\
#ifndef IRC_CTX
#define IRC_CTX
typedef struct irc_ctx irc_ctx;
struct irc_ctx {
    int32_t (*parallel_for)(const irc_ctx *ctx, int32_t (*fn)(void *arg, int64_t index),
                            void *arg, int64_t n);
    int32_t (*host_call)(const irc_ctx *ctx, const char *name, void *const *args,
                         const int64_t *dims);
};
#endif
"""

_FLOATS = {"f": ("float", "32", "8388608.0f", "f"), "": ("double", "64", "4503599627370496.0", "")}

HELPERS: dict[str, tuple[tuple[str, ...], str]] = {}
"""name -> (names it needs, text)."""


def _add(name: str, text: str, *needs: str) -> None:
    HELPERS[name] = needs, text.strip() + "\n"


_add("irc_floordiv", """
static inline ptrdiff_t irc_floordiv(ptrdiff_t x, ptrdiff_t d) {
    const ptrdiff_t q = x / d;
    return x % d < 0 ? q - 1 : q;
}
""")  # fmt: skip
_add("irc_mod", """
static inline ptrdiff_t irc_mod(ptrdiff_t x, ptrdiff_t d) {
    const ptrdiff_t r = x % d;
    return r < 0 ? r + d : r;
}
""")  # fmt: skip
_add("irc_least", """
static inline ptrdiff_t irc_least(ptrdiff_t x, ptrdiff_t y) { return x < y ? x : y; }
""")  # fmt: skip
_add("irc_most", """
static inline ptrdiff_t irc_most(ptrdiff_t x, ptrdiff_t y) { return x > y ? x : y; }
""")  # fmt: skip

for _s, (_t, _w, _big, _l) in _FLOATS.items():
    _one, _half, _zero = f"1.0{_l}", f"0.5{_l}", f"0.0{_l}"
    _add(f"irc_bits{_s}", f"""
static inline uint{_w}_t irc_bits{_s}({_t} x) {{
    uint{_w}_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}}
""")  # fmt: skip
    _add(f"irc_from_bits{_s}", f"""
static inline {_t} irc_from_bits{_s}(uint{_w}_t bits) {{
    {_t} x;
    memcpy(&x, &bits, sizeof x);
    return x;
}}
""")  # fmt: skip
    _add(f"irc_copysign{_s}", f"""
static inline {_t} irc_copysign{_s}({_t} x, {_t} y) {{
    const uint{_w}_t sign = UINT{_w}_C(1) << ({_w} - 1);
    return irc_from_bits{_s}((irc_bits{_s}(x) & ~sign) | (irc_bits{_s}(y) & sign));
}}
""", f"irc_bits{_s}", f"irc_from_bits{_s}")  # fmt: skip
    _add(f"irc_abs{_s}", f"""
static inline {_t} irc_abs{_s}({_t} x) {{
    return irc_from_bits{_s}(irc_bits{_s}(x) & ~(UINT{_w}_C(1) << ({_w} - 1)));
}}
""", f"irc_bits{_s}", f"irc_from_bits{_s}")  # fmt: skip
    _add(f"irc_trunc{_s}", f"""
static inline {_t} irc_trunc{_s}({_t} x) {{
    if (!(x > -{_big} && x < {_big})) {{
        return x; /* an integer already, infinite or NaN */
    }}
    return irc_copysign{_s}(({_t})(int{_w}_t)x, x);
}}
""", f"irc_copysign{_s}")  # fmt: skip
    _add(f"irc_floor{_s}", f"""
static inline {_t} irc_floor{_s}({_t} x) {{
    const {_t} t = irc_trunc{_s}(x);
    return t > x ? t - {_one} : t;
}}
""", f"irc_trunc{_s}")  # fmt: skip
    _add(f"irc_ceil{_s}", f"""
static inline {_t} irc_ceil{_s}({_t} x) {{
    const {_t} t = irc_trunc{_s}(x);
    return t < x ? irc_copysign{_s}(t + {_one}, x) : t;
}}
""", f"irc_trunc{_s}")  # fmt: skip
    _add(f"irc_round_even{_s}", f"""
static inline {_t} irc_round_even{_s}({_t} x) {{
    const {_t} t = irc_trunc{_s}(x), rest = irc_abs{_s}(x - t);
    if (!(rest >= {_half}) || (rest == {_half} && (int{_w}_t)t % 2 == 0)) {{
        return t;
    }}
    return x < {_zero} ? t - {_one} : t + {_one};
}}
""", f"irc_trunc{_s}", f"irc_abs{_s}")  # fmt: skip
    _add(f"irc_min{_s}", f"""
static inline {_t} irc_min{_s}({_t} x, {_t} y) {{ return x < y || x != x ? x : y; }}
""")  # fmt: skip
    _add(f"irc_max{_s}", f"""
static inline {_t} irc_max{_s}({_t} x, {_t} y) {{ return x > y || x != x ? x : y; }}
""")  # fmt: skip
    _add(f"irc_fma{_s}", f"""
#if defined(__FP_FAST_FMA{_s.upper()})
static inline {_t} irc_fma{_s}({_t} x, {_t} y, {_t} z) {{ return fma{_s}(x, y, z); }}
#else /* two roundings: a fused product in software costs a hundred times as much */
static inline {_t} irc_fma{_s}({_t} x, {_t} y, {_t} z) {{ return x * y + z; }}
#endif
""", "<math.h>")  # fmt: skip
    for _n in (8, 16, 32, 64):
        _bound = f"{2.0 ** (_n - 1)!r}{_l}"
        _add(f"irc_{_t}_to_i{_n}", f"""
static inline int{_n}_t irc_{_t}_to_i{_n}({_t} x) {{
    if (x >= -{_bound} && x < {_bound}) {{
        return (int{_n}_t)x;
    }}
    return x > {_zero} ? INT{_n}_MAX : x < {_zero} ? INT{_n}_MIN : 0; /* NaN gives 0 */
}}
""")  # fmt: skip
        _add(f"irc_{_t}_to_u{_n}", f"""
static inline uint{_n}_t irc_{_t}_to_u{_n}({_t} x) {{
    return x >= {2.0**_n!r}{_l} ? UINT{_n}_MAX : x > {_zero} ? (uint{_n}_t)x : 0;
}}
""")  # fmt: skip

for _n in (8, 16, 32, 64):
    for _t in (f"int{_n}_t", f"uint{_n}_t"):
        _add(f"irc_min_{_t}", f"""
static inline {_t} irc_min_{_t}({_t} x, {_t} y) {{ return x < y ? x : y; }}
""")  # fmt: skip
        _add(f"irc_max_{_t}", f"""
static inline {_t} irc_max_{_t}({_t} x, {_t} y) {{ return x > y ? x : y; }}
""")  # fmt: skip
    _i, _u = f"int{_n}_t", f"uint{_n}_t"
    _add(f"irc_div_i{_n}", f"""
static inline {_i} irc_div_i{_n}({_i} x, {_i} y) {{
    return y == 0 ? 0 : y == -1 ? ({_i})(0u - ({_u})x) : ({_i})(x / y);
}}
""")  # fmt: skip
    _add(f"irc_rem_i{_n}", f"""
static inline {_i} irc_rem_i{_n}({_i} x, {_i} y) {{ return y == 0 || y == -1 ? 0 : ({_i})(x % y); }}
""")  # fmt: skip
    _add(f"irc_div_u{_n}", f"""
static inline {_u} irc_div_u{_n}({_u} x, {_u} y) {{ return y == 0 ? 0 : ({_u})(x / y); }}
""")  # fmt: skip
    _add(f"irc_rem_u{_n}", f"""
static inline {_u} irc_rem_u{_n}({_u} x, {_u} y) {{ return y == 0 ? 0 : ({_u})(x % y); }}
""")  # fmt: skip

_add("irc_odd", """
static inline float irc_odd(double x) { /* to odd: a later rounding is as if done at once */
    const float near = (float)x;
    uint32_t bits = irc_bitsf(near);
    if (x != x || (double)near == x) {
        return near;
    }
    bits -= (x > 0.0 ? (double)near > x : (double)near < x) ? 1u : 0u;
    return irc_from_bitsf(bits | 1u);
}
""", "irc_bitsf", "irc_from_bitsf")  # fmt: skip
_add("irc_bf16_load", """
static inline float irc_bf16_load(uint16_t bits) { return irc_from_bitsf((uint32_t)bits << 16); }
""", "irc_from_bitsf")  # fmt: skip
_add("irc_bf16_bits", """
static inline uint16_t irc_bf16_bits(float x) { /* to nearest even; NaN stays NaN */
    const uint32_t bits = irc_bitsf(x), high = bits >> 16;
    return (uint16_t)(x != x ? high | 64u : (bits + 0x7fffu + (high & 1u)) >> 16);
}
""", "irc_bitsf")  # fmt: skip
_add("irc_bf16_round", """
static inline float irc_bf16_round(float x) { return irc_bf16_load(irc_bf16_bits(x)); }
""", "irc_bf16_load", "irc_bf16_bits")  # fmt: skip
_add("irc_f16_load", """
static inline float irc_f16_load(uint16_t bits) {
    const uint32_t sign = (uint32_t)(bits & 0x8000u) << 16, rest = bits & 0x7fffu;
    float x = (float)rest * (1.0f / 16777216.0f); /* a subnormal, or zero */
    if (rest >= 0x7c00u) {
        x = irc_from_bitsf(0x7f800000u | (rest & 0x3ffu) << 13);
    } else if (rest >= 0x400u) {
        x = irc_from_bitsf((rest << 13) + (112u << 23));
    }
    return irc_from_bitsf(irc_bitsf(x) | sign);
}
""", "irc_bitsf", "irc_from_bitsf")  # fmt: skip
_add("irc_f16_bits", """
static inline uint16_t irc_f16_bits(float x) { /* to nearest even; NaN stays NaN */
    const uint32_t bits = irc_bitsf(x), sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;
    uint32_t half = 0x7c00u;
    if (rest > 0x7f800000u) {
        half = 0x7e00u | (rest >> 13 & 0x3ffu);
    } else if (rest < 0x38800000u) { /* the sum rounds at the last subnormal bit */
        half = irc_bitsf(irc_from_bitsf(rest) + 0.5f) - 0x3f000000u;
    } else if (rest < 0x477ff000u) {
        half = (rest - (112u << 23) + 0xfffu + (rest >> 13 & 1u)) >> 13;
    }
    return (uint16_t)(sign | half);
}
""", "irc_bitsf", "irc_from_bitsf")  # fmt: skip
_add("irc_f16_round", """
static inline float irc_f16_round(float x) { return irc_f16_load(irc_f16_bits(x)); }
""", "irc_f16_load", "irc_f16_bits")  # fmt: skip

for _bits in (1, 2, 4):
    _per, _mask = 8 // _bits, (1 << _bits) - 1
    _add(f"irc_get_u{_bits}", f"""
static inline uint8_t irc_get_u{_bits}(const uint8_t *a, ptrdiff_t at) {{
    return (uint8_t)(a[at / {_per}] >> (at % {_per} * {_bits}) & {_mask});
}}
""")  # fmt: skip
    _add(f"irc_get_i{_bits}", f"""
static inline int8_t irc_get_i{_bits}(const uint8_t *a, ptrdiff_t at) {{
    return (int8_t)((irc_get_u{_bits}(a, at) ^ {1 << (_bits - 1)}) - {1 << (_bits - 1)});
}}
""", f"irc_get_u{_bits}")  # fmt: skip
    _add(f"irc_put_{_bits}", f"""
static inline void irc_put_{_bits}(uint8_t *a, ptrdiff_t at, int value) {{
    const int shift = (int)(at % {_per}) * {_bits};
    a[at / {_per}] = (uint8_t)((a[at / {_per}] & ~({_mask} << shift)) | (value & {_mask}) << shift);
}}
""")  # fmt: skip


def prelude(used: Iterable[str], context: bool = True) -> str:
    """Includes, the context type, and the helpers in `used` with all they need, in order of the
    table.
    """
    wanted: set[str] = set()

    def want(name: str) -> None:
        if name not in wanted:
            wanted.add(name)
            for need in HELPERS.get(name, ((), ""))[0]:
                want(need)

    for name in used:
        want(name)
    includes = ["<stdbool.h>", "<stddef.h>", "<stdint.h>"]
    helpers = [text for name, (_, text) in HELPERS.items() if name in wanted]
    if any("memcpy" in text for text in helpers):
        includes.append("<string.h>")
    if "<math.h>" in wanted:
        includes.append("<math.h>")
    lines = [f"#include {name}\n" for name in sorted(includes)]
    return "".join(lines) + "\n" + "\n".join([*[CONTEXT] * context, *helpers])


__all__ = ["CONTEXT", "HELPERS", "prelude"]

"""exp, log, tanh, erf and their kin in arithmetic that a compiler turns into vectors, for both dtypes.

:func:`namespace` gives what stands for ``math`` in a scalar function that is compiled to a dtype. Its
functions take and return that dtype and call nothing, so that a loop over one becomes vectors. Every other
name leads to Numba's own: sqrt, fabs and copysign, which become vectors as they are, and the maths library.

A function reduces its argument to a small interval, takes a polynomial there, and puts the exponent back
through the bits: see Muller et al., Handbook of Floating-Point Arithmetic, 2nd edition, chapter 11. Values
are computed on both sides of a condition and then selected. The polynomials are Remez fits of our own with 50
digits; what is said of their errors is relative to the function, for the coefficients as rounded here.

Nothing has a fastmath flag: the order of these sums is what makes them exact. A product and a sum are one
operation only where ``_fused`` says so; a processor that has no such operation costs time and up to 0.2 ULP.

Errors in ULP are the largest that were met: of float32 among all numbers that matter, then of float64 among
millions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

__all__ = ["namespace"]

njit: Any = numba.njit
types: Any = numba.types

# ------------------------------------------------------------------ what Python has no words for


@dataclass(frozen=True)
class _Format:
    """A binary format: the digits after the leading one, the bias of the exponent, the bits of √½."""

    digits: int
    bias: int
    root: int


FORMATS = {32: _Format(23, 127, 0x3F3504F3), 64: _Format(52, 1023, 0x3FE6A09E667F3BCD)}


class _Bits:
    """The bits of a float while LLVM's instructions are being written."""

    def __init__(self, builder: Any, value: Any, width: int) -> None:
        self.builder, self.form = builder, FORMATS[width]
        self.word = ir.IntType(width)
        self.value = builder.bitcast(value, self.word)

    def constant(self, value: int) -> Any:
        """An integer of that width."""
        return ir.Constant(self.word, value)

    def up(self, value: Any) -> Any:
        """An integer moved to where the exponent is."""
        return self.builder.shl(value, self.constant(self.form.digits))

    def half(self) -> Any:
        """Half of what is in the last bits."""
        return self.builder.lshr(self.value, self.constant(1))

    def from_root(self) -> Any:
        """The bits, moved so that the exponent steps at 2ⁿ √½ and not at 2ⁿ."""
        moved = (self.form.bias << self.form.digits) - self.form.root
        return self.builder.add(self.value, self.constant(moved))

    def exponent(self) -> Any:
        """n + bias, where the float is 2ⁿ m with √½ ≤ m < √2."""
        return self.builder.lshr(self.from_root(), self.constant(self.form.digits))

    def masked(self, value: Any, mask: int) -> Any:
        """Some bits of an integer."""
        return self.builder.and_(value, self.constant(mask))


def _through_bits(change: Callable[[_Bits], Any]) -> Any:
    """A function of a float that makes the bits of another from its bits."""

    @intrinsic
    def through(typing: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(change(_Bits(builder, arguments[0], x.bitwidth)), arguments[0].type)

        return x(x), codegen

    return through


#: 2ⁿ of t = 3/2 2ᵈ + bias + n, where d is the number of digits: t ends in the bits of bias + n.
_power = _through_bits(lambda t: t.up(t.value))

#: 2ʰ and 2ⁿ⁻ʰ with h = ⌊n/2⌋, of t = 3/2 2ᵈ + 2 bias + n: factors that neither overflow nor are denormal.
_first_power = _through_bits(lambda t: t.up(t.half()))
_second_power = _through_bits(lambda t: t.up(t.builder.sub(t.value, t.half())))

#: Of x = 2ⁿ m with √½ ≤ m < √2: the float 2ᵈ + bias + n; m; and 2²⁻ⁿ.
_exponent = _through_bits(
    lambda x: x.builder.or_(x.exponent(), x.constant(x.form.bias + x.form.digits << x.form.digits))
)
_significand = _through_bits(
    lambda x: x.builder.add(x.masked(x.from_root(), (1 << x.form.digits) - 1), x.constant(x.form.root))
)
_inverse_power = _through_bits(lambda x: x.up(x.builder.sub(x.constant(2 * x.form.bias + 2), x.exponent())))

#: The upper half of the digits, so few that their square is exact.
_high = _through_bits(lambda x: x.masked(x.value, -1 << (x.form.digits + 2) // 2))


def _tests_for_power(typing: Any, x: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = _Bits(builder, arguments[0], x.bitwidth)
        rest = bits.masked(bits.value, (1 << bits.form.digits) - 1)
        exponent = bits.masked(bits.value, 2 * bits.form.bias + 1 << bits.form.digits)
        most = bits.constant(2 * bits.form.bias << bits.form.digits)
        # Without a sign, 0 − 1 is larger than any exponent.
        normal = builder.icmp_unsigned("<", builder.sub(exponent, bits.up(bits.constant(1))), most)
        return builder.and_(builder.icmp_unsigned("==", rest, bits.constant(0)), normal)

    return types.boolean(x), codegen


#: Whether a float is a power of two, with either sign; the denormal ones do not count.
_is_power: Any = intrinsic(_tests_for_power)


def _multiply_add(builder: Any, x: Any, y: Any, z: Any) -> Any:
    kind = ir.FunctionType(x.type, [x.type] * 3)
    return builder.call(builder.module.declare_intrinsic("llvm.fmuladd", [x.type], kind), [x, y, z])


def _multiplies_and_adds(typing: Any, x: Any, y: Any, z: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _multiply_add(builder, *arguments)

    return x(x, x, x), codegen


#: x y + z: rounded once where the processor can do that, twice where not.
_fused: Any = intrinsic(_multiplies_and_adds)


#: Coefficients up to which Horner's rule is used: each step waits four or so cycles for the one before.
HORNER = 5


def _sum_of_powers(builder: Any, x: Any, coefficients: Sequence[Any]) -> Any:
    """Horner's rule; if there are many powers, the even and the odd ones apart."""
    if len(coefficients) <= HORNER:
        *rest, found = coefficients
        for coefficient in reversed(rest):
            found = _multiply_add(builder, found, x, coefficient)
        return found
    square = builder.fmul(x, x)
    even, odd = (_sum_of_powers(builder, square, coefficients[start::2]) for start in (0, 1))
    return _multiply_add(builder, odd, x, even)


def _polynomial(coefficients: Sequence[float]) -> Any:
    """The polynomial with these coefficients, the constant first."""

    @intrinsic
    def polynomial(typing: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            numbers = [ir.Constant(arguments[0].type, value) for value in coefficients]
            return _sum_of_powers(builder, arguments[0], numbers)

        return x(x), codegen

    return polynomial


def _of_llvm(name: str) -> Any:
    """A function of one float that LLVM knows."""

    @intrinsic
    def function(typing: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = arguments[0].type
            return builder.call(builder.module.declare_intrinsic(f"llvm.{name}", [kind]), arguments)

        return x(x), codegen

    return function


_floor, _ceil, _trunc = map(_of_llvm, ("floor", "ceil", "trunc"))


class _Kind:
    """A dtype: what makes numbers of it, its format, and functions whose literals are of it."""

    def __init__(self, dtype: str) -> None:
        self.name = dtype
        self.of = np.dtype(dtype).type
        self.form = FORMATS[8 * np.dtype(dtype).itemsize]

    def compiled(self, function: Any) -> Any:
        """A function for loops to take in whole; Numba must not: it would add the fastmath of the loop."""
        code = function.__code__
        numbers = tuple(self.of(value) if type(value) is float else value for value in code.co_consts)
        typed = FunctionType(
            code.replace(co_consts=numbers), globals(), function.__name__, None, function.__closure__
        )
        return njit(inline="never", forceinline=True, error_model="numpy", fastmath=False)(typed)


# ------------------------------------------------------------------ exp, expm1, tanh

#: (eʳ − 1 − r)/r² for |r| ≤ ½ ln 2; error 2⁻²⁸·¹ and 2⁻⁵⁷·².
EXP = {
    "float32": (0.49999994, 0.16666517, 0.041668247, 0.008369085, 0.0013822468),
    "float64": (
        *(0.5000000000000011, 0.16666666666666344, 0.041666666666524535, 0.008333333333444548),
        *(0.0013888888946192667, 0.00019841269765089316, 2.4801489338721374e-05, 2.755724834492443e-06),
        *(2.763192850671412e-07, 2.5135269670844568e-08),
    ),
}

#: ln 2 in two parts, of which the first times an exponent is exact (W. J. Cody and W. Waite, Software Manual
#: for the Elementary Functions, 1980): 355/512 and 33 bits.
LN2 = {
    "float32": (0.693359375, math.log(2) - 0.693359375),
    "float64": (0.693147180369123816, 1.90821492927058770e-10),
}

#: Where exp is 0 from, and infinite.
ENDS = {"float32": (-105.0, 89.0), "float64": (-746.0, 710.0)}

#: (tanh x − x)/x³ for |x| ≤ 0.55 as one polynomial of x² over another; error 2⁻²⁹·⁷ and 2⁻⁵⁸.
TANH = {
    "float32": ((-0.33333316, 0.13332544, -0.053847548, 0.021050714, -0.0062428494), (1.0,)),
    "float64": (
        (-1612.7680543974004, -99.19474243794453, -0.9643626794774502),
        (4838.3041631922015, 2232.9058925907093, 112.71096151044718, 1.0),
    ),
}


def _exponentials(kind: _Kind) -> SimpleNamespace:
    """exp, expm1 and tanh, and what they have in common: eʳ − 1, of x = n ln 2 + r and n."""
    of, form = kind.of, kind.form
    least, most = map(of, ENDS[kind.name])
    log2e, ln2_low = of(1 / math.log(2)), of(LN2[kind.name][1])
    minus_high, minus_low = (of(-part) for part in LN2[kind.name])
    biases = form.bias, form.bias - 1, 2 * form.bias
    whole, whole_less, whole_twice = (of(1.5 * 2.0**form.digits + bias) for bias in biases)
    lowest, small = of(-(form.digits + 4) * math.log(2)), of(2.0 ** -(form.digits + 2))
    exp_rest = _polynomial(EXP[kind.name])
    tanh_top, tanh_bottom = map(_polynomial, TANH[kind.name])

    @kind.compiled
    def quick(x: Any, n: Any) -> Any:
        """r + r² q with r = x − n ln 2."""
        r = _fused(n, minus_low, _fused(n, minus_high, x))
        return _fused(r * r, exp_rest(r), r)

    @kind.compiled
    def careful(x: Any, n: Any) -> Any:
        """The same, with what the rounding of r leaves out: 0.1 to 0.2 ULP less for 0.08 ns more."""
        high, low = _fused(n, minus_high, x), n * ln2_low
        r = high - low
        return r + _fused(r * r, exp_rest(r), (high - r) - low)

    grown = quick if kind.name == "float32" else careful

    @kind.compiled
    def exp(x: Any) -> Any:
        """2ⁿ eʳ with n = round(x/ln 2), which adding 3/2 2ᵈ rounds: 1.02 and 0.91 ULP.

        2ⁿ comes in two factors, so that a denormal result is rounded by the last product alone.
        """
        x = of(x)
        x = least if x < least else x
        x = most if x > most else x
        t = _fused(x, log2e, whole_twice)
        y = grown(x, t - whole_twice)
        s = _first_power(t)
        return _fused(s, y, s) * _second_power(t)

    @kind.compiled
    def expm1(x: Any) -> Any:
        """2ⁿ(eʳ − 1) + (2ⁿ − 1), halved while 2ⁿ may overflow: 1.10 and 1.31 ULP.

        It takes in what the roundings of r and of 2ⁿ r + (2ⁿ − 1) leave out.
        """
        x = of(x)
        y = lowest if x < lowest else x
        y = most if y > most else y
        t = _fused(y, log2e, whole_less)
        n, s = t - whole_less, _power(t)
        high, low = _fused(n, minus_high, y), n * ln2_low
        r = high - low
        rest = _fused(r * r, exp_rest(r), (high - r) - low)
        a, b = s - 0.5, s * r
        h = a + b
        found = 2.0 * (h + _fused(s, rest, b - (h - a)))
        return x if abs(x) < small else found

    @kind.compiled
    def tanh(x: Any) -> Any:
        """x + x³ R(x²) for |x| < 0.55, else 1 − 2/(e²ˣ + 1), with one division: 1.47 and 1.47 ULP."""
        x = of(x)
        a = abs(x)
        a = 20.0 if a > 20.0 else a
        b = a + a
        t = _fused(b, log2e, whole)
        s = _power(t)
        e = _fused(s, grown(b, t - whole), s)
        y = a * a
        near = a < 0.55
        top = (a * y) * tanh_top(y) if near else -2.0
        bottom = tanh_bottom(y) if near else e + 1.0
        return math.copysign((a if near else 1.0) + top / bottom, x)

    return SimpleNamespace(grown=grown, exp=exp, expm1=expm1, tanh=tanh)


# ------------------------------------------------------------------ log, log1p

#: (log(1 + f) − f + f²/2)/f³ for √½ ≤ 1 + f < √2; error 2⁻²⁷·³ and 2⁻⁵⁶·⁴.
LOG = {
    "float32": (
        *(0.3333333, -0.25000823, 0.2000126, -0.16623323),
        *(0.14200962, -0.13159724, 0.12767285, -0.07643129),
    ),
    "float64": (
        *(0.3333333333333314, -0.24999999999987974, 0.20000000000067297, -0.1666666666982785),
        *(0.14285714279989506, -0.12499999691176877, 0.11111111153333046, -0.10000015219052949),
        *(0.0909092378180535, -0.08332913245173122, 0.07691531425432098, -0.07149442065128879),
        *(0.06684588107055045, -0.06196699475172457, 0.05668294584540183, -0.05677243456312232),
        *(0.06503557980063379, -0.05984419791911093, 0.02617931455955452),
    ),
}


def _logarithms(kind: _Kind) -> SimpleNamespace:
    """log and log1p."""
    of, form = kind.of, kind.form
    ln2_high, ln2_low = map(of, LN2[kind.name])
    offset = of(2.0**form.digits + form.bias)
    normal, lift, lifted = of(np.finfo(of).tiny), of(2.0 ** (form.digits + 1)), of(form.digits + 1)
    inf, nan = of(math.inf), of(math.nan)
    log_rest = _polynomial(LOG[kind.name])

    @kind.compiled
    def joined(n: Any, f: Any) -> Any:
        """n ln 2 + log(1 + f), with what the rounding of its first sum leaves out."""
        whole = n * ln2_high
        h = whole + f
        rest = (f * f) * _fused(f, log_rest(f), -0.5)
        return h + (((whole - h) + f) + _fused(n, ln2_low, rest))

    @kind.compiled
    def log(x: Any) -> Any:
        """x is 2ⁿ(1 + f); denormal numbers are first made larger: 0.95 and 0.94 ULP."""
        x = of(x)
        tiny = x < normal
        y = x * lift if tiny else x
        n = (_exponent(y) - offset) - (lifted if tiny else 0.0)
        found = joined(n, _significand(y) - 1.0)
        found = found if x < inf else x
        bad = -inf if x == 0.0 else nan
        return found if x > 0.0 else bad

    @kind.compiled
    def log1p(x: Any) -> Any:
        """1 + x is 2ⁿ(1 + f), where f = 2⁻ⁿ x + (2⁻ⁿ − 1) has the digits of x: 1.53 and 1.46 ULP.

        Four times 2⁻ⁿ is never denormal.
        """
        x = of(x)
        u = 1.0 + x
        s = _inverse_power(u)
        f = _fused(x * s, 0.25, _fused(s, 0.25, -1.0))
        found = math.copysign(joined(_exponent(u) - offset, f), x)
        found = found if x < inf else x
        bad = -inf if x == -1.0 else nan
        return found if x > -1.0 else bad

    return SimpleNamespace(log=log, log1p=log1p)


# ------------------------------------------------------------------ erf, erfc

#: erf x/x − 1 as a polynomial of x², for |x| ≤ 0.5 and 0.8; error 2⁻²⁹·⁴ and 2⁻⁵⁵·².
ERF = {
    "float32": (
        *(0.12837916556698784, -0.3761260857119025, 0.11282822794215304),
        *(-0.02675718390837654, 0.004717990254678229),
    ),
    "float64": (
        *(0.12837916709551256, -0.3761263890318362, 0.11283791670946895, -0.026866170643139845),
        *(0.00522397760067023, -0.000854832522135826, 0.0001205525102038864, -1.492324727256145e-05),
        *(1.6416583673625108e-06, -1.5824205633567933e-07, 1.1068243392237375e-08),
    ),
}

#: Two numbers that make u = p + q/(x + k) lie between −1 and 1, and the polynomial of u. For float32 that is
#: (x + k) exp(x²) erfc x for 0 ≤ x ≤ 10.1 with k = 13/4, error 2⁻³¹; for float64 (1 + 2x) exp(x²) erfc x less
#: 5/4, over u, for 0.8 ≤ x ≤ 27.3 with k = 7/2, error 2⁻⁵⁶·⁹. The idea is that of M. M. Shepherd and
#: J. G. Laframboise, Chebyshev approximation of (1 + 2x) exp(x²) erfc x in 0 ≤ x < ∞, Mathematics of
#: Computation 36, 1981; the 5/4 is there because it has no rounding error.
TAIL = {
    "float32": (
        (-1.6435643434524536, 8.591584205627441),
        (
            *(1.347781748863515, 0.9873550395299265, 0.5663832874829631, 0.2505980759418858),
            *(0.08130553743469202, 0.016632157183726983, 0.0007322316547488168, -0.0006720171522470759),
            *(-0.00014553909643356025, 2.0202480679229016e-05, 9.186983274823154e-06),
        ),
    ),
    "float64": (
        (-1.2745755589173238, 8.456928253173828),
        (
            *(0.11412862852813846, -0.019791289119226348, -0.07126516197592343, -0.06647259471875007),
            *(-0.04093021814527926, -0.01817916032690734, -0.005565921452567936, -0.0008781366255831696),
            *(0.00011510708148092729, 9.483546597455867e-05, 1.0963749648167653e-05, -6.122857853962126e-06),
            *(-1.8219026162265515e-06, 3.818239785509793e-07, 2.0832843015275123e-07),
            *(-2.8028932307534787e-08, -2.3628966403195348e-08, 1.723210200236113e-09),
            *(2.631473750285423e-09, 3.688868887922669e-10),
        ),
    ),
}


def _errors(kind: _Kind, exponentials: SimpleNamespace) -> SimpleNamespace:
    """erf and erfc of float64."""
    of, grown = kind.of, exponentials.grown
    log2e, whole_twice = 1 / math.log(2), 1.5 * 2.0**kind.form.digits + 2 * kind.form.bias
    (start, slope), coefficients = TAIL[kind.name]
    tail_rest, erf_rest = _polynomial(coefficients), _polynomial(ERF[kind.name])

    @kind.compiled
    def tail(a: Any) -> Any:
        """erfc a = exp(−a²) p/(1 + 2a) for a ≥ 0.8, where exp takes in what the roundings of a², p, 1 + 2a
        and the quotient leave out; the last three relative to p, which is 1/0.8 or not far from it.
        """
        square, high = a * a, _high(a)
        below = _fused(high, high, -square) + (a - high) * (a + high)
        t = _fused(-square, log2e, whole_twice)
        y = grown(-square, t - whole_twice)
        u = _fused(1.0 / (a + 3.5), slope, start)
        z = u * tail_rest(u)
        p, twice = 1.25 + z, a + a
        q = twice + 1.0
        v = p / q
        lost = _fused(-v, q, p) + ((z - (p - 1.25)) - (1.0 - (q - twice)) * v)
        y = _fused(_fused(0.8, lost, -below), 1.0 + y, y)
        v = _first_power(t) * v
        return _fused(v, y, v) * _second_power(t)

    @kind.compiled
    def erfc(x: Any) -> Any:
        """½ − ((x − ½) + x R(x²)) for |x| < 0.8, else the tail, or 2 less that of −x: 1.91 ULP."""
        x = of(x)
        a = abs(x)
        far = tail(27.5 if a > 27.5 else a)
        far = 2.0 - far if x < 0.0 else far
        near = 0.5 - _fused(x, erf_rest(x * x), x - 0.5)
        return near if a < 0.8 else far

    @kind.compiled
    def erf(x: Any) -> Any:
        """x + x R(x²) for |x| < 0.8, else 1 − erfc x: 1.00 ULP."""
        x = of(x)
        a = abs(x)
        far = math.copysign(1.0 - tail(27.5 if a > 27.5 else a), x)
        near = _fused(x, erf_rest(x * x), x)
        return near if a < 0.8 else far

    return SimpleNamespace(erf=erf, erfc=erfc)


def _narrow_errors(kind: _Kind) -> SimpleNamespace:
    """erf and erfc of float32, in float64: half the lanes, but a third of the operations."""
    wide = _Kind("float64")
    of, to = kind.of, wide.of
    log2e, minus_ln2 = 1 / math.log(2), -math.log(2)
    whole = 1.5 * 2.0**wide.form.digits + wide.form.bias
    exp_rest, erf_rest = _polynomial(EXP[kind.name]), _polynomial(ERF[kind.name])
    (start, slope), coefficients = TAIL[kind.name]
    tail_rest = _polynomial(coefficients)

    @wide.compiled
    def tail(a: Any) -> Any:
        """erfc a = exp(−a²) p/(a + 13/4) for 0 ≤ a ≤ 10.1, beyond which it rounds to 0."""
        a = 10.1 if a > 10.1 else a
        square = a * a
        t = _fused(-square, log2e, whole)
        r = _fused(t - whole, minus_ln2, -square)
        w = 1.0 / (a + 3.25)
        u = _fused(w, slope, start)
        v = (w * _power(t)) * tail_rest(u)
        return _fused(v, _fused(r * r, exp_rest(r), r), v)

    @wide.compiled
    def erfc(x: Any) -> Any:
        """The tail, or 2 less that of −x: 0.56 ULP."""
        x = to(of(x))
        found = tail(abs(x))
        return of(2.0 - found if x < 0.0 else found)

    @wide.compiled
    def erf(x: Any) -> Any:
        """x + x R(x²) for |x| < 0.5, else 1 − erfc x: 0.53 ULP."""
        x = to(of(x))
        far = math.copysign(1.0 - tail(abs(x)), x)
        near = _fused(x, erf_rest(x * x), x)
        return of(near if abs(x) < 0.5 else far)

    return SimpleNamespace(erf=erf, erfc=erfc)


# ------------------------------------------------------------------ whole numbers


def _roundings(kind: _Kind) -> SimpleNamespace:
    """floor, ceil, trunc: of the dtype, where Python has an int. fmod: exact."""
    of = kind.of
    huge = of(2.0**kind.form.digits)

    @kind.compiled
    def floor(x: Any) -> Any:
        return _floor(of(x))

    @kind.compiled
    def ceil(x: Any) -> Any:
        return _ceil(of(x))

    @kind.compiled
    def trunc(x: Any) -> Any:
        return _trunc(of(x))

    @kind.compiled
    def fmod(x: Any, y: Any) -> Any:
        """x − y trunc(x/y) has no rounding where y is a power of two; a constant y leaves one way only."""
        x, y = of(x), of(y)
        if not _is_power(y):
            return of(np.fmod(x, y))
        q = x / y
        found = x - y * _trunc(q) if abs(q) < huge else x * 0.0
        return math.copysign(found, x)

    return SimpleNamespace(floor=floor, ceil=ceil, trunc=trunc, fmod=fmod)


@cache
def namespace(dtype: str) -> ModuleType:
    """What stands for ``math`` in functions that are compiled to a dtype, ``"float32"`` or ``"float64"``."""
    kind = _Kind(dtype)
    exponentials = _exponentials(kind)
    errors = _errors(kind, exponentials) if dtype == "float64" else _narrow_errors(kind)
    found = ModuleType(f"math_of_{dtype}")
    for name, value in vars(math).items():
        if not name.startswith("_"):
            setattr(found, name, kind.of(value) if isinstance(value, float) else value)
    for group in (exponentials, _logarithms(kind), errors, _roundings(kind)):
        vars(found).update((name, value) for name, value in vars(group).items() if hasattr(math, name))
    return found

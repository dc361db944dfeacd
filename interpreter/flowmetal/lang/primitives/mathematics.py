"""The namespace `math`: Clojure's clojure.math over floats.

What goes in: numbers. What comes out: floats, or integers where the name says so. The one rule: IEEE
754: a result that does not exist is NaN or infinite, never an exception.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang.primitives.checks import integer, number
from flowmetal.lang.primitives.numbers import as_float, zero_division
from flowmetal.lang.primitives.registry import primitive


def _quiet(f: Callable[..., float], *xs: float) -> float:
    try:
        return float(f(*xs))
    except OverflowError:
        return math.inf
    except ValueError:
        return math.nan


def _one(name: str, f: Callable[[float], float], doc: str, example: str) -> None:
    primitive("math", name, "([x])", doc, example)(lambda x: _quiet(f, as_float(number(f"math/{name}", x))))


def _whole(f: Callable[[float], int]) -> Callable[[float], float]:
    """Rounding that leaves NaN, infinities and the sign of zero alone."""
    return lambda x: x if not math.isfinite(x) else math.copysign(float(f(x)), x)


def _log(f: Callable[[float], float]) -> Callable[[float], float]:
    return lambda x: -math.inf if x == 0 else f(x)


_one("sqrt", math.sqrt, "The square root.", "(math/sqrt 9) ;=> 3.0")


def _cbrt(x: float) -> float:
    if x == 0 or not math.isfinite(x):
        return x
    root = abs(x) ** (1 / 3)
    return math.copysign(float(round(root)) if round(root) ** 3 == abs(x) else root, x)


_one("cbrt", _cbrt, "The cube root.", "(math/cbrt 27) ;=> 3.0")
_one("exp", math.exp, "e to the x.", "(math/exp 0) ;=> 1.0")
_one("expm1", math.expm1, "e to the x, less 1.", "(math/expm1 0) ;=> 0.0")
_one("log", _log(math.log), "The natural logarithm.", "(math/log 1) ;=> 0.0")
_one("log10", _log(math.log10), "The logarithm of base 10.", "(math/log10 1000) ;=> 3.0")
_one("log1p", lambda x: -math.inf if x == -1 else math.log1p(x), "The natural logarithm of 1 + x.", "(math/log1p 0) ;=> 0.0")
_one("sin", math.sin, "The sine.", "(math/sin 0) ;=> 0.0")
_one("cos", math.cos, "The cosine.", "(math/cos 0) ;=> 1.0")
_one("tan", math.tan, "The tangent.", "(math/tan 0) ;=> 0.0")
_one("asin", math.asin, "The arc sine.", "(math/asin 0) ;=> 0.0")
_one("acos", math.acos, "The arc cosine.", "(math/acos 1) ;=> 0.0")
_one("atan", math.atan, "The arc tangent.", "(math/atan 0) ;=> 0.0")
_one("sinh", math.sinh, "The hyperbolic sine.", "(math/sinh 0) ;=> 0.0")
_one("cosh", math.cosh, "The hyperbolic cosine.", "(math/cosh 0) ;=> 1.0")
_one("tanh", math.tanh, "The hyperbolic tangent.", "(math/tanh 0) ;=> 0.0")
_one("ceil", _whole(math.ceil), "Rounded up, as a float.", "(math/ceil 1.2) ;=> 2.0")
_one("floor", _whole(math.floor), "Rounded down, as a float.", "(math/floor -1.2) ;=> -2.0")
_one("rint", _whole(round), "Rounded to the nearest, halves to even, as a float.", "(math/rint 2.5) ;=> 2.0")
_one("signum", lambda x: x if x == 0 or x != x else math.copysign(1.0, x), "-1.0, 0.0 or 1.0 as the sign is.", "(math/signum -3) ;=> -1.0")
_one("to-radians", math.radians, "Degrees as radians.", "(math/to-radians 0) ;=> 0.0")
_one("to-degrees", math.degrees, "Radians as degrees.", "(math/to-degrees 0) ;=> 0.0")
_one("ulp", math.ulp, "The distance to the next float.", "(math/ulp 1.0) ;=> 2.220446049250313e-16")
_one("next-up", lambda x: math.nextafter(x, math.inf), "The next greater float.", "(math/next-up 1) ;=> 1.0000000000000002")
_one("next-down", lambda x: math.nextafter(x, -math.inf), "The next smaller float.", "(math/next-down 1) ;=> 0.9999999999999999")


def _two(name: str, f: Callable[[float, float], float], doc: str, example: str) -> None:
    primitive("math", name, "([x y])", doc, example)(lambda x, y: _quiet(f, as_float(number(f"math/{name}", x)), as_float(number(f"math/{name}", y))))


def _pow(x: float, y: float) -> float:
    if abs(x) == 1 and not math.isfinite(y):
        return math.nan  # Java's answer, not C's
    if x != x and y != 0:
        return math.nan
    if x == 0 and y < 0:
        return math.copysign(math.inf, x) if float(y).is_integer() and y % 2 == 1 else math.inf
    try:
        return math.pow(x, y)
    except OverflowError:
        return -math.inf if x < 0 and y % 2 == 1 else math.inf


_two("pow", _pow, "x to the y, as a float.", "(math/pow 2 10) ;=> 1024.0")
_two("atan2", math.atan2, "The angle of the point (y, x).", "(math/atan2 0 1) ;=> 0.0")
_two("next-after", math.nextafter, "The float next to x in the direction of y.", "(math/next-after 1.0 2.0) ;=> 1.0000000000000002")
_two("hypot", math.hypot, "The length of the hypotenuse.", "(math/hypot 3 4) ;=> 5.0")
_two("copy-sign", math.copysign, "x with the sign of y.", "(math/copy-sign 1 -2) ;=> -1.0")
_two("IEEE-remainder", math.remainder, "The remainder of IEEE 754.", "(math/IEEE-remainder 5 3) ;=> -1.0")


@primitive("math", "scalb", "([x n])", "x times two to the n, for an integer n.", "(math/scalb 1.5 2) ;=> 6.0")
def scalb(x: Any, n: Any) -> float:
    """`math/scalb`."""
    return _quiet(lambda a: math.ldexp(a, max(min(integer("math/scalb", n), 5000), -5000)), as_float(number("math/scalb", x)))


@primitive("math", "get-exponent", "([x])", "The exponent of two of a float.", "(math/get-exponent 1024.0) ;=> 10")
def get_exponent(x: Any) -> int:
    """`math/get-exponent`."""
    a = as_float(number("math/get-exponent", x))
    if not math.isfinite(a):
        return 1024
    return -1023 if abs(a) < 2.0**-1022 else math.frexp(a)[1] - 1


@primitive("math", "round", "([x])", "The nearest integer; halves are rounded up.", "(math/round 2.5) ;=> 3")
def round_(x: Any) -> int:
    """`math/round`."""
    if type(number("math/round", x)) is int:
        return int(x)
    if x != x:
        return 0
    if type(x) is float and math.isinf(x):
        raise LispError("math/round: an infinite number has no nearest integer", type="arithmetic")
    down = math.floor(x)
    half = Decimal(x) - down
    return down + 1 if half >= Decimal("0.5") else down  # type: ignore[no-any-return]


def _division(name: str, f: Callable[[int, int], int], doc: str, example: str) -> None:
    @primitive("math", name, "([x y])", doc, example)
    def run(x: Any, y: Any) -> int:
        if integer(f"math/{name}", y) == 0:
            raise zero_division(f"math/{name}")
        return f(integer(f"math/{name}", x), y)


_division("floor-div", lambda x, y: x // y, "The quotient, rounded down.", "(math/floor-div -7 2) ;=> -4")
_division("floor-mod", lambda x, y: x % y, "The remainder of floor-div.", "(math/floor-mod -7 2) ;=> 1")


def _exact(name: str, core: str, doc: str, example: str, count: int) -> None:
    from flowmetal.lang.primitives.registry import TABLE

    f = TABLE["core", core].fn
    if count == 1:
        primitive("math", name, "([x])", doc, example)(lambda x: f(integer(f"math/{name}", x)))
    else:
        primitive("math", name, "([x y])", doc, example)(lambda x, y: f(integer(f"math/{name}", x), integer(f"math/{name}", y)))


_exact("add-exact", "+", "The sum of integers.", "(math/add-exact 1 2) ;=> 3", 2)
_exact("subtract-exact", "-", "The difference of integers.", "(math/subtract-exact 3 2) ;=> 1", 2)
_exact("multiply-exact", "*", "The product of integers.", "(math/multiply-exact 3 2) ;=> 6", 2)
_exact("increment-exact", "inc", "One more.", "(math/increment-exact 1) ;=> 2", 1)
_exact("decrement-exact", "dec", "One less.", "(math/decrement-exact 1) ;=> 0", 1)
_exact("negate-exact", "-", "The negation of an integer.", "(math/negate-exact 1) ;=> -1", 1)

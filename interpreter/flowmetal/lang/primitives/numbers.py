"""Arithmetic, comparison and bits.

What goes in: integers of any size, floats, decimals. What comes out: exact results where the kinds
allow; a float as soon as one operand is one. The one rule: nothing else is a number, not even a
boolean; anything else is an error that names the function and the value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, Inexact, InvalidOperation, Overflow
from decimal import DivisionByZero as DecimalDivisionByZero
from typing import Any, Final

from flowmetal.errors import LispError
from flowmetal.lang.equality import equal
from flowmetal.lang.primitives.checks import NUMBERS, integer, number, wrong
from flowmetal.lang.primitives.registry import primitive

MAX_BITS: Final = 1 << 20
"""Integers grow up to this many bits, some 315,000 digits: more would stop a flow for seconds."""

_EXACT: Final = Context(
    prec=10_000, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[Inexact, InvalidOperation, Overflow, DecimalDivisionByZero]
)  # fmt: skip


def _sized(r: int) -> int:
    if r.bit_length() <= MAX_BITS:
        return r
    raise LispError(f"an integer of more than {MAX_BITS} bits is too large", type="limit")


def zero_division(who: str) -> LispError:
    """The error of a division by zero."""
    return LispError(f"{who}: division by zero", type="arithmetic")


def _operands(who: str, a: Any, b: Any) -> tuple[Any, Any]:
    """Both operands as one kind: float wins over decimal, decimal over integer."""
    t, u = type(a), type(b)
    if t not in NUMBERS:
        raise wrong(who, "numbers", a)
    if u not in NUMBERS:
        raise wrong(who, "numbers", b)
    if t is u:
        return a, b
    try:
        if t is float or u is float:
            return float(a), float(b)
    except OverflowError:
        return as_float(a), as_float(b)
    return (a, Decimal(b)) if t is Decimal else (Decimal(a), b)


def as_float(x: Any) -> float:
    """A number as a float; infinite where it is too large."""
    try:
        return float(x)
    except OverflowError:
        return math.inf if x > 0 else -math.inf


def _decimal(who: str, op: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
    try:
        return op(a, b)
    except DecimalDivisionByZero:
        raise zero_division(who) from None
    except Inexact:
        raise LispError(f"{who}: the result has no exact decimal form; use (double x) for a float", type="arithmetic") from None
    except (InvalidOperation, Overflow):
        raise LispError(f"{who}: no decimal result", type="arithmetic") from None


def add2(a: Any, b: Any) -> Any:
    """`(+ a b)`."""
    if type(a) is int and type(b) is int:
        return _sized(a + b)
    a, b = _operands("+", a, b)
    if type(a) is float:
        return a + b
    return _decimal("+", _EXACT.add, a, b) if type(a) is Decimal else _sized(a + b)


def sub2(a: Any, b: Any) -> Any:
    """`(- a b)`."""
    if type(a) is int and type(b) is int:
        return _sized(a - b)
    a, b = _operands("-", a, b)
    if type(a) is float:
        return a - b
    return _decimal("-", _EXACT.subtract, a, b)


def mul2(a: Any, b: Any) -> Any:
    """`(* a b)`."""
    if type(a) is int and type(b) is int:
        return _sized(a * b)
    a, b = _operands("*", a, b)
    if type(a) is float:
        return a * b
    return _decimal("*", _EXACT.multiply, a, b)


def div2(a: Any, b: Any) -> Any:
    """`(/ a b)`: an integer where it is exact, else a float."""
    a, b = _operands("/", a, b)
    if type(a) is int:
        if b == 0:
            raise zero_division("/")
        q, r = divmod(a, b)
        if r == 0:
            return q
        try:
            return a / b
        except OverflowError:
            raise LispError("/: the result is too large for a float", type="arithmetic") from None
    if type(a) is Decimal:
        return _decimal("/", _divide_decimals, a, b)
    if b == 0.0:
        if a == 0.0 or a != a:
            return math.nan
        return math.copysign(math.inf, a) * math.copysign(1.0, b)
    return a / b


def _divide_decimals(a: Decimal, b: Decimal) -> Decimal:
    exact = _EXACT.divide(a, b)
    wanted = int(a.as_tuple().exponent) - int(b.as_tuple().exponent)
    if int(exact.as_tuple().exponent) < wanted:
        return exact
    return exact.quantize(Decimal((0, (1,), min(wanted, 0))), context=_EXACT) if wanted <= 0 else exact


def lt2(a: Any, b: Any) -> bool:
    """`(< a b)`."""
    if (type(a) is int and type(b) is int) or _comparable("<", a, b):
        return bool(a < b)
    return False


def gt2(a: Any, b: Any) -> bool:
    """`(> a b)`."""
    if (type(a) is int and type(b) is int) or _comparable(">", a, b):
        return bool(a > b)
    return False


def le2(a: Any, b: Any) -> bool:
    """`(<= a b)`."""
    if (type(a) is int and type(b) is int) or _comparable("<=", a, b):
        return bool(a <= b)
    return False


def ge2(a: Any, b: Any) -> bool:
    """`(>= a b)`."""
    if (type(a) is int and type(b) is int) or _comparable(">=", a, b):
        return bool(a >= b)
    return False


def _comparable(who: str, a: Any, b: Any) -> bool:
    """Whether two operands are numbers that can be ordered (NaN cannot), or two times of one kind."""
    t, u = type(a), type(b)
    if t in NUMBERS and u in NUMBERS:
        return a == a and b == b  # type: ignore[no-any-return]
    if t is u and t.__name__ in ("Duration", "Instant"):
        return True
    raise wrong(who, "numbers", b if t in NUMBERS or t.__name__ in ("Duration", "Instant") else a)


BINARY: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": add2, "-": sub2, "*": mul2, "/": div2, "<": lt2, ">": gt2, "<=": le2, ">=": ge2, "=": equal,
}  # fmt: skip
"""Core functions of exactly two arguments, without the checks of a variable count."""


@primitive("core", "+", "([& xs])", "The sum of numbers; 0 of none.", "(+ 1 2 3) ;=> 6")
def add(*xs: Any) -> Any:
    """`+`."""
    if len(xs) == 2:
        return add2(xs[0], xs[1])
    total: Any = 0
    for x in xs:
        total = add2(total, x)
    return total


@primitive("core", "-", "([x] [x & more])", "The first number less the others; of one, its negation.", "(- 10 1 2) ;=> 7")
def sub(x: Any, *more: Any) -> Any:
    """`-`."""
    if len(more) == 1:
        return sub2(x, more[0])
    if not more:
        return number("-", x).copy_negate() if type(x) is Decimal else -number("-", x)
    for y in more:
        x = sub2(x, y)
    return x


@primitive("core", "*", "([& xs])", "The product of numbers; 1 of none.", "(* 2 3 4) ;=> 24")
def mul(*xs: Any) -> Any:
    """`*`."""
    if len(xs) == 2:
        return mul2(xs[0], xs[1])
    product: Any = 1
    for x in xs:
        product = mul2(product, x)
    return product


@primitive("core", "/", "([x] [x & more])", "Division: an integer where it is exact, else a float.", "(/ 1 2) ;=> 0.5")
def div(x: Any, *more: Any) -> Any:
    """`/`."""
    if not more:
        return div2(1, x)
    for y in more:
        x = div2(x, y)
    return x


# Clojure's names for arithmetic that does not overflow: here none does.
for _name, _fn, _args, _doc in (("+'", add, "([& xs])", "Like +."), ("-'", sub, "([x] [x & more])", "Like -."), ("*'", mul, "([& xs])", "Like *.")):
    primitive("core", _name, _args, _doc, f"({_name} 2 1) ;=> {_fn(2, 1)}")(_fn)


@primitive("core", "inc", "([x])", "One more.", "(inc 1) ;=> 2")
def inc(x: Any) -> Any:
    """`inc`."""
    if type(x) is int:
        return _sized(x + 1)
    return add2(number("inc", x), 1)


@primitive("core", "dec", "([x])", "One less.", "(dec 1) ;=> 0")
def dec(x: Any) -> Any:
    """`dec`."""
    if type(x) is int:
        return _sized(x - 1)
    return sub2(number("dec", x), 1)


primitive("core", "inc'", "([x])", "Like inc.", "(inc' 1) ;=> 2")(inc)
primitive("core", "dec'", "([x])", "Like dec.", "(dec' 1) ;=> 0")(dec)


def _chain(name: str, two: Callable[[Any, Any], bool], doc: str, example: str) -> None:
    @primitive("core", name, "([x] [x & more])", doc, example)
    def compare(x: Any, *more: Any) -> bool:
        for y in more:
            if not two(x, y):
                return False
            x = y
        return True


_chain("<", lt2, "Whether numbers (or times) strictly increase.", "(< 1 2 3) ;=> true")
_chain(">", gt2, "Whether numbers (or times) strictly decrease.", "(> 3 2 1) ;=> true")
_chain("<=", le2, "Whether numbers (or times) never decrease.", "(<= 1 1 2) ;=> true")
_chain(">=", ge2, "Whether numbers (or times) never increase.", "(>= 2 1 1) ;=> true")


@primitive("core", "==", "([x] [x & more])", "Whether numbers have the same value, whatever their kind.", "(== 1 1.0) ;=> true")
def same_number(x: Any, *more: Any) -> bool:
    """`==`."""
    alike = True
    for y in more:
        number("==", x)
        alike = alike and bool(x == number("==", y))
    return alike


def _pick(who: str, better: Callable[[Any, Any], bool], x: Any, more: tuple[Any, ...]) -> Any:
    for y in more:
        number(who, x)
        number(who, y)
        if x == x:
            x = y if y != y or not better(x, y) else x
    return x


@primitive("core", "max", "([x] [x & more])", "The greatest number; NaN if one is.", "(max 1 3 2) ;=> 3")
def greatest(x: Any, *more: Any) -> Any:
    """`max`."""
    return _pick("max", gt2, x, more)


@primitive("core", "min", "([x] [x & more])", "The least number; NaN if one is.", "(min 3 1 2) ;=> 1")
def least(x: Any, *more: Any) -> Any:
    """`min`."""
    return _pick("min", lt2, x, more)


def _truncated(who: str, a: Any, b: Any) -> tuple[Any, Any, Any]:
    """Both operands, and the quotient cut toward zero, as an integer or of the operands' kind."""
    a, b = _operands(who, a, b)
    if b == 0:
        raise zero_division(who)
    if type(a) is int:
        q = abs(a) // abs(b)
        return a, b, q if (a < 0) == (b < 0) else -q
    if type(a) is Decimal:
        return a, b, _decimal(who, _EXACT.divide_int, a, b)
    if not math.isfinite(a) or b != b:
        raise LispError(f"{who}: no result for {a} and {b}", type="arithmetic")
    return a, b, float(math.trunc(a / b)) if math.isfinite(a / b) else a / b


@primitive("core", "quot", "([n d])", "The quotient, cut toward zero.", "(quot -7 2) ;=> -3")
def quot(n: Any, d: Any) -> Any:
    """`quot`."""
    return _truncated("quot", n, d)[2]


@primitive("core", "rem", "([n d])", "The remainder of quot: it has the sign of n.", "(rem -7 2) ;=> -1")
def rem(n: Any, d: Any) -> Any:
    """`rem`."""
    a, b, q = _truncated("rem", n, d)
    if type(a) is float:
        return math.fmod(a, b) if math.isfinite(b) else math.nan
    return a - q * b if type(a) is int else _decimal("rem", _EXACT.remainder, a, b)


@primitive("core", "mod", "([n d])", "The remainder of division that rounds down: it has the sign of d.", "(mod -7 2) ;=> 1")
def mod(n: Any, d: Any) -> Any:
    """`mod`."""
    a, b = _operands("mod", n, d)
    if b == 0:
        raise zero_division("mod")
    if type(a) is int:
        return a % b
    r = rem(a, b)
    return r if r == 0 or r != r or (r > 0) == (b > 0) else add2(r, b)


@primitive("core", "abs", "([x])", "The absolute value.", "(abs -5) ;=> 5")
def absolute(x: Any) -> Any:
    """`abs`."""
    return x.copy_abs() if type(x) is Decimal else abs(number("abs", x))


@primitive("core", "zero?", "([x])", "Whether a number is zero.", "(zero? 0.0) ;=> true")
def is_zero(x: Any) -> bool:
    """`zero?`."""
    return bool(number("zero?", x) == 0)


@primitive("core", "pos?", "([x])", "Whether a number is greater than zero.", "(pos? 1) ;=> true")
def is_pos(x: Any) -> bool:
    """`pos?`."""
    return bool(number("pos?", x) > 0)


@primitive("core", "neg?", "([x])", "Whether a number is less than zero.", "(neg? -1) ;=> true")
def is_neg(x: Any) -> bool:
    """`neg?`."""
    return bool(number("neg?", x) < 0)


@primitive("core", "even?", "([n])", "Whether an integer is even.", "(even? 2) ;=> true")
def is_even(n: Any) -> bool:
    """`even?`."""
    return integer("even?", n) % 2 == 0


@primitive("core", "odd?", "([n])", "Whether an integer is odd.", "(odd? 2) ;=> false")
def is_odd(n: Any) -> bool:
    """`odd?`."""
    return integer("odd?", n) % 2 == 1


# Conversion


def to_integer(who: str, x: Any) -> int:
    """A number cut toward zero; a character is its code."""
    if type(x) is int:
        return x
    if type(x) is str and len(x) == 1:
        return ord(x)
    if type(x) not in NUMBERS:
        raise wrong(who, "a number or a character", x)
    if not math.isfinite(x):
        raise LispError(f"{who}: {x} is no integer", type="arithmetic")
    if type(x) is Decimal and x.adjusted() > 300_000:
        raise LispError(f"an integer of more than {MAX_BITS} bits is too large", type="limit")
    return int(x)


def _floats(*names: str) -> None:
    for name in names:

        @primitive("core", name, "([x])", "A number as a float.", f"({name} 1) ;=> 1.0")
        def convert(x: Any, name: str = name) -> float:
            return as_float(number(name, x))


_floats("double", "float")


@primitive("core", "bigdec", "([x])", "A number, or its text, as a decimal.", "(bigdec 1.5) ;=> 1.5M")
def bigdec(x: Any) -> Decimal:
    """`bigdec`."""
    if type(x) is Decimal:
        return x
    try:
        if type(x) is float and math.isfinite(x):
            return Decimal(repr(x))
        if type(x) in (int, str):
            return Decimal(x)
    except InvalidOperation:
        pass
    raise wrong("bigdec", "a finite number or its text", x)


@primitive("core", "num", "([x])", "The number itself; an error for anything else.", "(num 1) ;=> 1")
def num(x: Any) -> Any:
    """`num`."""
    return number("num", x)


# Bits


def _bits(name: str, op: Callable[[int, int], int], doc: str, example: str) -> None:
    @primitive("core", name, "([x y & more])", doc, example)
    def run(x: Any, y: Any, *more: Any) -> int:
        result = op(integer(name, x), integer(name, y))
        for z in more:
            result = op(result, integer(name, z))
        return result


_bits("bit-and", lambda a, b: a & b, "Bitwise and.", "(bit-and 12 10) ;=> 8")
_bits("bit-or", lambda a, b: a | b, "Bitwise or.", "(bit-or 12 10) ;=> 14")
_bits("bit-xor", lambda a, b: a ^ b, "Bitwise exclusive or.", "(bit-xor 12 10) ;=> 6")
_bits("bit-and-not", lambda a, b: a & ~b, "Bitwise and with the complement.", "(bit-and-not 12 10) ;=> 4")


@primitive("core", "bit-not", "([x])", "The complement of an integer.", "(bit-not 0) ;=> -1")
def bit_not(x: Any) -> int:
    """`bit-not`."""
    return ~integer("bit-not", x)


def _bit_index(who: str, n: Any) -> int:
    if not 0 <= integer(who, n) <= MAX_BITS:
        raise LispError(f"{who} needs a bit position from 0 to {MAX_BITS}, but was given {n}", type="value")
    return int(n)


@primitive("core", "bit-shift-left", "([x n])", "An integer times two to the n.", "(bit-shift-left 1 10) ;=> 1024")
def shift_left(x: Any, n: Any) -> int:
    """`bit-shift-left`."""
    return _sized(integer("bit-shift-left", x) << _bit_index("bit-shift-left", n))


@primitive("core", "bit-shift-right", "([x n])", "An integer divided by two to the n, rounded down.", "(bit-shift-right 1024 3) ;=> 128")
def shift_right(x: Any, n: Any) -> int:
    """`bit-shift-right`."""
    return integer("bit-shift-right", x) >> _bit_index("bit-shift-right", n)


@primitive("core", "unsigned-bit-shift-right", "([x n])", "A shift to the right of x as 64 unsigned bits.", "(unsigned-bit-shift-right -1 60) ;=> 15")
def unsigned_shift_right(x: Any, n: Any) -> int:
    """`unsigned-bit-shift-right`."""
    integer("unsigned-bit-shift-right", x)
    return (x % (1 << 64) if x < 0 else x) >> _bit_index("unsigned-bit-shift-right", n)  # type: ignore[no-any-return]


@primitive("core", "bit-test", "([x n])", "Whether bit n is set.", "(bit-test 5 2) ;=> true")
def bit_test(x: Any, n: Any) -> bool:
    """`bit-test`."""
    return bool(integer("bit-test", x) >> _bit_index("bit-test", n) & 1)


@primitive("core", "bit-set", "([x n])", "With bit n set.", "(bit-set 0 3) ;=> 8")
def bit_set(x: Any, n: Any) -> int:
    """`bit-set`."""
    return int(integer("bit-set", x) | 1 << _bit_index("bit-set", n))


@primitive("core", "bit-clear", "([x n])", "With bit n cleared.", "(bit-clear 15 0) ;=> 14")
def bit_clear(x: Any, n: Any) -> int:
    """`bit-clear`."""
    return int(integer("bit-clear", x) & ~(1 << _bit_index("bit-clear", n)))


@primitive("core", "bit-flip", "([x n])", "With bit n turned over.", "(bit-flip 8 3) ;=> 0")
def bit_flip(x: Any, n: Any) -> int:
    """`bit-flip`."""
    return int(integer("bit-flip", x) ^ 1 << _bit_index("bit-flip", n))

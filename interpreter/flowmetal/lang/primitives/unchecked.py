"""Arithmetic that wraps around at 64 or 32 bits, and the checked casts to sizes.

What goes in: integers (casts: any number, or a character). What comes out: integers that fit the size.
The one rule: everywhere else integers have no size; who wants Java's sizes asks for them by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang.primitives.checks import bad, integer, number, text
from flowmetal.lang.primitives.numbers import as_float, to_integer, zero_division
from flowmetal.lang.primitives.registry import primitive


def wrapped(x: int, bits: int) -> int:
    """`x` as a signed integer of so many bits."""
    half = 1 << (bits - 1)
    return (x + half) % (half << 1) - half


def _cast(name: str, bits: int) -> None:
    half = 1 << (bits - 1)

    @primitive(
        "core", name, "([x])", f"A number cut toward zero to an integer of {bits} bits; a character's code. Out of range is an error.", f"({name} 2.9) ;=> 2"
    )
    def convert(x: Any) -> int:
        n = to_integer(name, x)
        low, high = (-half, half - 1) if bits < 64 else (-half - 1, half)  # of 64 bits, what is cut off may be over
        if type(x) is not str and not (-half <= n < half and low <= x <= high):
            raise LispError(f"{name}: {x} does not fit in {bits} bits", type="value")
        return n


for _name, _size in (("byte", 8), ("short", 16), ("int", 32), ("long", 64)):
    _cast(_name, _size)


def _exact(name: str) -> None:
    @primitive("core", name, "([x])", "A number cut toward zero to an integer of any size; the integer that a string writes.", f"({name} 2.9) ;=> 2")
    def convert(x: Any) -> int:
        if type(x) is not str:
            return to_integer(name, x)
        digits = text(name, x).removeprefix("-") if x.startswith("-") else x.removeprefix("+")
        if not (digits.isascii() and digits.isdecimal() and len(digits) < 200_000):
            raise bad(f"{name}: {x[:60]!r} writes no integer")
        return int(x)


_exact("bigint")
_exact("biginteger")


def _unchecked_cast(name: str, bits: int) -> None:
    @primitive("core", f"unchecked-{name}", "([x])", f"A number as an integer of {bits} bits, cut to its lowest bits.", f"(unchecked-{name} 1) ;=> 1")
    def convert(x: Any) -> int:
        return wrapped(to_integer(f"unchecked-{name}", x), bits)


for _name, _size in (("byte", 8), ("short", 16), ("int", 32), ("long", 64)):
    _unchecked_cast(_name, _size)
primitive("core", "unchecked-double", "([x])", "Like double.", "(unchecked-double 1) ;=> 1.0")(lambda x: as_float(number("unchecked-double", x)))
primitive("core", "unchecked-float", "([x])", "Like double.", "(unchecked-float 1) ;=> 1.0")(lambda x: as_float(number("unchecked-float", x)))
primitive("core", "unchecked-char", "([x])", "The one-letter string of the lowest 16 bits.", '(unchecked-char 97) ;=> "a"')(
    lambda x: chr(to_integer("unchecked-char", x) % 65536)
)


def _two(name: str, op: Callable[[int, int], int], bits: int, doc: str, example: str) -> None:
    @primitive("core", name, "([x y])", f"{doc} It wraps around at {bits} bits.", example)
    def run(x: Any, y: Any) -> Any:
        if type(x) is float or type(y) is float:
            return op(as_float(number(name, x)), as_float(number(name, y)))  # type: ignore[arg-type]
        return wrapped(op(integer(name, x), integer(name, y)), bits)


def _one(name: str, op: Callable[[int], int], bits: int, doc: str, example: str) -> None:
    @primitive("core", name, "([x])", f"{doc} It wraps around at {bits} bits.", example)
    def run(x: Any) -> Any:
        return op(number(name, x)) if type(x) is float else wrapped(op(integer(name, x)), bits)


for _suffix, _size in (("", 64), ("-int", 32)):
    _two(f"unchecked-add{_suffix}", lambda x, y: x + y, _size, "The sum.", f"(unchecked-add{_suffix} 1 2) ;=> 3")
    _two(f"unchecked-subtract{_suffix}", lambda x, y: x - y, _size, "The difference.", f"(unchecked-subtract{_suffix} 1 2) ;=> -1")
    _two(f"unchecked-multiply{_suffix}", lambda x, y: x * y, _size, "The product.", f"(unchecked-multiply{_suffix} 2 3) ;=> 6")
    _one(f"unchecked-inc{_suffix}", lambda x: x + 1, _size, "One more.", f"(unchecked-inc{_suffix} 1) ;=> 2")
    _one(f"unchecked-dec{_suffix}", lambda x: x - 1, _size, "One less.", f"(unchecked-dec{_suffix} 1) ;=> 0")
    _one(f"unchecked-negate{_suffix}", lambda x: -x, _size, "The negation.", f"(unchecked-negate{_suffix} 1) ;=> -1")


def _cut(x: int, y: int) -> int:
    q = abs(x) // abs(y)
    return q if (x < 0) == (y < 0) else -q


def _division(name: str, op: Callable[[int, int], int], doc: str, example: str) -> None:
    @primitive("core", name, "([x y])", doc, example)
    def run(x: Any, y: Any) -> int:
        if integer(name, y) == 0:
            raise zero_division(name)
        return wrapped(op(integer(name, x), y), 32)


_division("unchecked-divide-int", _cut, "The quotient, cut toward zero, of 32 bits.", "(unchecked-divide-int 7 2) ;=> 3")
_division("unchecked-remainder-int", lambda x, y: x - y * _cut(x, y), "The remainder of unchecked-divide-int.", "(unchecked-remainder-int 7 2) ;=> 1")

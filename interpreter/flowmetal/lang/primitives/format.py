"""Java's format strings: `%[index$][flags][width][.precision]conversion`.

What goes in: a pattern and arguments. What comes out: text. The one rule: an argument of the wrong
kind, a missing argument or an unknown conversion is an error; widths are bounded.
"""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any, Final

from flowmetal.errors import LispError
from flowmetal.lang.primitives.checks import NUMBERS, bad, shown
from flowmetal.lang.printer import display_str

_SPEC: Final = re.compile(r"%(?:([0-9]+)\$)?([-#+ 0,(]*)([0-9]+)?(?:\.([0-9]+))?([a-zA-Z%])")
_WIDEST: Final = 10_000
_WIDE: Final = Context(prec=20_000)


def format_text(pattern: str, args: tuple[Any, ...]) -> str:
    """The pattern with its arguments put in."""
    out: list[str] = []
    at = following = 0
    while (percent := pattern.find("%", at)) >= 0:
        out.append(pattern[at:percent])
        m = _SPEC.match(pattern, percent)
        if m is None:
            raise bad(f"format: {pattern[percent : percent + 6]!r} is no conversion")
        at = m.end()
        index, flags, width, precision, conversion = m.groups()
        if int(width or 0) > _WIDEST or int(precision or 0) > _WIDEST:
            raise LispError(f"format: a width over {_WIDEST} is too large", type="limit")
        if conversion in "n%":
            piece = "\n" if conversion == "n" else "%"
        else:
            n = int(index) - 1 if index else following
            following += not index
            if not 0 <= n < len(args):
                raise bad(f"format: no argument for {m[0]}")
            piece = _convert(m[0], conversion, flags, precision, args[n])
            piece = _signed(piece, flags, width, args[n], conversion)
        out.append(_padded(piece, flags, width))
    out.append(pattern[at:])
    return "".join(out)


def _padded(piece: str, flags: str, width: str | None) -> str:
    n = int(width or 0)
    return piece.ljust(n) if "-" in flags else piece.rjust(n)


def _signed(piece: str, flags: str, width: str | None, x: Any, conversion: str) -> str:
    if conversion.lower() not in "dfeg" or x is None:
        return piece.rjust(int(width or 0), "0") if "0" in flags and conversion in "xXo" else piece
    negative = piece.startswith("-")
    digits = piece.lstrip("-")
    sign = "-" if negative else "+" if "+" in flags else " " if " " in flags else ""
    if "(" in flags and negative:
        return f"({digits})"
    if "0" in flags:
        digits = digits.rjust(int(width or 0) - len(sign), "0")
    return sign + digits


def _convert(spec: str, conversion: str, flags: str, precision: str | None, x: Any) -> str:
    kind = conversion.lower()
    if kind == "s":
        piece = "null" if x is None else display_str(x)
        piece = piece if precision is None else piece[: int(precision)]
    elif kind == "b":
        piece = "false" if x is None or x is False else "true"
    elif kind == "h":
        from flowmetal.lang.primitives.collections import stable_hash

        piece = f"{stable_hash(x):x}"
    elif x is None and kind in "dxofegc":
        piece = "null"
    elif kind == "c":
        piece = x if type(x) is str and len(x) == 1 else chr(_need_int(spec, x))
    elif kind in "dxo":
        n = _need_int(spec, x)
        piece = f"{n:,d}" if kind == "d" and "," in flags else f"{n:{kind}}"
        piece = ("0x" if kind == "x" else "0") + piece if "#" in flags and kind in "xo" else piece
    elif kind in "feg":
        piece = _decimals(spec, kind, flags, 6 if precision is None else int(precision), x)
    else:
        raise bad(f"format: unknown conversion {spec}")
    return piece.upper() if conversion.isupper() else piece


def _need_int(spec: str, x: Any) -> int:
    if type(x) is int:
        return x
    raise LispError(f"format: {spec} needs an integer, but was given {shown(x)}", type="type")


def _decimals(spec: str, kind: str, flags: str, precision: int, x: Any) -> str:
    if type(x) not in NUMBERS or type(x) is int:
        raise LispError(f"format: {spec} needs a float or a decimal, but was given {shown(x)}", type="type")
    if type(x) is float and (x != x or x in (float("inf"), float("-inf"))):
        return display_str(x)
    exact = Decimal(repr(x)) if type(x) is float else x
    if kind == "e":
        return f"{_round(exact, precision):.{precision}e}".replace("e+", "e+0" if _short(exact) else "e+").replace("e-", "e-0" if _short(exact) else "e-")
    if kind == "g":
        return f"{float(exact):.{max(precision, 1)}g}"
    rounded = exact.quantize(Decimal((0, (1,), -precision)), rounding=ROUND_HALF_UP, context=_WIDE)
    return f"{rounded:,f}" if "," in flags else f"{rounded:f}"


def _short(x: Decimal) -> bool:
    return abs(x.adjusted()) < 10 if x else True


def _round(x: Decimal, precision: int) -> Decimal:
    return Context(prec=precision + 1, rounding=ROUND_HALF_UP).plus(x)

"""The tokens of source text: one regular expression finds them, functions here give their values.

What goes in: text. What comes out: matches of `TOKEN`, and the number, name or string that a token
stands for. The one rule: a token that Clojure refuses is a `BadToken` here, never a guess.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Final

from flowmetal.lang.values import split_name

MAX_DIGITS: Final = 200_000
"""How long a number may be written: reading one takes time that grows with the square of its length."""

_STOP = r'\s,;"@^`~()\[\]{}\\'
TOKEN: Final = re.compile(
    rf"""
    (?:[\s,\ufeff]++|;[^\n]*+|\#![^\n]*+)*+
    (?:
      (?P<open>\#?[(\[{{]|\#:(?::?[^{_STOP}]*+)?[\s,]*+\{{)
    | (?P<close>[)\]}}])
    | (?P<string>"[^"\\]*+(?:\\.[^"\\]*+)*+")
    | (?P<number>[-+]?[0-9][^{_STOP}'\#%]*+)
    | (?P<name>[^{_STOP}\#'0-9][^{_STOP}]*+)
    | (?P<prefix>~@|\#['_^]|['@`~^])
    | (?P<regex>\#"[^"\\]*+(?:\\.[^"\\]*+)*+")
    | (?P<char>\\(?:[^\s,;"@^`~()\[\]{{}}\\]++|.))
    | (?P<symbolic>\#\#[^{_STOP}]*+)
    | (?P<tag>\#[^{_STOP}\#'%_=<?!:0-9][^{_STOP}]*+)
    | (?P<bad>\#?"|\#.?|.)
    | (?P<end>\Z)
    )""",
    re.VERBOSE | re.DOTALL,
)
OPEN, CLOSE, STRING, NUMBER, NAME, PREFIX, REGEX, CHAR, SYMBOLIC, TAG, BAD, END = range(1, 13)

_INTEGER = re.compile(r"([-+]?)(?:(0)|([1-9][0-9]*)|0[xX]([0-9A-Fa-f]+)|0([0-7]+)|([1-9][0-9]?)[rR]([0-9A-Za-z]+))N?", re.ASCII)
_FLOAT = re.compile(r"([-+]?[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?)(M)?", re.ASCII)
_RATIO = re.compile(r"([-+]?[0-9]+)/([0-9]+)", re.ASCII)
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|[0-7]{1,3}|.|\Z)", re.DOTALL)
_SIMPLE_ESCAPES: Final = {"t": "\t", "r": "\r", "n": "\n", "\\": "\\", '"': '"', "b": "\b", "f": "\f"}
_CHARACTERS: Final = {
    "newline": "\n", "space": " ", "tab": "\t", "backspace": "\b", "formfeed": "\f", "return": "\r",
}  # fmt: skip
_SURROGATES = re.compile("[\ud800-\udbff][\udc00-\udfff]")


class BadToken(Exception):
    """A token that means nothing; its text says why. The reader adds the place."""


def read_number(token: str) -> Any:
    """An integer, float or decimal. `1/2` is a float: there are no ratios."""
    if len(token) > MAX_DIGITS:
        raise BadToken(f"a number is written with at most {MAX_DIGITS} characters")
    m = _INTEGER.fullmatch(token)
    if m is not None:
        sign, zero, plain, hexadecimal, octal, radix, digits = m.groups()
        number = 0 if zero else int(plain) if plain else int(hexadecimal, 16) if hexadecimal else int(octal, 8) if octal else None
        if number is None:
            number = _in_radix(digits, int(radix), token)
        return -number if sign == "-" else number
    m = _FLOAT.fullmatch(token)
    if m is not None and ("." in token or "e" in token or "E" in token or m[2]):
        return _decimal(m[1]) if m[2] else float(m[1])
    m = _RATIO.fullmatch(token)
    if m is not None and int(m[2]):
        over, under = int(m[1]), int(m[2])
        return over // under if over % under == 0 else over / under
    raise BadToken(f"invalid number: {token}")


def _in_radix(digits: str, radix: int, token: str) -> int:
    try:
        return int(digits, radix) if radix <= 36 else int("", 10)
    except ValueError:
        raise BadToken(f"invalid number: {token}") from None


def _decimal(text: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise BadToken(f"invalid number: {text}M") from None
    if not number.is_finite():
        raise BadToken(f"a decimal of this size is out of range: {text}M")
    return number


@lru_cache(maxsize=16_384)
def read_name(token: str) -> tuple[str | None, str]:
    """The namespace and name of a symbol's token, or of a keyword's without its colon."""
    ns, name = split_name(token)
    if not name or token.endswith(":") or "::" in token or (token[0] == "/" and token != "/"):
        raise BadToken(f"invalid name: {token}")
    if ns is not None and (ns.endswith(":") or (name[0] == "/" and name != "/") or (name[-1] == "/" and name != "/")):
        raise BadToken(f"invalid name: {token}")
    if ns is None and token[-1] == "/" and token != "/":
        raise BadToken(f"invalid name: {token}")
    return ns, name


def read_string(token: str) -> str:
    """The text of a string literal, with its quotes."""
    body = token[1:-1]
    if "\\" not in body:
        return body
    text = _ESCAPE.sub(_unescape, body)
    return _SURROGATES.sub(lambda m: m[0].encode("utf-16", "surrogatepass").decode("utf-16"), text)


def _unescape(m: re.Match[str]) -> str:
    escape = m[1]
    simple = _SIMPLE_ESCAPES.get(escape)
    if simple is not None:
        return simple
    if escape[0] == "u" and len(escape) == 5:
        return chr(int(escape[1:], 16))
    if escape[0] in "01234567":
        code = int(escape, 8)
        if code > 0o377:
            raise BadToken(f"octal escape \\{escape} is above \\377")
        return chr(code)
    if escape == "u":
        raise BadToken("\\u needs four hexadecimal digits")
    raise BadToken(f'unsupported escape: \\{escape}; known are \\n \\t \\r \\b \\f \\\\ \\" and \\u with four digits, and in a regex #"…" none is needed')


def read_character(token: str) -> str:
    """A character literal, `\\a` or `\\newline`: a one-letter string."""
    body = token[1:]
    if len(body) == 1:
        return body
    if body in _CHARACTERS:
        return _CHARACTERS[body]
    if re.fullmatch("u[0-9A-Fa-f]{4}", body):
        return chr(int(body[1:], 16))
    if re.fullmatch("o[0-7]{1,3}", body) and int(body[1:], 8) <= 0o377:
        return chr(int(body[1:], 8))
    raise BadToken(f"unsupported character: {token}; a character is one letter, or one of {' '.join(chr(92) + c for c in _CHARACTERS)}")

"""Strings: text of values, and the namespace `str`.

What goes in: strings; `str` and its like take any value. What comes out: new strings. The one rule:
an index never wraps, and what is no string is an error, except where Clojure's function takes any.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from flowmetal.errors import LispError
from flowmetal.lang.lists import List
from flowmetal.lang.maps import Map, Set
from flowmetal.lang.primitives.checks import LIMIT, bad, integer, shown, text, too_large, wrong
from flowmetal.lang.primitives.format import format_text
from flowmetal.lang.primitives.registry import primitive
from flowmetal.lang.primitives.sequences import items_of
from flowmetal.lang.printer import display_str, pr_str, print_str
from flowmetal.lang.secrets import Secret, joined
from flowmetal.lang.values import Regex
from flowmetal.lang.vectors import Vector

_TO_THE_END: Final = object()
_SPACE: Final = " \t\n\r\f\v\x1c\x1d\x1e\x1f\u2028\u2029\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2008\u2009\u200a\u205f\u3000"


@primitive("core", "str", "([& xs])", "The text of all arguments in one; of nil, none.", '(str "a" 1 nil :b) ;=> "a1:b"')
def str_(*xs: Any) -> Any:
    """`str`."""
    if Secret in map(type, xs):
        return joined([x if type(x) is Secret else display_str(x) for x in xs])
    return "".join(map(display_str, xs))


@primitive("core", "pr-str", "([& xs])", "The text that reads back as the values.", '(pr-str "a" [1]) ;=> "\\"a\\" [1]"')
def pr_str_(*xs: Any) -> str:
    """`pr-str`."""
    return " ".join(map(pr_str, xs))


@primitive("core", "prn-str", "([& xs])", "pr-str and a newline.", '(prn-str 1) ;=> "1\\n"')
def prn_str(*xs: Any) -> str:
    """`prn-str`."""
    return pr_str_(*xs) + "\n"  # type: ignore[no-any-return]


@primitive("core", "print-str", "([& xs])", "What print prints.", '(print-str "a" ["b"]) ;=> "a [b]"')
def print_str_(*xs: Any) -> str:
    """`print-str`."""
    return " ".join(map(print_str, xs))


@primitive("core", "println-str", "([& xs])", "What println prints.", '(println-str "a") ;=> "a\\n"')
def println_str(*xs: Any) -> str:
    """`println-str`."""
    return print_str_(*xs) + "\n"  # type: ignore[no-any-return]


@primitive(
    "core",
    "format",
    "([pattern & args])",
    "Text with arguments put in, as Java's format: %s %d %x %.2f %5d %-5s %,d %e %b %c %%.",
    '(format "%s is %.2f" "pi" 3.14159) ;=> "pi is 3.14"',
)
def format_(pattern: Any, *args: Any) -> str:
    """`format`."""
    return format_text(text("format", pattern), args)


@primitive("core", "subs", "([s start] [s start end])", "The part of a string from start up to, not including, end.", '(subs "hello" 1 3) ;=> "el"')
def subs(s: Any, start: Any, end: Any = _TO_THE_END) -> str:
    """`subs`."""
    size = len(text("subs", s))
    stop = size if end is _TO_THE_END else integer("subs", end)
    if not 0 <= integer("subs", start) <= stop <= size:
        raise LispError(f"subs: {start} to {stop} is out of range for a string of {size}", type="index")
    return str(s[start:stop])


# Parsing


def _all_in(s: str, letters: str) -> bool:
    return bool(s) and all(c in letters for c in s)


def _unsigned(s: str) -> str:
    return s[1:] if s[:1] in ("+", "-") else s


@primitive("core", "parse-long", "([s])", "The integer that a string writes; nil for bad text.", '(parse-long "42") ;=> 42')
def parse_long(s: Any) -> int | None:
    """`parse-long`."""
    return int(s) if _all_in(_unsigned(text("parse-long", s)), "0123456789") else None


@primitive("core", "parse-double", "([s])", "The float that a string writes; nil for bad text.", '(parse-double "1.5") ;=> 1.5')
def parse_double(s: Any) -> float | None:
    """`parse-double`."""
    trimmed = text("parse-double", s).strip(_SPACE)
    body = _unsigned(trimmed)
    if body in ("NaN", "Infinity"):
        return float(trimmed)
    body = body[:-1] if body[-1:] in ("d", "D", "f", "F") else body
    mantissa, _, exponent = body.lower().partition("e")
    if "e" in body.lower() and not _all_in(_unsigned(exponent), "0123456789"):
        return None
    if not _all_in(mantissa.replace(".", "", 1), "0123456789"):
        return None
    return float(trimmed.rstrip("dDfF"))


@primitive("core", "parse-boolean", "([s])", 'true of "true", false of "false", else nil.', '(parse-boolean "true") ;=> true')
def parse_boolean(s: Any) -> bool | None:
    """`parse-boolean`."""
    return {"true": True, "false": False}.get(text("parse-boolean", s))


@primitive("core", "parse-decimal", "([s])", "The decimal that a string writes; nil for bad text.", '(parse-decimal "1.10") ;=> 1.10M')
def parse_decimal(s: Any) -> Decimal | None:
    """`parse-decimal`."""
    if not _all_in(text("parse-decimal", s), "0123456789.eE+-"):
        return None
    try:
        return Decimal(s)
    except InvalidOperation:
        return None


# The namespace str


def _text(name: str, change: Callable[[str], Any], doc: str, example: str) -> None:
    primitive("str", name, "([s])", doc, example)(lambda s: change(as_text(f"str/{name}", s)))


def as_text(who: str, s: Any) -> str:
    """The text that a function of `str` works on: of any value but nil, what `str` gives."""
    if type(s) is str:
        return s
    if s is None or type(s) is Secret:
        raise wrong(who, "a string", s)
    return display_str(s)


def _capitalize(s: str) -> str:
    return s[:1].upper() + s[1:].lower()


_text("upper-case", str.upper, "In capitals.", '(str/upper-case "ab") ;=> "AB"')
_text("lower-case", str.lower, "In small letters.", '(str/lower-case "AB") ;=> "ab"')
_text("capitalize", _capitalize, "The first letter a capital, the others small.", '(str/capitalize "aBC") ;=> "Abc"')
_text("trim", lambda s: s.strip(_SPACE), "Without white space at both ends.", '(str/trim " a ") ;=> "a"')
_text("triml", lambda s: s.lstrip(_SPACE), "Without white space at the start.", '(str/triml " a") ;=> "a"')
_text("trimr", lambda s: s.rstrip(_SPACE), "Without white space at the end.", '(str/trimr "a ") ;=> "a"')
_text("trim-newline", lambda s: s.rstrip("\r\n"), "Without newlines at the end.", '(str/trim-newline "a\\n") ;=> "a"')


@primitive("str", "reverse", "([s])", "The letters, last first.", '(str/reverse "abc") ;=> "cba"')
def reverse(s: Any) -> str:
    """`str/reverse`."""
    return text("str/reverse", s)[::-1]


@primitive("str", "blank?", "([s])", "Whether a string is nil, empty or only white space.", '(str/blank? " ") ;=> true')
def is_blank(s: Any) -> bool:
    """`str/blank?`."""
    return s is None or not text("str/blank?", s).strip(_SPACE)


@primitive("str", "join", "([coll] [separator coll])", "The text of all elements in one, with a separator between.", '(str/join ", " [1 2]) ;=> "1, 2"')
def join(*args: Any) -> str:
    """`str/join`."""
    if not 1 <= len(args) <= 2:
        raise LispError(f"str/join takes 1 or 2 arguments, but was given {len(args)}: ([coll] [separator coll])", type="arity")
    separator = "" if len(args) == 1 else display_str(args[0])
    items = list(items_of("str/join", args[-1]))
    hidden = next((x for x in items if type(x) is Secret), None)
    if hidden is not None:
        raise wrong("str/join", "text", hidden)
    return separator.join(map(display_str, items))


def _two(name: str, test: Callable[[str, str], Any], args: str, doc: str, example: str) -> None:
    @primitive("str", name, args, doc, example)
    def run(s: Any, part: Any) -> Any:
        return test(as_text(f"str/{name}", s), text(f"str/{name}", part))


_two("starts-with?", str.startswith, "([s part])", "Whether s begins with part.", '(str/starts-with? "abc" "ab") ;=> true')
_two("ends-with?", str.endswith, "([s part])", "Whether s ends with part.", '(str/ends-with? "abc" "bc") ;=> true')
_two("includes?", lambda s, part: part in s, "([s part])", "Whether part occurs in s.", '(str/includes? "abc" "b") ;=> true')


@primitive("str", "index-of", "([s part] [s part from])", "Where part first occurs in s, or nil.", '(str/index-of "abcb" "b") ;=> 1')
def index_of(s: Any, part: Any, start: Any = 0) -> int | None:
    """`str/index-of`."""
    found = as_text("str/index-of", s).find(text("str/index-of", part), max(integer("str/index-of", start), 0))
    return None if found < 0 else found


@primitive("str", "last-index-of", "([s part] [s part from])", "Where part last occurs in s, or nil.", '(str/last-index-of "abcb" "b") ;=> 3')
def last_index_of(s: Any, part: Any, start: Any = None) -> int | None:
    """`str/last-index-of`."""
    s, part = as_text("str/last-index-of", s), text("str/last-index-of", part)
    if start is not None and integer("str/last-index-of", start) < 0:
        return None
    found = s.rfind(part) if start is None else s.rfind(part, 0, start + len(part))
    return None if found < 0 else found


@primitive("str", "split-lines", "([s])", "The lines of a string.", '(str/split-lines "a\\nb") ;=> ["a" "b"]')
def split_lines(s: Any) -> Vector:
    """`str/split-lines`."""
    parts = text("str/split-lines", s).replace("\r\n", "\n").split("\n")
    while parts and not parts[-1]:
        parts.pop()
    return Vector.of(parts if parts or s else [""])


@primitive("str", "repeat", "([s n])", "The string n times.", '(str/repeat "ab" 2) ;=> "abab"')
def repeat(s: Any, n: Any) -> str:
    """`str/repeat`."""
    if len(text("str/repeat", s)) * integer("str/repeat", n) > LIMIT:
        raise too_large("str/repeat")
    return str(s * n)


@primitive(
    "str", "escape", "([s cmap])", "With letters replaced by what a map (or another leaf) gives for them.", '(str/escape "a<b" {"<" "&lt;"}) ;=> "a&lt;b"'
)
def escape(s: Any, cmap: Any) -> str:
    """`str/escape`."""
    from flowmetal.lang.primitives.leaf_calls import leaf_callable

    call = leaf_callable(cmap)
    return "".join(c if (new := call(c)) is None else display_str(new) for c in text("str/escape", s))


@primitive("str", "pad-left", "([s width] [s width pad])", "With pad (a space) in front up to a width.", '(str/pad-left "7" 3 "0") ;=> "007"')
def pad_left(s: Any, width: Any, pad: Any = " ") -> str:
    """`str/pad-left`."""
    return as_text("str/pad-left", s).rjust(_width("str/pad-left", width), _one("str/pad-left", pad))


@primitive("str", "pad-right", "([s width] [s width pad])", "With pad (a space) behind up to a width.", '(str/pad-right "7" 3 ".") ;=> "7.."')
def pad_right(s: Any, width: Any, pad: Any = " ") -> str:
    """`str/pad-right`."""
    return as_text("str/pad-right", s).ljust(_width("str/pad-right", width), _one("str/pad-right", pad))


def _width(who: str, x: Any) -> int:
    if integer(who, x) > LIMIT:
        raise too_large(who)
    return int(x)


def _one(who: str, x: Any) -> str:
    if len(text(who, x)) != 1:
        raise bad(f"{who} needs one letter to pad with, but was given {shown(x)}")
    return str(x)


# Bytes


@primitive("core", "string->bytes", "([s])", "The UTF-8 bytes of a string.", '(string->bytes "a") ;=> #b64 "YQ=="')
def to_bytes(s: Any) -> bytes:
    """`string->bytes`."""
    return text("string->bytes", s).encode("utf-8", "surrogatepass")


@primitive("core", "bytes->string", "([b])", "The string that UTF-8 bytes write.", '(bytes->string #b64 "YQ==") ;=> "a"')
def from_bytes(b: Any) -> str:
    """`bytes->string`."""
    if type(b) is not bytes:
        raise wrong("bytes->string", "bytes", b)
    try:
        return b.decode("utf-8")
    except UnicodeDecodeError as e:
        raise bad(f"bytes->string: not UTF-8: {e.reason} at byte {e.start}") from None


@primitive("core", "char", "([x])", "The one-letter string of a code point.", '(char 97) ;=> "a"')
def char(x: Any) -> str:
    """`char`."""
    if type(x) is str and len(x) == 1:
        return x
    if not 0 <= integer("char", x) < 0x110000:
        raise bad(f"char: {x} is no code point")
    return chr(x)


__all__ = ["List", "Map", "Regex", "Set", "as_text"]

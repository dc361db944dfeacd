"""Regular expressions, on RE2: time linear in the text, so no look-around and no back-references.

What goes in: a regex and a string. What comes out: the matched string, or a vector of it and its
groups when there are groups, nil for one that did not match. The one rule: offsets are of letters,
and a bad pattern is an error when it is made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any, Final

from flowmetal.errors import LispError
from flowmetal.lang.primitives.checks import bad, integer, text, wrong
from flowmetal.lang.primitives.leaf_calls import is_leaf, leaf_callable
from flowmetal.lang.primitives.registry import leaf_loop, primitive
from flowmetal.lang.primitives.sequences import sequence
from flowmetal.lang.primitives.strings import as_text
from flowmetal.lang.printer import display_str
from flowmetal.lang.values import Regex
from flowmetal.lang.vectors import Vector

_REFERENCE: Final = re.compile(r"\\(.)|\$(?:([0-9])|\{([A-Za-z][A-Za-z0-9]*)\})|(\$)|(\\)$", re.DOTALL)


def _regex(who: str, x: Any) -> Any:
    if type(x) is not Regex:
        raise wrong(who, "a regex", x)
    return x.compiled


def _subject(who: str, s: Any) -> str:
    """The string that is searched: one that UTF-8 can write."""
    try:
        text(who, s).encode("utf-8")
    except UnicodeEncodeError:
        raise bad(f"{who}: the string holds half of a surrogate pair, which is no letter") from None
    return str(s)


def _groups(m: Any) -> Any:
    return Vector.of((m[0], *m.groups())) if m.groups() else m[0]


@primitive("core", "re-pattern", "([s])", "A regex of a string.", '(re-find (re-pattern "b+") "abb") ;=> "bb"')
def re_pattern(s: Any) -> Regex:
    """`re-pattern`."""
    if type(s) is Regex:
        return s
    made = Regex(text("re-pattern", s))
    _regex("re-pattern", made)
    return made


@primitive(
    "core", "re-find", "([re s])", "The first match in a string, or nil; a vector when there are groups.", '(re-find #"(\\d)(\\d)" "a42") ;=> ["42" "4" "2"]'
)
def re_find(pattern: Any, s: Any) -> Any:
    """`re-find`."""
    m = _regex("re-find", pattern).search(_subject("re-find", s))
    return None if m is None else _groups(m)


@primitive("core", "re-matches", "([re s])", "The match of the whole string, or nil; a vector when there are groups.", '(re-matches #"a+" "aab") ;=> nil')
def re_matches(pattern: Any, s: Any) -> Any:
    """`re-matches`."""
    m = _regex("re-matches", pattern).fullmatch(_subject("re-matches", s))
    return None if m is None else _groups(m)


@primitive("core", "re-seq", "([re s])", "All matches in a string; nil when there are none.", '(re-seq #"\\d" "a1b2") ;=> ("1" "2")')
def re_seq(pattern: Any, s: Any) -> Any:
    """`re-seq`."""
    return sequence(_groups(m) for m in _regex("re-seq", pattern).finditer(_subject("re-seq", s))) or None


@primitive("core", "re-groups*", "([re s])", "Every match: [start end groups], for the prelude.")
def re_groups(pattern: Any, s: Any) -> Vector:
    """`re-groups*`."""
    return Vector.of(Vector.of((m.start(), m.end(), _groups(m))) for m in _regex("str/replace", pattern).finditer(_subject("str/replace", s)))


# The namespace str, as far as it takes regexes


@primitive(
    "str",
    "split",
    "([s re] [s re limit])",
    "The parts between matches; empty ones at the end are dropped unless limit is negative.",
    '(str/split "a,b,,c,," #",") ;=> ["a" "b" "" "c"]',
)
def split(s: Any, pattern: Any, limit: Any = 0) -> Vector:
    """`str/split`."""
    s = as_text("str/split", s)
    integer("str/split", limit)
    if type(pattern) is str:
        pattern = Regex(re.escape(pattern))
    parts: list[str] = []
    at = 0
    for m in _regex("str/split", pattern).finditer(_subject("str/split", s)):
        if limit > 0 and len(parts) == limit - 1:
            break
        if m.end() == 0 or (m.start() == m.end() == len(s)):
            continue
        parts.append(s[at : m.start()])
        at = m.end()
    parts.append(s[at:])
    while limit == 0 and len(parts) > 1 and not parts[-1]:
        parts.pop()
    return Vector.of(parts if limit != 0 or parts != [""] or not s else [])


def expand_template(template: str, m: Any) -> str:
    """A replacement with `$1` and `${name}` filled in from a match; a backslash takes the next letter as it is."""

    def fill(r: re.Match[str]) -> str:
        escaped, number, name, stray, _ = r.groups()
        if escaped is not None:
            return escaped
        if number is None and name is None:
            raise LispError(f"a replacement needs a group's number after $: {stray or chr(92)}", type="value", hint="write \\$ for the sign itself")
        try:
            return m[int(number)] or "" if number is not None else m[name] or ""
        except (IndexError, KeyError):
            raise LispError(f"the regex has no group {number or name}", type="index") from None

    return _REFERENCE.sub(fill, template)


def _replacer(replacement: Any) -> Callable[[Any], str]:
    if type(replacement) is str:
        return lambda m: expand_template(replacement, m)
    if type(replacement) is FunctionType or is_leaf(replacement):
        call = leaf_callable(replacement)
        return lambda m: _text(call(_groups(m)))
    raise wrong("str/replace with a regex", "a string or a function as the replacement", replacement)


def _text(x: Any) -> str:
    if x is None:
        raise wrong("str/replace", "a function that gives strings", x)
    return display_str(x)


def _sub(s: str, matches: Iterator[Any], new: Callable[[Any], str], once: bool) -> str:
    out: list[str] = []
    at = 0
    for m in matches:
        out += [s[at : m.start()], new(m)]
        at = m.end()
        if once:
            break
    return "".join([*out, s[at:]])


def _replace(name: str, once: bool) -> Callable[[Any, Any, Any], str]:
    who = f"str/{name}"

    def run(s: Any, match: Any, replacement: Any) -> str:
        s = as_text(who, s)
        if type(match) is str:
            return str(s.replace(match, text(who, replacement), 1 if once else -1))
        return _sub(s, _regex(who, match).finditer(_subject(who, s)), _replacer(replacement), once)

    return run


replace = leaf_loop("replace*", "([s match replacement])", "str/replace with a string, map or leaf.", ns="str", at=2)(_replace("replace", False))
replace_first = leaf_loop("replace-first*", "([s match replacement])", "str/replace-first with a string, map or leaf.", ns="str", at=2)(
    _replace("replace-first", True)
)


@primitive("str", "splice*", "([s matches replacements])", "The string with matches (of re-groups*) replaced.")
def splice(s: Any, matches: Any, replacements: Any) -> str:
    """`splice*`."""
    out: list[str] = []
    at = 0
    for m, new in zip(matches, replacements, strict=True):
        out += [s[at : m.nth(0)], _text(new)]
        at = m.nth(1)
    return "".join([*out, s[at:]])


@primitive(
    "str", "re-quote-replacement", "([s])", "A replacement that is put in as it is, without $ and backslash.", '(str/re-quote-replacement "$1") ;=> "\\\\$1"'
)
def quote_replacement(s: Any) -> str:
    """`str/re-quote-replacement`."""
    return text("str/re-quote-replacement", s).replace("\\", "\\\\").replace("$", "\\$")


@primitive("str", "re-quote", "([s])", "The text of a regex that matches a string as it is.", '(re-find (re-pattern (str/re-quote "a.b")) "a.b") ;=> "a.b"')
def quote(s: Any) -> str:
    """`str/re-quote`."""
    return re.escape(text("str/re-quote", s))

"""Source text to forms.

What goes in: a `Source`, and the namespace and aliases that `::names` resolve in. What comes out:
forms, one at a time, with their spans. The one rule: reading makes data and runs nothing; a text
nested too deep is a `limit` error, never a crash.

Open brackets and prefixes (`'`, `^`, `#_`, a tag …) are levels on a stack. A finished form is given
to the innermost level: a bracket keeps it, a prefix wraps it and gives the result on.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from flowmetal.errors import LispError, SourceError
from flowmetal.lang import tokens
from flowmetal.lang.lists import Cons, List, list_of
from flowmetal.lang.maps import EMPTY_MAP, Map, Set
from flowmetal.lang.printer import pr_str
from flowmetal.lang.spans import Source, Span
from flowmetal.lang.structure import Structure, key_of
from flowmetal.lang.tagged import read_tagged
from flowmetal.lang.tokens import TOKEN, BadToken
from flowmetal.lang.values import Keyword, Regex, Symbol, keyword, kw, sym
from flowmetal.lang.vectors import Vector

MAX_DEPTH: Final = 100_000
"""How deep forms may be nested."""
MAX_FN_ARGS: Final = 20

_CLOSERS: Final = {"(": ")", "[": "]", "{": "}", "#(": ")", "#{": "}"}
_WRAPPERS: Final = {
    "'": sym("quote"), "@": sym("deref"), "`": sym("syntax-quote"), "~": sym("unquote"), "~@": sym("unquote-splicing"),
    "#'": sym("var"),
}  # fmt: skip
_CONSTANTS: Final = {"nil": None, "true": True, "false": False}
_SYMBOLIC: Final = {"##Inf": math.inf, "##-Inf": -math.inf, "##NaN": math.nan}
_FN: Final = sym("fn")
_REST: Final = sym("&")
_NOTHING: Final = object()


class _Level:
    """An open bracket, or a prefix that waits for its form."""

    __slots__ = ("end", "forms", "kind", "start")

    def __init__(self, kind: str, start: int, end: int) -> None:
        self.kind = kind
        self.start = start
        self.end = end
        self.forms: list[Any] = []


class Reader:
    """Iterates over the top-level forms of a source.

    `ns` and `aliases` may be changed between two forms. `last_span` and `last_text` belong to the
    form that was read last.
    """

    def __init__(
        self, source: Source, *, ns: str = "user", aliases: Mapping[str, str] | None = None, edn: bool = False,
        unknown_tag: Callable[[str, Any], Any] | None = None, own_tags: frozenset[str] = frozenset(),
    ) -> None:  # fmt: skip
        """`edn` allows data only, none of the abbreviations of code; `unknown_tag` gives the value of an unknown tag, and of `own_tags`."""
        self.source = source
        self.edn = edn
        self.unknown_tag = unknown_tag
        self.own_tags = own_tags
        self.ns = ns
        self.aliases: Mapping[str, str] = aliases if aliases is not None else {}
        self.last_span: Span | None = None
        self.last_text = ""
        self._pos = 0
        self._line = 0
        self._levels: list[_Level] = []
        self._last_form: Any = None
        self._fn_args: list[int] | None = None
        # of the #() that is being read: its greatest argument, and whether it has %&

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        form = self._read()
        if form is _NOTHING:
            raise StopIteration
        return form

    def _read(self) -> Any:
        """The next top-level form, or `_NOTHING` at the end."""
        text, match, levels = self.source.text, TOKEN.match, self._levels
        levels.clear()
        self._fn_args = None
        while True:
            m = match(text, self._pos)
            assert m is not None
            kind = m.lastindex or 0
            start, end = m.span(kind)
            self._pos = end
            try:
                if kind == tokens.NAME:
                    form = self._name(m[kind], start, end)
                elif kind == tokens.OPEN:
                    self._open(m[kind], start, end)
                    continue
                elif kind == tokens.CLOSE:
                    start, form = self._close(m[kind], start, end)
                elif kind == tokens.PREFIX or kind == tokens.TAG:
                    if self.edn and m[kind] in _NOT_EDN:
                        raise BadToken(f"{m[kind]} has no meaning in EDN")
                    self._push(m[kind], start, end)
                    continue
                elif kind == tokens.END:
                    if not levels:
                        return _NOTHING
                    raise self._unfinished(levels[-1])
                else:
                    form = self._atom(kind, m[kind], start, end)
                if self._deliver(form, start, end):
                    continue
            except BadToken as e:
                raise self._error(str(e), start, end) from None
            return self._last_form

    def _deliver(self, form: Any, start: int, end: int) -> bool:
        """Gives a finished form to the innermost level; false when it was a top-level form."""
        levels = self._levels
        while levels:
            level = levels[-1]
            kind = level.kind
            if kind in _CLOSERS or kind.startswith("#:"):
                level.forms.append(form)
                return True
            if kind == "^" or kind == "#^":
                level.forms.append(form)
                if len(level.forms) < 2:
                    return True
                form = self._apply(level, end, *level.forms)
            elif kind == "#_":
                levels.pop()
                return True
            elif kind in _WRAPPERS:
                form = Cons(_WRAPPERS[kind], list_of((form,)))
                form.span = self._span(level.start, end)
            else:
                form = self._apply(level, end, form)
            levels.pop()
            start = level.start
        self._last_form = form
        self.last_text = self.source.text[start:end]
        self.last_span = self._span(start, end)
        return False

    def _apply(self, level: _Level, end: int, *forms: Any) -> Any:
        """The value of a tag, or of `^`, with its forms."""
        try:
            if len(forms) == 2:
                return self._with_meta(*forms)
            tag = level.kind[1:]
            if tag in self.own_tags and self.unknown_tag is not None:
                return self.unknown_tag(tag, forms[0])
            return read_tagged(tag, forms[0], self.unknown_tag)
        except BadToken as e:
            raise self._error(str(e), level.start, end) from None

    # Atoms

    def _name(self, token: str, start: int, end: int) -> Any:
        if token[0] == ":":
            return self._keyword(token)
        if token in _CONSTANTS:
            return _CONSTANTS[token]
        if self._fn_args is not None and token[0] == "%":
            token = self._fn_arg(token)
        ns, name = tokens.read_name(token)
        return Symbol(ns, name, None, self._span(start, end))

    def _keyword(self, token: str) -> Keyword:
        if token[1:2] != ":":
            if token == ":":
                raise BadToken("a keyword needs a name: :")
            ns, name = tokens.read_name(token[1:])
            return keyword(ns, name)
        if len(token) == 2:
            raise BadToken("a keyword needs a name: ::")
        if self.edn:
            raise BadToken(f"a keyword of EDN begins with one colon: {token}")
        ns, name = tokens.read_name(token[2:])
        return keyword(self.ns if ns is None else self._alias(ns), name)

    def _alias(self, alias: str) -> str:
        found = self.aliases.get(alias)
        if found is None:
            raise BadToken(f"no namespace has the alias {alias} here")
        return found

    def _fn_arg(self, token: str) -> str:
        assert self._fn_args is not None
        rest = token[1:]
        if rest == "&":
            self._fn_args[1] = 1
            return token
        number = 1 if not rest else int(rest) if rest.isdecimal() and rest.isascii() and len(rest) < 4 else 0
        if number > MAX_FN_ARGS:
            raise BadToken(f"#() takes at most {MAX_FN_ARGS} arguments")
        if number < 1:
            raise BadToken(f"an argument of #() is %, %1 to %{MAX_FN_ARGS} or %&, not {token}")
        self._fn_args[0] = max(self._fn_args[0], number)
        return f"%{number}"

    def _atom(self, kind: int, token: str, start: int, end: int) -> Any:
        if kind == tokens.STRING:
            return tokens.read_string(token)
        if kind == tokens.NUMBER:
            return tokens.read_number(token)
        if kind == tokens.REGEX and not self.edn:
            return self._regex(token)
        if kind == tokens.CHAR:
            return tokens.read_character(token)
        if kind == tokens.SYMBOLIC:
            if token not in _SYMBOLIC:
                raise BadToken(f"unknown symbolic value {token}; known are ##Inf ##-Inf ##NaN")
            return _SYMBOLIC[token]
        raise self._bad(token, start, end)

    def _regex(self, token: str) -> Regex:
        regex = Regex(token[2:-1])
        try:
            _ = regex.compiled
        except LispError as e:
            raise BadToken(e.message if e.hint is None else f"{e.message}. {e.hint}") from None
        return regex

    # Levels

    def _push(self, kind: str, start: int, end: int) -> None:
        if len(self._levels) >= MAX_DEPTH:
            raise self._error(f"forms are nested more than {MAX_DEPTH} deep", start, end, type="limit")
        self._levels.append(_Level(kind, start, end))

    def _open(self, kind: str, start: int, end: int) -> None:
        if kind == "#(":
            if self.edn:
                raise BadToken("#( has no meaning in EDN")
            if self._fn_args is not None:
                raise BadToken("#() cannot stand inside another #(): write (fn [x] …)")
            self._fn_args = [0, 0]
        elif kind == "#[":
            raise BadToken("#[ means nothing here")
        elif kind.startswith("#:"):
            kind = self._map_namespace(kind)
        self._push(kind, start, end)

    def _map_namespace(self, token: str) -> str:
        name = token[2:-1].rstrip(" \t\r\n,")
        if not name.startswith(":"):
            if not name or "/" in name:
                raise BadToken(f"a namespaced map needs a namespace: {token}")
            tokens.read_name(name)
            return f"#:{name}"
        return f"#:{self._alias(name[1:]) if len(name) > 1 else self.ns}"

    def _close(self, token: str, start: int, end: int) -> tuple[int, Any]:
        if not self._levels:
            raise self._error(f"there is nothing to close with {token}", start, end)
        level = self._levels[-1]
        closer = _CLOSERS.get(level.kind, "}" if level.kind.startswith("#:") else "")
        if not closer:
            raise self._error(f"{level.kind} needs a form after it", level.start, level.end)
        if closer != token:
            at = self._span(level.start, level.end)
            opened = self.source.text[level.start : level.end]
            raise self._error(f"expected {closer} to close the {opened} of line {at.line}, but found {token}", start, end)
        self._levels.pop()
        form = self._collection(level, end)
        form.span = self._span(level.start, end)
        return level.start, form

    def _collection(self, level: _Level, end: int) -> Structure:
        kind, forms = level.kind, level.forms
        if kind == "(":
            return list_of(forms) if forms else Cons(None, None)
        if kind == "[":
            return Vector.of(forms)
        if kind == "#(":
            return self._fn_literal(level, end)
        if kind == "#{":
            self._refuse_duplicates(forms, level, end, "set")
            return Set.of(forms)
        if len(forms) % 2:
            raise self._error("a map needs a value for each key: it has an odd number of forms", level.start, end)
        keys = forms[::2]
        if kind != "{":
            keys = [_qualified(k, kind[2:]) for k in keys]
        self._refuse_duplicates(keys, level, end, "map")
        return Map.of(zip(keys, forms[1::2], strict=True))

    def _refuse_duplicates(self, forms: list[Any], level: _Level, end: int, what: str) -> None:
        seen = set()
        for form in forms:
            k = key_of(form)
            if k in seen:
                raise self._error(f"duplicate in a {what}: {pr_str(form)[:200]}", level.start, end)
            seen.add(k)

    def _fn_literal(self, level: _Level, end: int) -> List:
        assert self._fn_args is not None
        count, variadic = self._fn_args
        self._fn_args = None
        names: list[Any] = [Symbol(None, f"%{i}") for i in range(1, count + 1)]
        if variadic:
            names += [_REST, Symbol(None, "%&")]
        body = list_of(level.forms)
        body.span = self._span(level.start, end)
        return list_of((_FN, Vector.of(names), body))

    def _with_meta(self, meta: Any, form: Any) -> Any:
        if isinstance(meta, Keyword):
            added = Map.of([(meta, True)])
        elif isinstance(meta, (Symbol, str)):
            added = Map.of([(kw("tag"), meta)])
        elif isinstance(meta, Map):
            added = meta
        else:
            raise BadToken("metadata is a keyword, a symbol, a string or a map")
        if not isinstance(form, (Symbol, List, Vector, Map, Set)):
            raise BadToken("metadata can stand only before a symbol or a collection")
        return form.with_meta((form.meta or EMPTY_MAP).assoc_all(added.items()))

    # Places and errors

    def _span(self, start: int, end: int) -> Span:
        starts = self.source.line_starts
        line = self._line
        if start < starts[line]:
            line = self._line_of(start, 0)
        elif line + 1 < len(starts) and starts[line + 1] <= start:
            line = self._line = self._line_of(start, line)
        last = line if line + 1 >= len(starts) or end <= starts[line + 1] - 1 else self._line_of(end, line)
        return Span(self.source, line + 1, start - starts[line] + 1, last + 1, end - starts[last] + 1)

    def _line_of(self, offset: int, low: int) -> int:
        return bisect_right(self.source.line_starts, offset, low) - 1

    def _error(self, message: str, start: int, end: int, type: str = "reader/syntax") -> SourceError:
        return SourceError(message, type=type, span=self._span(start, end))

    def _unfinished(self, level: _Level) -> SourceError:
        opened = self.source.text[level.start : level.end]
        closer = _CLOSERS.get(level.kind, "}" if level.kind.startswith("#:") else "")
        message = f"the {opened} that opens here is never closed: {closer} is missing" if closer else f"{opened} needs a form after it"
        return self._error(message, level.start, level.end, type="reader/eof")

    def _bad(self, token: str, start: int, end: int) -> SourceError:
        if token.endswith('"'):
            what = "regular expression" if token[0] == "#" else "string"
            return self._error(f'the {what} that opens here is never closed: " is missing', start, end, type="reader/eof")
        if token == "\\" or token == "#":
            at_end = end == len(self.source.text)
            return self._error(f"{token} needs something after it", start, end, type="reader/eof" if at_end else "reader/syntax")
        return self._error(_REFUSED.get(token, f"{token} means nothing here"), start, end)


_NOT_EDN: Final = frozenset({"'", "@", "`", "~", "~@", "#'"})
_REFUSED: Final = {
    "#=": "#= is not supported: reading never runs code",
    "#<": "#< begins a value that cannot be read back",
    "#?": "#? is not supported: there is one platform",
}


def _qualified(key: Any, ns: str) -> Any:
    """A key of `#:ns{…}`: without a namespace it gets this one, with the namespace `_` none."""
    if not isinstance(key, (Keyword, Symbol)) or key.ns not in (None, "_"):
        return key
    new = ns if key.ns is None else None
    return keyword(new, key.name) if isinstance(key, Keyword) else Symbol(new, key.name, key.meta, key.span)


def read_all(source: Source, *, ns: str = "user", aliases: Mapping[str, str] | None = None) -> list[Any]:
    """All top-level forms of a source."""
    return list(Reader(source, ns=ns, aliases=aliases))

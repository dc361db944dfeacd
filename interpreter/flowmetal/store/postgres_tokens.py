"""A user's SQL as PostgreSQL would cut it into words: what may not stand in it, its parameters, its paths into JSON.

What goes in: SQL text. What comes out: one SELECT with `$1`, `$2` … and the values for them, or `SqlRefused`.
The one rule: this is the second lock. The first are the database's own (a read-only transaction, a cursor, a role that may
read the views alone); here stands what those let through: functions that run text as SQL, change settings, wait, or lock.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flowmetal.store.guard import HINT
from flowmetal.store.postgres_text import to_text
from flowmetal.store.protocol import SqlRefused

STATEMENTS: Final = frozenset(
    "insert update delete merge create drop alter truncate copy call do set reset show explain grant revoke begin start commit end rollback abort "
    "savepoint release prepare execute deallocate declare fetch move close listen unlisten notify lock vacuum analyze cluster reindex refresh "
    "checkpoint discard load comment security import reassign attach detach use pragma install export describe summarize pivot".split()
)
DENIED: Final = frozenset(
    "set_config current_setting nextval setval currval lastval ts_stat ts_rewrite query_to_xml query_to_xmlschema query_to_xml_and_xmlschema "
    "cursor_to_xml cursor_to_xmlschema crosstab connectby xpath_table".split()
)
"""Functions that run SQL given as text, or that are about the session and not about data."""
DENIED_BEGINNINGS: Final = ("pg_", "lo_", "dblink", "table_to_xml", "schema_to_xml", "database_to_xml", "inet_server", "inet_client", "txid_", "has_")

_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t\n\r\f\v]+|--[^\n\r]*)
    |(?P<comment>/\*)
    |(?P<escaped>[uU]&['"])
    |(?P<string>[eE]'(?:[^'\\]|\\.|'')*'|[nNbBxX]?'(?:[^']|'')*')
    |(?P<dollar>\$(?P<tag>(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*)?)\$.*?\$(?P=tag)\$)
    |(?P<param>\$[0-9]+)
    |(?P<named>\$[A-Za-z_][A-Za-z0-9_]*)
    |(?P<quoted>"(?:[^"]|"")*")
    |(?P<word>[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*)
    |(?P<number>[0-9][A-Za-z0-9_.]*)
    |(?P<arrow>->>?)
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_PATH: Final = re.compile(r"""'\$((?:\.[A-Za-z0-9_-]+|\."[^'"\\]+"|\[[0-9]+\])*)'""")
_STEP: Final = re.compile(r"""\.([A-Za-z0-9_-]+|"[^'"\\]+")|\[([0-9]+)\]""")


@dataclass(slots=True)
class Token:
    """A word of SQL: what kind it is, and how it is written."""

    kind: str
    text: str

    @property
    def name(self) -> str | None:
        """The name that it is to PostgreSQL; None for what is no name."""
        if self.kind == "word":
            return self.text.lower()
        return self.text[1:-1].replace('""', '"') if self.kind == "quoted" else None


def checked(sql: str, params: Sequence[Any] | dict[str, Any] | None) -> tuple[str, list[Any]]:
    """The one SELECT of the text as PostgreSQL takes it, and its parameters; else SqlRefused."""
    tokens = list(tokens_of(sql))
    _check([token for token in tokens if token.kind != "space"])
    while tokens and (tokens[-1].kind == "space" or tokens[-1].text == ";"):
        tokens.pop()
    _translate_paths(tokens)
    return _with_parameters(tokens, params)


def tokens_of(sql: str) -> Iterator[Token]:
    """The words of the text; comments count as space."""
    at = 0
    while at < len(sql):
        found = _TOKEN.match(sql, at)
        assert found is not None and found.lastgroup is not None
        kind = "dollar" if found["dollar"] is not None else found.lastgroup
        at = found.end()
        if kind == "comment":
            at = _end_of_comment(sql, at)
            yield Token("space", " ")
        elif kind == "escaped":
            raise SqlRefused(f"{found[0]}… is not allowed here", hint="Write the characters themselves.")
        else:
            yield Token(kind, found[0])


def _end_of_comment(sql: str, at: int) -> int:
    depth = 1
    while depth:
        found = re.compile(r"/\*|\*/").search(sql, at)
        if found is None:
            raise SqlRefused("a comment has no end", hint=HINT)
        depth += 1 if found[0] == "/*" else -1
        at = found.end()
    return at


def _check(tokens: list[Token]) -> None:
    while tokens and tokens[-1].text == ";":
        tokens.pop()
    several = 1 + sum(token.text == ";" for token in tokens)
    if not tokens or several > 1:
        what = "there is no statement" if not tokens else f"there are {several} statements"
        raise SqlRefused(f"{what}; one SELECT is wanted", hint=HINT)
    first = tokens[0].name
    if first in STATEMENTS and tokens[0].kind == "word":
        raise SqlRefused(f"only a SELECT is allowed here, not {first.upper()}", hint=HINT)
    for n, token in enumerate(tokens):
        name = token.name
        after = tokens[n + 1].text if n + 1 < len(tokens) else ""
        if name == "fm" and after == ".":
            table = tokens[n + 2].name if n + 2 < len(tokens) else None
            raise SqlRefused(f"there is no table fm.{table or '…'} for queries", hint=HINT)
        if name is not None and (name.startswith("pg_") or (after == "(" and (name in DENIED or name.startswith(DENIED_BEGINNINGS)))):
            raise SqlRefused(f"{name} is not allowed here", hint=HINT)
        if token.kind == "word" and name == "for" and after.lower() in ("update", "share"):
            raise SqlRefused(f"only a SELECT is allowed here, not FOR {after.upper()}", hint=HINT)


def _translate_paths(tokens: list[Token]) -> None:
    """`data->>'$.error.type'`, as DuckDB writes it, becomes `data#>>'{error,type}'`."""
    before = None
    for token in tokens:
        if token.kind == "space":
            continue
        if before is not None and before.kind == "arrow" and token.text.startswith(("'$.", "'$[", "'$'")):
            path = _PATH.fullmatch(token.text)
            if path is None:
                hint = "Names and places stand in it: '$.error.type', '$.args[0]', '$.\"a name\"'."
                raise SqlRefused(f"the path {token.text} is not understood", hint=hint)
            before.text = before.text.replace("-", "#", 1)
            token.text = "'{" + ",".join(name or place for name, place in _STEP.findall(path[1])) + "}'"
        before = token


def _with_parameters(tokens: list[Token], params: Sequence[Any] | dict[str, Any] | None) -> tuple[str, list[Any]]:
    if isinstance(params, dict):
        places: dict[str, int] = {}
        for token in tokens:
            if token.kind == "named":
                name = token.text[1:]
                if name not in params:
                    raise SqlRefused(f"there is no value for the parameter ${name}")
                token.text = f"${places.setdefault(name, len(places) + 1)}"
        values = [params[name] for name in places]
    else:
        values = list(params or ())
        marks = [token for token in tokens if token.text == "?"] if values else []
        for n, token in enumerate(marks, 1):
            token.text = f"${n}"
        if any(token.kind == "named" for token in tokens):
            raise SqlRefused("a parameter with a name needs values with names")
    return "".join(token.text for token in tokens), [_value(value) for value in values]


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return to_text(value)
    if isinstance(value, dict):
        import json

        return json.dumps(value)
    return value

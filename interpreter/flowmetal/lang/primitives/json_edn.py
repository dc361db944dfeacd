"""The namespaces `json` and `edn`: text to data and back.

What goes in: text, or values. What comes out: values, or text. The one rule: reading never runs code,
and what cannot be read is an error that says where.
"""

from __future__ import annotations

import json
from typing import Any

from flowmetal.errors import LispError, SourceError
from flowmetal.lang.maps import Map
from flowmetal.lang.plain import from_plain, to_plain
from flowmetal.lang.primitives.checks import bad, text, wrong
from flowmetal.lang.primitives.registry import primitive
from flowmetal.lang.printer import pr_str
from flowmetal.lang.reader import Reader
from flowmetal.lang.spans import Source
from flowmetal.lang.values import kw, sym
from flowmetal.lang.vectors import Vector


def _options(who: str, options: Any) -> Any:
    if options is not None and not isinstance(options, Map):
        raise wrong(who, "a map of options", options)
    return options


def _text_keys(data: Any) -> Any:
    if isinstance(data, dict):
        return Map.of((k, _text_keys(v)) for k, v in data.items())
    return Vector.of(map(_text_keys, data)) if isinstance(data, list) else data


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def read_json(s: Any, options: Any = None) -> Any:
    """`json/read-str`."""
    _options("json/read-str", options)
    try:
        data = json.loads(text("json/read-str", s), parse_constant=_refuse)
    except RecursionError:
        raise LispError("json/read-str: the text nests too deep", type="limit") from None
    except ValueError as e:
        raise bad(f"json/read-str: {e}") from None
    return _text_keys(data) if options is not None and options.get(kw("keywords"), True) is False else from_plain(data)


def write_json(x: Any, options: Any = None) -> str:
    """`json/write-str`."""
    _options("json/write-str", options)
    indent = 2 if options is not None and options.get(kw("pretty")) else None
    plain, _ = to_plain(x)
    return json.dumps(plain, ensure_ascii=False, allow_nan=False, indent=indent, separators=None if indent else (",", ":"))


for _name in ("read-str", "parse"):
    primitive(
        "json",
        _name,
        "([s] [s {:keywords false}])",
        "The value of JSON text; keys become keywords.",
        f'(json/{_name} "{{\\"a\\":[1,null]}}") ;=> {{:a [1 nil]}}',
    )(read_json)
for _name in ("write-str", "write"):
    primitive("json", _name, "([x] [x {:pretty true}])", "A value as JSON text.", f'(json/{_name} {{:a [1 nil]}}) ;=> "{{\\"a\\":[1,null]}}"')(write_json)


def _read(who: str, s: Any, **options: Any) -> list[Any]:
    try:
        reader = iter(Reader(Source("text", text(who, s)), **options))
        return [x for x, _ in zip(reader, range(1), strict=False)]
    except SourceError as e:
        raise LispError(f"{who}: {e.message}", type=e.type) from None


@primitive("core", "read-string", "([s] [options s])", "The first form of a text, as data; nothing is run.", '(read-string "(+ 1 2)") ;=> (+ 1 2)')
def read_string(*args: Any) -> Any:
    """`read-string`."""
    if not 1 <= len(args) <= 2:
        raise LispError(f"read-string takes 1 or 2 arguments, but was given {len(args)}: ([s] [options s])", type="arity")
    options = _options("read-string", args[0]) if len(args) == 2 else None
    found = _read("read-string", args[-1])
    if not found:
        if options is not None and kw("eof") in options:
            return options.get(kw("eof"))
        raise LispError("read-string: the text holds no form", type="reader/eof")
    return found[0]


TAGGED = kw("edn/tagged*")
"""The key of the map that stands for an unknown tag and its form until a function of the program has seen it."""


@primitive("edn", "read*", "([options s])", "edn/read-string, with unknown tags marked when the options have functions for them.")
def read_edn(options: Any, s: Any) -> Any:
    """`edn/read*`."""
    given = _options("edn/read-string", options)
    if s is None:
        return None
    marks = given is not None and (kw("readers") in given or kw("default") in given)
    mark = (lambda tag, form: Map.of([(TAGGED, Vector.of([sym(tag), form]))])) if marks else None
    readers = given.get(kw("readers")) if given is not None else None
    own = frozenset(str(tag) for tag in readers.keys()) if isinstance(readers, Map) else frozenset()
    found = _read("edn/read-string", s, edn=True, unknown_tag=mark, own_tags=own)
    if found or given is None:
        return found[0] if found else None
    if kw("eof") not in given:
        raise LispError("edn/read-string: the text holds no form", type="reader/eof", hint="the option :eof gives a value for that")
    return given.get(kw("eof"))


@primitive("edn", "write-string", "([x])", "A value as EDN text.", '(edn/write-string {:a 1}) ;=> "{:a 1}"')
def write_edn(x: Any) -> str:
    """`edn/write-string`."""
    return pr_str(x)

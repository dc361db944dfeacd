"""Keywords, symbols, metadata, and errors as data.

What goes in: names, texts, values with metadata. What comes out: the same kinds. The one rule: a
namespace ends at the first slash, and metadata never counts in equality.
"""

from __future__ import annotations

import itertools
import uuid
from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang.maps import EMPTY_MAP, Map
from flowmetal.lang.primitives.checks import bad, shown, text, wrong
from flowmetal.lang.primitives.registry import primitive
from flowmetal.lang.printer import pr_str
from flowmetal.lang.values import ErrorValue, Keyword, Symbol, Var, kw
from flowmetal.lang.values import keyword as keyword_of
from flowmetal.lang.values import sym as symbol_of
from flowmetal.lang.vectors import Vector


@primitive("core", "keyword", "([name] [ns name])", "A keyword of a string, symbol or keyword; nil of anything else.", '(keyword "a") ;=> :a')
def keyword(*args: Any) -> Any:
    """`keyword`."""
    if len(args) == 2:
        return keyword_of(None if args[0] is None else _part("keyword", args[0]), _part("keyword", args[1]))
    if len(args) != 1:
        raise LispError(f"keyword takes 1 or 2 arguments, but was given {len(args)}: ([name] [ns name])", type="arity")
    x = args[0]
    if type(x) is Keyword:
        return x
    if type(x) is Symbol:
        return keyword_of(x.ns, x.name)
    return kw(x) if type(x) is str else None


@primitive("core", "symbol", "([name] [ns name])", "A symbol of a string, symbol, keyword or var.", '(symbol "a") ;=> a')
def symbol(*args: Any) -> Any:
    """`symbol`."""
    if len(args) == 2:
        return Symbol(None if args[0] is None else _part("symbol", args[0]), _part("symbol", args[1]))
    if len(args) != 1:
        raise LispError(f"symbol takes 1 or 2 arguments, but was given {len(args)}: ([name] [ns name])", type="arity")
    x = args[0]
    if type(x) is Symbol:
        return x
    if type(x) in (Keyword, Var):
        return Symbol(x.ns, x.name)
    return symbol_of(text("symbol", x))


def _part(who: str, x: Any) -> str:
    return text(who, x)


@primitive("core", "find-keyword", "([name] [ns name])", "Like keyword.", '(find-keyword "a") ;=> :a')
def find_keyword(*args: Any) -> Any:
    """`find-keyword`."""
    return keyword(*args)


@primitive("core", "name", "([x])", "The name of a keyword or symbol, without its namespace; a string is itself.", '(name :a/b) ;=> "b"')
def name(x: Any) -> str:
    """`name`."""
    if type(x) in (Keyword, Symbol, Var):
        return str(x.name)
    if type(x) is str:
        return x
    raise wrong("name", "a keyword, symbol or string", x)


@primitive("core", "namespace", "([x])", "The namespace of a keyword or symbol, or nil.", '(namespace :a/b) ;=> "a"')
def namespace(x: Any) -> str | None:
    """`namespace`."""
    if type(x) in (Keyword, Symbol, Var):
        return x.ns  # type: ignore[no-any-return]
    raise wrong("namespace", "a keyword or symbol", x)


_COUNTER = itertools.count(1)


@primitive("core", "gensym", "([] [prefix])", "A symbol that stands nowhere in the source; for macros.", "(symbol? (gensym)) ;=> true")
def gensym(prefix: Any = "G__") -> Symbol:
    """`gensym`."""
    return Symbol(None, f"{name(prefix)}{next(_COUNTER)}__auto")


@primitive("core", "value-meta*", "([x])", "The metadata of a value that is no var.")
def meta(x: Any) -> Any:
    """`value-meta*`."""
    facts = getattr(x, "facts", None)  # an atom's
    return getattr(x, "meta", None) if facts is None else facts.get(kw("meta"))


@primitive("core", "with-meta", "([x map])", "The value with other metadata.", "(meta (with-meta [1] {:a 1})) ;=> {:a 1}")
def with_meta(x: Any, data: Any) -> Any:
    """`with-meta`."""
    change = getattr(x, "with_meta", None)
    if change is None:
        raise wrong("with-meta", "a collection, symbol or function", x)
    if data is not None and not isinstance(data, Map):
        raise wrong("with-meta", "a map", data)
    return change(data)


# Errors as data


@primitive(
    "core",
    "ex-info",
    "([message data] [message data cause])",
    "An error to throw; its type is data's :type, or :user.",
    '(ex-message (ex-info "no" {})) ;=> "no"',
)
def ex_info(message: Any, data: Any, cause: Any = None) -> ErrorValue:
    """`ex-info`."""
    if data is not None and not isinstance(data, Map):
        raise wrong("ex-info", "a map of data", data)
    if cause is not None and not isinstance(cause, ErrorValue):
        raise wrong("ex-info", "an error as the cause", cause)
    kind = data.get(kw("type")) if data is not None else None
    said = "" if message is None else text("ex-info", message)
    return ErrorValue(kind if type(kind) is Keyword else kw("user"), said, EMPTY_MAP if data is None else data, cause)


@primitive("core", "ex-data", "([e])", "The data of an error; nil of anything else.", '(ex-data (ex-info "no" {:a 1})) ;=> {:a 1}')
def ex_data(e: Any) -> Any:
    """`ex-data`."""
    return e.data if type(e) is ErrorValue else None


@primitive("core", "ex-message", "([e])", "The message of an error; nil of anything else.", '(ex-message (ex-info "no" {})) ;=> "no"')
def ex_message(e: Any) -> Any:
    """`ex-message`."""
    return e.message if type(e) is ErrorValue else None


@primitive("core", "ex-cause", "([e])", "The error that caused this one, or nil.", '(ex-cause (ex-info "no" {})) ;=> nil')
def ex_cause(e: Any) -> Any:
    """`ex-cause`."""
    return e.cause if type(e) is ErrorValue else None


@primitive("core", "ex-type", "([e])", "The keyword that catch compares; nil of what is no error.", '(ex-type (ex-info "no" {})) ;=> :user')
def ex_type(e: Any) -> Any:
    """`ex-type`."""
    return e.type if type(e) is ErrorValue else None


@primitive("core", "assert*", "([ok message])", "The error of assert.")
def assert_(ok: Any, message: Any) -> None:
    """`assert*`."""
    if ok is None or ok is False:
        raise LispError(f"assertion failed: {message}", type="value")


@primitive("core", "assert-binding*", "([who bindings])", "The error of a macro that takes one name and one value.")
def assert_binding(who: Any, bindings: Any) -> None:
    """`assert-binding*`."""
    if not isinstance(bindings, Vector) or len(bindings) != 2:
        raise LispError(f"{who} needs a vector of one name and its value, but found {pr_str(bindings)}", type="compile/syntax")


# UUIDs


@primitive("core", "parse-uuid", "([s])", "The UUID that a string writes; nil for bad text.", '(parse-uuid "x") ;=> nil')
def parse_uuid(s: Any) -> Any:
    """`parse-uuid`."""
    parts = text("parse-uuid", s).split("-")
    sizes = (8, 4, 4, 4, 12)
    if len(parts) == 5 and all(0 < len(p) <= n and all(c in "0123456789abcdefABCDEF" for c in p) for p, n in zip(parts, sizes, strict=True)):
        return uuid.UUID("".join(p.rjust(n, "0") for p, n in zip(parts, sizes, strict=True)))
    return None


@primitive("core", "uuid", "([s])", "The UUID that a string writes; an error for bad text.", '(uuid? (uuid "00000000-0000-0000-0000-000000000001")) ;=> true')
def uuid_of(s: Any) -> uuid.UUID:
    """`uuid`."""
    found = s if type(s) is uuid.UUID else parse_uuid(s)
    if found is None:
        raise bad(f"uuid: {shown(s)} is not a UUID")
    return found

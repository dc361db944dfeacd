"""What a value is, and what is equal, alike or before what.

What goes in: any value. What comes out: a boolean, or an order. The one rule: Clojure's answers; a
boolean is no number, and 1 and 1.0 are not equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from functools import cmp_to_key
from typing import Any
from uuid import UUID

from flowmetal.errors import LispError
from flowmetal.lang.equality import compare, equal, truthy
from flowmetal.lang.lists import Cons, List
from flowmetal.lang.maps import Map, Set
from flowmetal.lang.primitives.checks import NUMBERS, number, shown, wrong
from flowmetal.lang.primitives.reducibles import Reducible
from flowmetal.lang.primitives.registry import leaf_loop, primitive
from flowmetal.lang.primitives.sequences import binary, items_of, sequence
from flowmetal.lang.sorted import SortedMap, SortedSet
from flowmetal.lang.values import Duration, ErrorValue, Instant, Keyword, Regex, Symbol, Var, kw
from flowmetal.lang.vectors import Vector


def _is(name: str, test: Callable[[Any], bool], doc: str, example: str) -> None:
    primitive("core", name, "([x])", f"Whether x is {doc}.", example)(lambda x: test(x))


def _kind(name: str, kinds: tuple[type, ...], doc: str, example: str) -> None:
    _is(name, lambda x: type(x) in kinds or (kinds[0] is List and isinstance(x, List)), doc, example)


_is("nil?", lambda x: x is None, "nil", "(nil? nil) ;=> true")
_is("some?", lambda x: x is not None, "anything but nil", "(some? false) ;=> true")
_is("true?", lambda x: x is True, "true", "(true? 1) ;=> false")
_is("false?", lambda x: x is False, "false", "(false? nil) ;=> false")
_is("any?", lambda x: True, "anything", "(any? nil) ;=> true")
_is("not", lambda x: x is None or x is False, "nil or false", "(not nil) ;=> true")
_is("boolean", truthy, "neither nil nor false", "(boolean 0) ;=> true")
_kind("boolean?", (bool,), "true or false", "(boolean? nil) ;=> false")
_kind("number?", (int, float, Decimal), "a number", "(number? true) ;=> false")
_kind("integer?", (int,), "an integer", "(integer? 1.0) ;=> false")
_kind("int?", (int,), "an integer", "(int? 1) ;=> true")
_kind("float?", (float,), "a float", "(float? 1.0) ;=> true")
_kind("double?", (float,), "a float", "(double? 1) ;=> false")
_kind("decimal?", (Decimal,), "a decimal", "(decimal? 1M) ;=> true")
_kind("rational?", (int, Decimal), "an exact number", "(rational? 1) ;=> true")
_is("pos-int?", lambda x: type(x) is int and x > 0, "an integer above 0", "(pos-int? 1) ;=> true")
_is("neg-int?", lambda x: type(x) is int and x < 0, "an integer below 0", "(neg-int? 1) ;=> false")
_is("nat-int?", lambda x: type(x) is int and x >= 0, "an integer of 0 or more", "(nat-int? 0) ;=> true")
_kind("string?", (str,), "a string", '(string? "a") ;=> true')
_is("char?", lambda x: type(x) is str and len(x) == 1, "a string of one letter", '(char? "a") ;=> true')
_kind("keyword?", (Keyword,), "a keyword", "(keyword? :a) ;=> true")
_kind("symbol?", (Symbol,), "a symbol", "(symbol? 'a) ;=> true")
_kind("ident?", (Keyword, Symbol), "a keyword or symbol", "(ident? :a) ;=> true")
_NAMES = ((Keyword, "keyword"), (Symbol, "symbol"))
for _type, _word in _NAMES:
    _is(f"simple-{_word}?", lambda x, t=_type: type(x) is t and x.ns is None, f"a {_word} without namespace", f"(simple-{_word}? 1) ;=> false")  # type: ignore[misc]
    _is(f"qualified-{_word}?", lambda x, t=_type: type(x) is t and x.ns is not None, f"a {_word} with namespace", f"(qualified-{_word}? 1) ;=> false")  # type: ignore[misc]
_is("simple-ident?", lambda x: type(x) in (Keyword, Symbol) and x.ns is None, "a name without namespace", "(simple-ident? :a) ;=> true")
_is("qualified-ident?", lambda x: type(x) in (Keyword, Symbol) and x.ns is not None, "a name with namespace", "(qualified-ident? :a/b) ;=> true")
_kind("vector?", (Vector,), "a vector", "(vector? [1]) ;=> true")
_is("map-entry?", lambda x: type(x) is Vector and len(x) == 2, "a vector of two, as a map's entries are", "(map-entry? (first {:a 1})) ;=> true")
_is("map?", lambda x: isinstance(x, Map), "a map", "(map? {}) ;=> true")
_is("set?", lambda x: isinstance(x, Set), "a set", "(set? #{}) ;=> true")
_kind("list?", (Cons,), "a list", "(list? '(1)) ;=> true")
_is("seq?", lambda x: isinstance(x, (List, Reducible)), "a list or sequence", "(seq? (seq [1])) ;=> true")
_is("coll?", lambda x: isinstance(x, (Vector, List, Map, Set, Reducible)), "a collection", "(coll? [1]) ;=> true")
_is("sequential?", lambda x: isinstance(x, (Vector, List, Reducible)), "a vector, list or sequence", "(sequential? [1]) ;=> true")
_is("associative?", lambda x: isinstance(x, (Vector, Map)), "a map or vector", "(associative? [1]) ;=> true")
_is("counted?", lambda x: isinstance(x, (Vector, List, Map, Set)), "counted at once", "(counted? [1]) ;=> true")
_is("indexed?", lambda x: isinstance(x, Vector), "a vector", "(indexed? [1]) ;=> true")
_is("reversible?", lambda x: isinstance(x, (Vector, SortedMap, SortedSet)), "a vector or a sorted collection", "(reversible? [1]) ;=> true")
_is("sorted?", lambda x: isinstance(x, (SortedMap, SortedSet)), "a sorted map or set", "(sorted? {}) ;=> false")
_is("record?", lambda x: False, "a record; there are none", "(record? {}) ;=> false")


def _seqable(x: Any) -> bool:
    return x is None or isinstance(x, (Vector, List, Map, Set, Reducible, str, bytes))


_is(
    "seqable?",
    _seqable,
    "something to make a sequence of",
    "(seqable? nil) ;=> true",
)


@primitive("core", "each*", "([who coll])", "coll, which must be something to make a sequence of.")
def each(who: Any, coll: Any) -> Any:
    """`each*`."""
    if _seqable(coll):
        return coll
    raise wrong(who, "a sequence beside each name", coll)


_kind("inst?", (Instant,), "an instant", '(inst? #inst "2026-01-01") ;=> true')
_kind("uuid?", (UUID,), "a UUID", '(uuid? "a") ;=> false')
_kind("duration?", (Duration,), "a duration", '(duration? #dur "1s") ;=> true')
_kind("bytes?", (bytes,), "bytes", '(bytes? "a") ;=> false')
_kind("regex?", (Regex,), "a regular expression", '(regex? #"a") ;=> true')
_kind("error?", (ErrorValue,), "an error", '(error? (ex-info "a" {})) ;=> true')
_kind("var?", (Var,), "a var", "(var? #'inc) ;=> true")
_is("NaN?", lambda x: bool(number("NaN?", x) != x), "not a number", "(NaN? ##NaN) ;=> true")
_is("infinite?", lambda x: type(number("infinite?", x)) is float and math.isinf(x), "infinite", "(infinite? ##Inf) ;=> true")


# Equality and order


@primitive(
    "core", "=", "([x] [x & more])", "Whether all are equal: 1, 1.0 and true are not; vectors and lists of equal elements are.", "(= [1 2] '(1 2)) ;=> true"
)
def is_equal(x: Any, *more: Any) -> bool:
    """`=`."""
    for y in more:
        if not equal(x, y):
            return False
        x = y
    return True


@primitive("core", "not=", "([x] [x & more])", "Whether not all are equal.", "(not= 1 2) ;=> true")
def is_unequal(x: Any, *more: Any) -> bool:
    """`not=`."""
    return not is_equal(x, *more)


@primitive("core", "identical?", "([x y])", "Whether both are the same object, or equal names, numbers or booleans.", "(identical? :a :a) ;=> true")
def is_identical(x: Any, y: Any) -> bool:
    """`identical?`."""
    if x is y:
        return True
    return type(x) is type(y) and type(x) in (int, str, bool, float) and x == y


@primitive("core", "distinct?", "([x] [x & more])", "Whether no two are equal.", "(distinct? 1 2 1) ;=> false")
def is_distinct(x: Any, *more: Any) -> bool:
    """`distinct?`."""
    return len(Set.of((x, *more))) == 1 + len(more)


@primitive("core", "compare", "([x y])", "-1, 0 or 1 as x is before, equal to or after y.", '(compare "a" "b") ;=> -1')
def compare_(x: Any, y: Any) -> int:
    """`compare`."""
    return compare(x, y)


def outcome(result: Any) -> int:
    """What a comparator said, as a number: a boolean true means before."""
    if type(result) is bool or result is None:
        return -1 if result else 0
    return (result > 0) - (result < 0)  # type: ignore[no-any-return]


def comparator_of(f: Any) -> Callable[[Any, Any], int]:
    """A leaf as a comparator of -1, 0, 1; it may give a boolean or a number."""
    call = binary(f)

    def order(a: Any, b: Any) -> int:
        result = call(a, b)
        if type(result) in NUMBERS:
            return outcome(result)
        return -1 if truthy(result) else 1 if truthy(call(b, a)) else 0

    return order


@primitive("core", "comparator-result*", "([x])", "Whether a comparator said that its first argument is before the second.")
def is_before(x: Any) -> bool:
    """`comparator-result*`."""
    return bool(x < 0) if type(x) in NUMBERS else truthy(x)


def like(coll: Any, result: Any) -> Any:
    """A sequence with the metadata of the collection that it was made of."""
    meta = getattr(coll, "meta", None)
    return result if meta is None else result.with_meta(meta)


@leaf_loop("sort*", "([f coll])", "sort with a leaf as the comparator.")
def sort(f: Any, coll: Any) -> Any:
    """`sort*`."""
    return like(coll, sequence(_sorted(f, list(items_of("sort", coll)), lambda x: x)))


def _sorted(f: Any, items: list[Any], key: Callable[[Any], Any]) -> list[Any]:
    if getattr(f, "fn", None) is compare_:
        kinds = {type(key(x)) for x in items}
        if len(kinds) == 1 and kinds <= {int, str}:
            return sorted(items, key=key)
        if len(items) == 1:
            compare(key(items[0]), key(items[0]))
        order: Callable[[Any, Any], int] = compare
    else:
        order = comparator_of(f)
    by = cmp_to_key(order)
    return sorted(items, key=lambda x: by(key(x)))


@leaf_loop("sort-by*", "([f keys coll])", "Elements in the order of the keys beside them; f is a leaf comparator.")
def sort_by(f: Any, keys: Any, coll: Any) -> Any:
    """`sort-by*`."""
    pairs = list(zip(keys, items_of("sort-by", coll), strict=True))
    return like(coll, sequence(x for _, x in _sorted(f, pairs, lambda pair: pair[0])))


@primitive("core", "min-by*", "([keys items greatest])", "The item with the least (or greatest) key; of equal keys the last.")
def min_by(keys: Any, items: Any, greatest: Any) -> Any:
    """`min-by*`."""
    pairs = [(number("max-key" if greatest else "min-key", k), x) for k, x in zip(keys, items, strict=True)]
    best = pairs[0]
    for i, (k, x) in enumerate(pairs[1:]):
        # The first two are compared as Clojure compares them, which shows with NaN.
        later = k >= best[0] if greatest else k <= best[0]
        first = best[0] > k if greatest else best[0] < k
        kept = first if i == 0 else not later
        best = best if kept else (k, x)
    return best[1]


@primitive("core", "no-clause*", "([who x])", "The error of a case or condp without a match.")
def no_clause(who: Any, x: Any) -> Any:
    """`no-clause*`."""
    raise LispError(f"no clause of this {who} matches {shown(x)}", type="value")


@primitive("core", "type", "([x])", "The kind of a value, as a keyword; its :type metadata where it has some.", "(type 1) ;=> :integer")
def type_of(x: Any) -> Any:
    """`type`."""
    from flowmetal.lang.equality import kind_name

    meta = getattr(x, "meta", None)
    if isinstance(meta, Map) and kw("type") in meta:
        return meta.get(kw("type"))
    words = kind_name(x)
    return None if x is None else kw(words.removeprefix("an ").removeprefix("a ").lower().replace(" ", "-"))

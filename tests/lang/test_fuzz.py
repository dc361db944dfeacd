"""Rubbish for the reader and the evaluator.

What goes in: texts and calls made by chance from a seed. What is promised: an answer or an error of ours, with a
type of the contract, within the fuel; never an exception of Python, never a value's kind mixed up inside a
primitive (that would say "wrong kind of value"); and memory does not grow with what was evaluated. With
FLOWMETAL_LONG=1 a million inputs, else some thousands; what once fell out is kept, and tried first.
"""

from __future__ import annotations

import gc
import itertools
import os
import random
from collections.abc import Iterator
from functools import lru_cache

import pytest
from test_cases import FILES, cases

from flowmetal.errors import FlowmetalError, LispError, SourceError
from flowmetal.lang import evaluate
from flowmetal.lang.library import library
from flowmetal.lang.printer import pr_str
from flowmetal.lang.reader import Reader
from flowmetal.lang.session import Session
from flowmetal.lang.spans import Source

LONG = os.environ.get("FLOWMETAL_LONG") == "1"
TEXTS = 500_000 if LONG else 4_000
CALLS = 500_000 if LONG else 3_000
FUEL = 20_000

PIECES = (
    "( ) [ ] { } #{ #( #_ #' #\" \" ' ` ~ ~@ @ ^ ; \\ : :: # ## #? #= #: % & / . - + 1 0x 1/2 1.5e 36r 1N 1M nil true a a/b :k :n/k \\a \\new "
    "#inst #uuid #dur #b64 #foo \"a\" \"\\ \\u00 \n \t , 999999999999999999999 é 😀 \ud800 \x00 ##Inf"
).split(" ")  # fmt: skip
VALUES = (
    "nil true false 0 1 -1 2.5 ##NaN ##Inf 1.10M 100000000000000000000 \"\" \"abc\" \"1\" :a :n/b 'x [] [1 2 3] [[1 2] [3 4]] () '(1 2) {} {:a 1} "
    "{1 2} #{} #{1 :a} "
    "(sorted-map 1 2) (sorted-set 3 1) (range) (range 3) (iterate inc 1) (repeat 1) inc + (fn [x] x) (fn [a b] (compare a b)) (fn [& xs] xs) identity first "
    "#\"a(b)?\" #inst\"2026-01-01\" #dur\"1h\" #uuid\"00000000-0000-0000-0000-000000000001\" #b64\"YWJj\" (atom 1) (delay 1) (transient [1]) (reduced 1) #'inc "
    "(ex-info\"e\"{}) (make-hierarchy) (map inc) ^{:m 1}[1] [:a 1] \"%d\" \"a,b\" 3 -7"
)  # fmt: skip
SKIPPED = frozenset({"core/eval", "core/flow-program", "core/foreign-stub", "core/multi-fn", "core/template-list", "core/destructured-map", "core/apropos"})
"""What compiles, or is there for expansions only: not for calls by chance."""


@lru_cache(maxsize=1)
def values() -> list[str]:
    """The forms of `VALUES`."""
    reader = Reader(Source("values", VALUES))
    return [reader.last_text for _ in reader]


@lru_cache(maxsize=1)
def functions() -> list[str]:
    """Every public function of the library that is pure."""
    definitions = library()
    names = []
    for ns in ("core", "str", "set", "walk", "math", "json", "edn", "time"):
        for name in sorted(definitions.names(ns, 0)):
            binding = definitions.lookup(ns, name, 0)
            if binding is None or binding.macro or name.endswith("*") or f"{ns}/{name}" in SKIPPED:
                continue
            names.append(f"{ns}/{name}")
    return names


def rubbish(r: random.Random, seeds: list[str]) -> str:
    """A text: pieces in any order, or a good text with something changed."""
    if r.random() < 0.5:
        return "".join(r.choice(PIECES) + (" " if r.random() < 0.4 else "") for _ in range(r.randrange(1, 25)))
    text = r.choice(seeds)
    for _ in range(r.randrange(1, 4)):
        at = r.randrange(len(text) + 1)
        cut = at + r.randrange(4)
        text = text[:at] + (r.choice(PIECES) if r.random() < 0.7 else "") + text[cut if r.random() < 0.5 else at :]
    return text


def call(r: random.Random, depth: int = 2) -> str:
    """A call of some function with some values, themselves calls sometimes."""
    args = [call(r, depth - 1) if depth and r.random() < 0.15 else r.choice(values()) for _ in range(r.randrange(5))]
    return f"({r.choice(functions())} {' '.join(args)})"


FALLEN_READING = ("#:&:{:a 1}",)
"""Texts that the reader once took wrongly."""
FALLEN_EVALUATION = ("(walk/prewalk (fn [& xs] xs) [[1 2] [3 4]])", "(core/reduce {:a 1} [] (repeat 1))", "`(~@:ni#l)")
"""Forms whose evaluation once ended in a way that it must not."""


def seeds_of(n: int) -> Iterator[int]:
    """Seeds: the same in each run, others when there is time."""
    start = random.SystemRandom().randrange(1 << 40) if LONG else 0
    return iter(range(start, start + n))


def test_the_reader_takes_anything() -> None:
    known = [form for path in FILES for _, form, _ in cases(path)]
    for seed in itertools.chain(FALLEN_READING, seeds_of(TEXTS)):
        text = seed if isinstance(seed, str) else rubbish(random.Random(seed), known)
        try:
            forms = list(Reader(Source("fuzz", text)))
        except SourceError as e:
            assert e.span is not None, (seed, text)
            assert e.type in ("reader/syntax", "reader/eof", "limit"), (seed, text, e.type)
            continue
        printed = " ".join(map(pr_str, forms))
        assert " ".join(map(pr_str, Reader(Source("fuzz", printed)))) == printed or "##NaN" in printed, (seed, text)


KINDS = frozenset(
    "reader/eof reader/syntax compile/unresolved compile/syntax arity type index arithmetic value limit stack-overflow user".split()
)  # fmt: skip


def test_the_evaluator_takes_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "MACRO_FUEL", FUEL)
    session = Session()
    known = [form for path in FILES for _, form, _ in cases(path) if "100000" not in form and "def" not in form and "(ns" not in form]
    for seed in itertools.chain(FALLEN_EVALUATION, seeds_of(CALLS)):
        r = random.Random(seed)
        text = seed if isinstance(seed, str) else call(r) if r.random() < 0.8 else rubbish(r, known)
        try:
            pr_str(session.eval(text, "fuzz"))
        except FlowmetalError as e:
            assert e.type in KINDS or e.type in text, (seed, text, e.type, e.message)
            assert isinstance(e, (LispError, SourceError)), (seed, text)
            assert not e.message.startswith(("wrong kind of value:", "bad value:")), (seed, text, e.message)
    gc.collect()
    assert len(session.definitions._roots) < 1_000

"""Completion: locals, names of the namespace, of aliases and of the library, keywords in use."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowmetal.lang.complete import around, locals_at, names
from flowmetal.lang.definitions import Binding, Definitions
from flowmetal.lang.library import library
from flowmetal.lang.session import Session


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("(let [total 1 [a b] x] |", ["total", "a", "b"]),
        ("(let [total 1] (f total)) |", []),
        ("(let [total 1 tax |", ["total", "tax"]),
        ("(defn f [x & more] |", ["f", "x", "more"]),
        ("(defn f ([a] 1) ([a b] |", ["a", "b"]),
        ("(fn [{:keys [id total] :or {id 1} :as order}] |", ["id", "total", "order"]),
        ("(for [x xs :let [y x] :when y] |", ["x", "y"]),
        ("(loop [n 1] (if-let [m n] |", ["n", "m"]),
        ("(try (f) (catch :default problem |", ["problem"]),
        ("(letfn [(even [n] 1) (odd [n] 2)] |", ["even", "odd"]),
        ("(defflow fulfil [{:keys [id]}] (saga (let [charge 1] (do ; (\n |", ["fulfil", "id", "charge"]),
        ('(let [x "(let [y"] |', ["x"]),
        ("(as-> 1 it |", ["it"]),
        (")))) (let [x 1] |", ["x"]),
    ],
)
def test_locals_are_those_of_the_forms_around_the_cursor(code: str, found: list[str]) -> None:
    assert locals_at(code.replace("|", ""), code.index("|")) == found


def test_the_text_gives_locals_and_keywords() -> None:
    code = "(let [total 1 tax 2] {:total-sum 1 :t"
    assert around(code, len(code), ":t") == [":total-sum"]
    code = "(let [total 1 tax 2] (+ t"
    assert around(code, len(code), "t") == ["tax", "total"]


@pytest.fixture(scope="module")
def definitions() -> Definitions:
    session = Session(library())
    session.eval('(ns shop.core (:require [str :as s])) (defn price "The price." [x] x) (defn- hidden [] 1) (def of-order* 1)')
    session.definitions.define("shop.core", "rate", Binding(1, version=session.definitions.version, meta={"source": "(def rate {:vat-rate 1})"}))
    return session.definitions


@pytest.mark.parametrize(
    ("prefix", "ns", "has", "has_not"),
    [
        ("pri", "shop.core", ["price", "print"], []),
        ("pri", "user", ["print"], ["price"]),
        ("shop.core/", "user", ["shop.core/price"], ["shop.core/hidden"]),
        ("hid", "shop.core", ["hidden"], []),
        ("s/jo", "shop.core", ["s/join"], ["str/join"]),
        ("str/jo", "user", ["str/join"], []),
        ("st", "user", ["str/", "start"], []),
        ("deff", "user", ["defflow"], []),
        ("le", "user", ["let", "letfn"], []),
        (":vat", "user", [":vat-rate"], []),
        (":time", "user", [":timeout"], []),
        ("async", "user", ["async"], ["async*"]),
    ],
)
def test_names_are_those_that_can_be_written_there(definitions: Definitions, prefix: str, ns: str, has: list[str], has_not: list[str]) -> None:
    found = names(definitions, prefix, ns, definitions.version)
    assert set(has) <= set(found)
    assert not set(has_not) & set(found)
    assert all(name.startswith(prefix) for name in found)


@given(st.text(alphabet="()[]{}letfn dxy:&\"';\n#1", max_size=60), st.integers(0, 60))
def test_whatever_is_being_written_there_is_an_answer(code: str, cursor: int) -> None:
    at = min(cursor, len(code))
    assert all(isinstance(name, str) and name for name in locals_at(code, at))


def test_however_deep_the_text_nests() -> None:
    assert locals_at("(let [" + "[" * 50_000 + "x", 50_007) == ["x"]

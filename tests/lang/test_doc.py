"""`doc`, `source`, `apropos`: what the language says of itself, where it is asked."""

from __future__ import annotations

import pytest

from flowmetal.errors import LispError
from flowmetal.lang.printer import pr_str
from flowmetal.lang.session import Session


def said(form: str) -> str:
    """What a form prints."""
    session = Session()
    session.eval(form)
    return "".join(str(mark.data) for mark in session.marks if mark.kind == "output")


def test_doc_shows_calls_text_and_example() -> None:
    assert said("(doc inc)") == "core/inc  (function)\n  (inc x)\n  One more.\n  (inc 1) ;=> 2\n"
    assert said("(doc str/join)").startswith("str/join  (function)\n  (str/join coll)\n  (str/join separator coll)\n")


def test_doc_knows_special_forms_macros_and_what_the_user_defined() -> None:
    assert said("(doc let)").startswith("let  (special form)\n  (let [pattern value …] & body)\n")
    assert said("(doc ->>)").startswith("core/->>  (macro)\n")
    assert said('(defn area "Of a square." ([a] 1) ([a b] 2)) (doc area)') == "user/area  (function)\n  (user/area a)\n  (user/area a b)\n  Of a square.\n"
    assert said('(ns shop (:require [str :as s])) (defflow pay "Pays." [x] x) (doc pay)') == "shop/pay  (flow)\n  (shop/pay x)\n  Pays.\n"
    assert said("(ns shop (:require [str :as s])) (doc s/join)").startswith("str/join")


def test_doc_of_what_is_not_there_says_what_to_use() -> None:
    assert "use (async …) for a fiber" in said("(doc agent)")
    assert '(apropos "nope")' in said("(doc nope)")


def test_source_is_exactly_the_definition() -> None:
    assert said("(source constantly)").startswith("(defn constantly\n") and said("(source constantly)").endswith("(fn [& _] x))\n")
    assert "written in Python" in said("(source inc)")


def test_apropos_finds_names_first_and_then_texts() -> None:
    session = Session()
    assert pr_str(session.eval('(first (apropos "revers"))')) == "reverse"
    assert session.eval('(boolean (some #{(quote deftest)} (apropos "virtual clock")))') is True
    with pytest.raises(LispError, match="needs some text"):
        session.eval("(apropos 1)")

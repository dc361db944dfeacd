"""The Lisp stack of an error: what the program called, and nothing that only the library knows."""

from __future__ import annotations

import pytest

from flowmetal.errors import LispError
from flowmetal.lang.session import Session


def trace(*forms: str) -> list[str]:
    """The lines of the trace with which the last form fails, innermost first."""
    session = Session()
    for form in forms[:-1]:
        session.eval(form, "program")
    with pytest.raises(LispError) as caught:
        session.eval(forms[-1], "form")
    error = caught.value.value  # type: ignore[attr-defined]
    return [name if span is None else f"{name} at {span}" for name, span in error.trace]


def test_calls_from_the_innermost_outwards() -> None:
    assert trace("(defn f [x] (throw (ex-info x {})))", "(defn g [x] (str (f x)))", '(do (g "no"))')[:2] == ["f at program:1:13", "g at program:1:18"]


def test_a_call_that_repeats_is_one_line() -> None:
    step = '(defn step [n] (if (zero? n) (throw (ex-info "end" {})) (inc (step (dec n)))))'
    assert trace(step, "(step 500)")[:2] == ["step at program:1:30", "step (500 times) at program:1:62"]


def test_of_the_library_only_what_the_program_called() -> None:
    lines = trace("(defn f [x] (throw (ex-info x {})))", '(reduce (fn [_ x] (f x)) nil ["no"])')
    assert lines[0].startswith("f at") and "reduce" in lines and not any("core" in line for line in lines)


def test_long_traces_are_folded() -> None:
    lines = trace("(declare b)", "(defn a [n] (inc (b n)))", '(defn b [n] (if (> n 99) (throw (ex-info "end" {})) (inc (a (inc n)))))', "(a 0)")
    assert len(lines) == 21
    assert lines[10].startswith("…") and "more" in lines[10]

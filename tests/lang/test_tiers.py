"""The two tiers of the machine agree: what pure code gives as Python functions is what it gives in frames."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowmetal.errors import FlowmetalError
from flowmetal.lang.machine import Machine
from flowmetal.lang.printer import pr_str
from flowmetal.lang.session import Session

WARM = "(dotimes [_ 40] (try (f 1) (catch :default _ nil)))"
"""Calls enough for a function to be compiled for the second tier."""

PROGRAMS = [
    "(defn f [n] (if (< n 2) n (+ (f (- n 1)) (f (- n 2)))))",
    "(defn f [n] (loop [i 0 acc []] (if (< i (* 20 n)) (recur (inc i) (conj acc (* i i))) acc)))",
    "(defn f [n] (loop [i 0 t 0] (if (< i 40) (recur (inc i) (loop [j 0 t t] (if (< j n) (recur (inc j) (+ t (* i j))) t))) t)))",
    "(defn f [n] (loop [i 0] (let [x (* i n)] (if (< x 50) (loop [j x] (if (< j 60) (recur (inc j)) j)) (if (< i 90) (recur (inc i)) [i x])))))",
    "(defn f [n] (let [g (fn [x] (+ x n))] (map g [1 2 3])))",
    "(defn f [n] (let [g (fn g [x] (if (pos? x) (cons x (g (dec x))) ()))] (g n)))",
    "(defn f [n] (reduce (fn [m i] (assoc m (mod i 5) (+ i (get m (mod i 5) 0)))) {} (range (* 10 n))))",
    '(defn f [n] (mapv (fn [x] (if (= x 3) (throw (ex-info "three" {:x x})) (inc x))) (range n)))',
    "(defn f [n] (try (/ n 0) (catch :arithmetic e [:caught (ex-message e)])))",
    "(defn f [n] (nth [1 2 3] n))",
    "(defn f [n] (loop [i n] (if (< i 5) (recur (inc i)) (/ i 0))))",
    "(defn f [n] (apply + (map (fn [a b] (* a b)) (range n) (range n))))",
    "(defn f [n & more] (if (seq more) (apply f more) [n more]))",
    "(defn f [n] (cond (and (odd? n) (> n 2)) :odd (or (zero? n) (not (> n 0))) :low :else {:n n :half (/ n 2)}))",
    "(defn f [n] (let [a (atom 0)] (dotimes [i n] (swap! a + i)) @a))",
    "(defn f [n] (take 5 (iterate (fn [x] (* x 2)) n)))",
    "(defn f [n] (let [{:keys [a b] :or {b 7}} {:a n}] [a b]))",
    "(defmulti area :kind) (defmethod area :square [x] (* (:side x) (:side x))) (defn f [n] (map (fn [i] (area {:kind :square :side i})) (range n)))",
    "(declare g) (defn f [n] (if (zero? n) :even (g (dec n)))) (defn g [n] (if (zero? n) :odd (f (dec n))))",
    "(defn f [n] (if (pos? n) (inc (f (dec n))) 0))",
    "(defn f [n] (str (some (fn [x] (when (> x n) x)) (range 100)) (every? (fn [x] (< x n)) [1 2])))",
    "(defn f [n] (for [x (range n) :when (odd? x) y [:a :b]] [x y]))",
    "(defn f [n] (* n 1000000007 1000000007 1000000007))",
    "(defn f [n] [(= n 1) (= n 1.0) (= n true) (== n 1.0) (< n 1.5) (inc 1.5) (- n 0.5)])",
]


def outcome(text: str, monkeypatch: pytest.MonkeyPatch, tiers: bool) -> list[str]:
    """What each form prints, or its error with its place."""
    original = Machine.__init__

    def init(self: Machine, *args: object, **options: object) -> None:
        original(self, *args, **options)  # type: ignore[arg-type]
        self.tiers = tiers

    monkeypatch.setattr(Machine, "__init__", init)
    session = Session()
    out = []
    for form in text.split("\n"):
        try:
            out.append(pr_str(session.eval(form)))
        except FlowmetalError as e:
            out.append(f"{e.type} {e.message} {e.span}")
    return out


@pytest.mark.parametrize("program", PROGRAMS)
def test_both_tiers_give_the_same(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n".join([program, WARM, *[f"(f {n})" for n in (0, 1, 2, 3, 7, 20)], "(f nil)", "(f 3000)" if "loop" in program else "(f 9)"])
    with monkeypatch.context() as m:
        machine = outcome(text, m, False)
    with monkeypatch.context() as m:
        assert outcome(text, m, True) == machine


def test_a_turn_that_is_over_is_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long loop gives the machine back its turn, and goes on where it was."""
    text = "(loop [i 0 t 0] (if (< i 300000) (recur (inc i) (+ t i)) t))"
    assert outcome(text, monkeypatch, True) == [str(sum(range(300_000)))]


def test_a_definition_that_changes_is_seen() -> None:
    """Code of the second tier finds names at its caller's version, as a frame does."""
    session = Session()
    session.eval(f"(defn g [x] (+ x 1)) (defn f [x] (g x)) {WARM}")
    assert session.eval("(f 1)") == 2
    session.eval("(defn g [x] (+ x 100))")
    assert session.eval("(f 1)") == 101


NAMES = st.sampled_from(["a", "b"])
LEAVES = st.one_of(st.integers(-5, 5).map(str), NAMES, st.sampled_from(["nil", "true", "false", "1.5", ":k", "[1 2]", "{:k 3}"]))


def compound(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Expressions over two locals."""
    return st.one_of(
        st.tuples(st.sampled_from(["+", "-", "*", "<", ">", "=", "quot", "get", "conj"]), inner, inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(st.sampled_from(["inc", "dec", "not", "first", "count", "seq", ":k", "vector", "nil?"]), inner).map(lambda t: f"({t[0]} {t[1]})"),
        st.tuples(inner, inner, inner).map(lambda t: f"(if {t[0]} {t[1]} {t[2]})"),
        st.tuples(NAMES, inner, inner).map(lambda t: f"(let [{t[0]} {t[1]}] {t[2]})"),
        st.tuples(inner, inner).map(lambda t: f"(loop [i 0 a {t[0]}] (if (< i 3) (recur (inc i) {t[1]}) a))"),
        st.tuples(inner, inner).map(lambda t: f"((fn [b] {t[0]}) {t[1]})"),
        st.tuples(inner, inner).map(lambda t: f"(mapv (fn [a] {t[0]}) [{t[1]} b])"),
        st.tuples(inner, inner).map(lambda t: f"(do {t[0]} {t[1]})"),
        st.tuples(inner, inner).map(lambda t: f"(and {t[0]} {t[1]})"),
        st.tuples(inner, inner).map(lambda t: f"{{:k {t[0]} :j {t[1]}}}"),
    )


@settings(max_examples=60, deadline=None)
@given(st.recursive(LEAVES, compound, max_leaves=12))
def test_random_expressions_agree(expression: str) -> None:
    text = "\n".join([f"(defn f [a b] {expression})", "(dotimes [_ 40] (try (f 1 2) (catch :default _ nil)))", "(f 1 2)", "(f nil [1])", "(f 2.5 {:k 1})"])
    with pytest.MonkeyPatch.context() as m:
        machine = outcome(text, m, False)
    with pytest.MonkeyPatch.context() as m:
        assert outcome(text, m, True) == machine

"""Documentation of the forms that the analyzer knows by name: they have no definition to carry it.

A table: name → (arguments, what it does, an example that a test runs; "" where a definition cannot stand in an expression).
"""

from __future__ import annotations

from typing import NamedTuple


class SpecialDoc(NamedTuple):
    """What `doc` tells of a special form."""

    arglists: str
    doc: str
    example: str = ""


SPECIAL_DOCS: dict[str, SpecialDoc] = {
    "def": SpecialDoc(
        "([name] [name value] [name doc value])",
        "Defines a name at the top level of a file or cell. A flow keeps the definitions that it started with.",
        '(def answer "The answer." 42) answer ;=> 42',
    ),
    "defn": SpecialDoc(
        "([name doc? attributes? [params] & body] [name doc? attributes? & ([params] & body)])",
        "Defines a function. Several bodies take different numbers of arguments; & takes the rest; patterns take arguments apart.",
        '(defn twice "Doubles." [x] (* 2 x)) (twice 4) ;=> 8',
    ),
    "defn-": SpecialDoc(
        "([name doc? attributes? [params] & body])", "Defines a function that only its own namespace may use.", "(defn- twice [x] (* 2 x)) (twice 4) ;=> 8"
    ),
    "defmacro": SpecialDoc(
        "([name doc? attributes? [params] & body])",
        "Defines a macro: a function from forms to a form, called while code is compiled. It may not wait, nor read time or chance.",
        "(defmacro unless [test then] `(if ~test nil ~then)) (unless false 1) ;=> 1",
    ),
    "defflow": SpecialDoc(
        "([name doc? [params] & body])",
        "Defines a program whose runs are flows: (start name args…) begins one, (name args…) inside a flow runs one as a child and gives its result.",
        '(defflow greet [who] (str "hello " who)) @(start greet "Ada") ;=> "hello Ada"',
    ),
    "defforeign": SpecialDoc(
        "([name doc? [params] options?])",
        "Defines a function that is implemented outside of the flow. Options: :retry :timeout :attempt-timeout :idempotency-key :queue :at-most-once.",
        '(defforeign charge-card "Charges." [order] {:retry {:max-attempts 3}}) (charge-card "A-17") ;=> {:id "ch_1"}',
    ),
    "defmulti": SpecialDoc(
        "([name doc? dispatch & {:keys [default]}])",
        "Defines a multimethod: dispatch's value for the arguments chooses the method that is called.",
        "(defmulti area :shape) (defmethod area :square [{:keys [side]}] (* side side)) (area {:shape :square :side 3}) ;=> 9",
    ),
    "defmethod": SpecialDoc(
        "([name value [params] & body])",
        "Adds the method that a multimethod calls for a dispatch value; :default is for all others.",
        "(defmulti size :kind) (defmethod size :default [x] :unknown) (size {:kind :box}) ;=> :unknown",
    ),
    "deftest": SpecialDoc(
        "([name & body])",
        "Defines a test, which `flowmetal test` runs with a store of its own in memory and a virtual clock that stands still until told.",
        "(deftest sums (is (= 4 (+ 2 2)))) :defined ;=> :defined",
    ),
    "defonce": SpecialDoc(
        "([name value])",
        "Defines a name, unless it has a value already: then nothing happens, and the value is not evaluated.",
        "(defonce settings {:a 1}) (defonce settings {:a 2}) settings ;=> {:a 1}",
    ),
    "remove-method": SpecialDoc(
        "([name value])",
        "Defines a multimethod anew without its method for a dispatch value.",
        "(defmulti area :shape) (defmethod area :square [s] 1) (remove-method area :square) (methods area) ;=> {}",
    ),
    "remove-all-methods": SpecialDoc(
        "([name])",
        "Defines a multimethod anew without methods.",
        "(defmulti area :shape) (defmethod area :square [s] 1) (remove-all-methods area) (methods area) ;=> {}",
    ),
    "prefer-method": SpecialDoc(
        "([name value other])",
        "Says that a multimethod's method for one dispatch value goes before that for another, where both fit.",
        "(defmulti area :shape) (prefer-method area :square :rectangle) (prefers area) ;=> {:square #{:rectangle}}",
    ),
    "derive": SpecialDoc(
        "([tag parent] [hierarchy tag parent])",
        "Defines that a tag, a keyword or symbol with a namespace, is a kind of another; given a hierarchy, gives the new one.",
        "(derive :shape/square :shape/rectangle) (isa? :shape/square :shape/rectangle) ;=> true",
    ),
    "underive": SpecialDoc(
        "([tag parent] [hierarchy tag parent])",
        "Takes back what derive defined.",
        "(derive :shape/square :shape/rectangle) (underive :shape/square :shape/rectangle) (isa? :shape/square :shape/rectangle) ;=> false",
    ),
    "declare": SpecialDoc(
        "([& names])",
        "Makes names known that are defined further down.",
        "(declare odd) (defn even [n] (if (zero? n) true (odd (dec n)))) (defn odd [n] (if (zero? n) false (even (dec n)))) (even 10) ;=> true",
    ),
    "ns": SpecialDoc(
        "([name doc? & (:require [other :as alias :refer [names]])])",
        "Says which namespace the forms that follow define names in, and what they use of others.",
        "(ns shop.core (:require [str :as s])) :ok ;=> :ok",
    ),
    "require": SpecialDoc(
        "([& '[namespace :as alias]])",
        "Makes another namespace known under an alias, loading its file where it must.",
        "(require '[set :as s]) :ok ;=> :ok",
    ),
    "fn": SpecialDoc(
        "([name? [params] & body] [name? & ([params] & body)])", "A function. #(+ % 1) is short for it.", "((fn [x & more] [x more]) 1 2 3) ;=> [1 (2 3)]"
    ),
    "let": SpecialDoc(
        "([[pattern value …] & body])", "Binds names, each to be seen by what follows; patterns take values apart.", "(let [x 1 [y z] [2 3]] (+ x y z)) ;=> 6"
    ),
    "letfn": SpecialDoc(
        "([[(name [params] & body) …] & body])",
        "Binds functions that may call each other.",
        "(letfn [(even [n] (or (zero? n) (odd (dec n)))) (odd [n] (and (pos? n) (even (dec n))))] (even 4)) ;=> true",
    ),
    "if": SpecialDoc("([test then] [test then else])", "`then` when test is neither nil nor false, else `else`.", "(if (< 1 2) :a :b) ;=> :a"),
    "do": SpecialDoc("([& exprs])", "Evaluates expressions in order; the value of the last.", "(do 1 2 3) ;=> 3"),
    "quote": SpecialDoc("([form])", "The form itself, not evaluated. 'form is short for it.", "(quote (+ 1 2)) ;=> (+ 1 2)"),
    "var": SpecialDoc("([name])", "The name of a definition as a value, which can be called. #'name is short for it.", "(var inc) ;=> #'core/inc"),
    "loop": SpecialDoc(
        "([[pattern value …] & body])",
        "Binds names as let does; recur in its body begins it again with new values, in constant space.",
        "(loop [n 5 acc 1] (if (zero? n) acc (recur (dec n) (* acc n)))) ;=> 120",
    ),
    "recur": SpecialDoc(
        "([& values])",
        "Begins the innermost loop or function again. It must be the last thing that its body does.",
        "((fn [n] (if (< n 10) (recur (inc n)) n)) 1) ;=> 10",
    ),
    "try": SpecialDoc(
        "([& exprs (catch type name & exprs)… (finally & exprs)])",
        "Evaluates expressions; an error goes to the first catch of its type (:default catches all but :flow/cancelled). finally runs whatever happened.",
        '(try (/ 1 0) (catch :arithmetic e (ex-message e)) (finally :ignored)) ;=> "/: division by zero"',
    ),
    "catch": SpecialDoc(
        "([type name & exprs])",
        "Inside try: what to do with an error of a type, a keyword; :default means any.",
        '(try (throw (ex-info "no" {:type :my/error})) (catch :my/error e (ex-type e))) ;=> :my/error',
    ),
    "finally": SpecialDoc(
        "([& exprs])",
        "Inside try: what to do whatever happened, durably, even when the flow is cancelled.",
        "(let [a (atom 0)] (try 1 (finally (reset! a 2))) @a) ;=> 2",
    ),
}

"""Tests of flows: what deftest, answers and the virtual clock promise."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from flowmetal.errors import LispError, SourceError
from flowmetal.testing import TestResult, find_files, run_file, run_source
from flowmetal.testing.director import request_matches

SHOP = """
(defforeign charge-card "Charges a card." [order amount] {:retry {:max-attempts 3 :initial #dur "1s" :backoff 2.0}})
(defflow fulfil [{:keys [id total]}]
  (let [charge (charge-card id total)
        done (callback)]
    (http/post "https://courier.example/shipments?fast=1" {:json {:order id :notify (:url done)} :timeout #dur "30s"})
    (let [receipt (await done {:timeout #dur "14d"})]
      {:charge (:id charge) :tracking (:tracking receipt)})))
"""
ANSWERED = '(with-http {"POST /shipments" {:status 201}} (with-foreign {charge-card (fn [o a] {:id "ch_1"})} %s))'


def run(source: str, *, seconds: float = 20.0) -> dict[str, TestResult]:
    return {result.name: result for result in run_source(SHOP + source, seconds=seconds)}


def one(body: str, *, seconds: float = 20.0) -> TestResult:
    return run(f"(deftest it {body})", seconds=seconds)["it"]


def held(body: str) -> TestResult:
    """Runs a body all of whose assertions must hold."""
    result = one(body)
    assert result.ok, result
    assert result.passed > 0
    return result


def test_a_fortnight_is_tested_in_milliseconds() -> None:
    began = time.monotonic()
    held(
        ANSWERED
        % """(let [h (start fulfil {:id "A-17" :total 4200})]
        (advance! #dur "13d")
        (is (= :waiting (status h)))
        (advance! #dur "1d")
        (is (= :failed (status h)))
        (is (thrown? :flow/timeout (result h)))
        (is (= [["A-17" 4200]] (calls 'charge-card)))
        (is (= [{:value {:id "ch_1"}}] (results h 'charge-card))))"""
    )
    assert time.monotonic() - began < 2


def test_the_clock_stands_still_until_it_is_told() -> None:
    held("""(let [begun (now)]
      (settle!) (is (= begun (now)))
      (advance! #dur "90s") (is (= #dur "90s" (time/between begun (now)))))""")


def test_what_falls_due_on_the_way_runs_in_order() -> None:
    source = """(defflow nap [d] (sleep d) (now))
      (deftest it (let [hs (mapv (fn [d] (start nap d)) [#dur "3h" #dur "1h" #dur "2h"]) begun (now)]
        (advance! #dur "1d")
        (is (= [#dur "3h" #dur "1h" #dur "2h"] (mapv (fn [h] (time/between begun (result h))) hs)))
        (is (= #dur "1d" (time/between begun (now))))))"""
    assert run(source)["it"].ok


def test_waiting_lets_time_run_by_itself() -> None:
    source = """(defflow nap [] (sleep #dur "400d") :rested)
      (deftest it (let [begun (now)] (is (= :rested @(start nap))) (is (= #dur "400d" (time/between begun (now))))))"""
    assert run(source)["it"].ok


def test_each_test_has_a_store_of_its_own() -> None:
    source = """(defflow nap [] (receive))
      (deftest one (start-with {:id "nap"} nap) (is (= 1 (count (remove (fn [f] (= "test" (:kind f))) (flows))))))
      (deftest two (start-with {:id "nap"} nap) (is (= 1 (count (remove (fn [f] (= "test" (:kind f))) (flows))))))"""
    results = run(source)
    assert results["one"].ok and results["two"].ok


def test_the_same_test_comes_out_the_same() -> None:
    body = "(is (= 1 [(rand) (random-uuid) (shuffle [1 2 3 4 5])]))"
    assert one(body).failures[0].actual == one(body).failures[0].actual


@pytest.mark.parametrize(
    ("body", "expected", "actual"),
    [
        ("(is (= 1 (+ 1 1)))", "(= 1 (+ 1 1))", "(not (= 1 2))"),
        ('(is (str/blank? "x"))', '(str/blank? "x")', '(not (str/blank? "x"))'),
        ("(let [f (fn [] nil)] (is (f)))", "(f)", "nil"),
        ("(is false)", "false", "false"),
        ("(is (thrown? :arithmetic (inc 1)))", "(thrown? :arithmetic (inc 1))", "nothing was thrown"),
        ("(is (thrown? :value (/ 1 0)))", "(thrown? :value (/ 1 0))", "threw :arithmetic: /: division by zero"),
        ('(is (thrown-with-msg? :arithmetic #"nope" (/ 1 0)))', '(thrown-with-msg? :arithmetic #"nope" (/ 1 0))', "threw :arithmetic: /: division by zero"),
    ],
)
def test_a_failure_shows_what_was_expected_and_what_came(body: str, expected: str, actual: str) -> None:
    (failure,) = one(body).failures
    assert (failure.kind, failure.expected, failure.actual) == ("fail", expected, actual)


def test_a_failure_names_its_place_context_and_message() -> None:
    result = one('\n(testing "sums"\n  (testing "of two"\n    (is (= 3 (+ 1 1)) "too small")))')
    (failure,) = result.failures
    line = SHOP.count("\n") + 4
    assert (failure.file, failure.line, failure.column) == ("tests.flow", line, 5)
    assert (failure.contexts, failure.message) == (["sums", "of two"], "too small")


def test_an_assertion_that_throws_is_an_error_and_the_test_goes_on() -> None:
    result = one("(is (= 1 (/ 1 0))) (is true)")
    assert [f.kind for f in result.failures] == ["error"] and ":arithmetic" in result.failures[0].actual
    assert result.passed == 1


def test_an_error_outside_of_an_assertion_ends_the_test() -> None:
    result = one("(is true) (inc nil) (is false)")
    assert not result.ok and not result.failures and result.passed == 1
    assert "inc needs a number" in (result.error or "")


def test_assertions_give_their_values() -> None:
    held('(is (= [5 nil false] [(is 5) (and true (:a {})) (not 1)])) (is (= :user (ex-type (is (thrown? :user (throw (ex-info "x" {})))))))')


def test_are_asserts_for_each_group_of_values() -> None:
    result = one("(are [x y] (= x (* y y)) 4 2, 9 3, 10 4)")
    assert result.passed == 2 and result.failures[0].expected == "(= 10 (* 4 4))"
    with pytest.raises(SourceError, match="groups of 2"):
        one("(are [x y] (= x y) 1)")


def test_a_call_without_an_answer_fails_in_the_flow() -> None:
    held("(let [h (start fulfil {:id 1 :total 2})] (is (thrown? :test/unanswered @h)))")
    held('(is (thrown-with-msg? :test/unanswered #"with-http .*POST /x" (http/post "https://nowhere.example/x" {:json 1})))')
    assert "not answered: charge-card" in one("@(start fulfil {:id 1 :total 2})").output


def test_retries_happen_on_the_virtual_clock() -> None:
    held("""(let [n (atom 0) begun (now)]
      (with-foreign {charge-card (fn [& _] (if (< (swap! n inc) 3) (throw (ex-info "no" {:type :busy})) :charged))}
        (is (= :charged (charge-card 1 2)))
        (is (= 3 (count (calls 'charge-card))))
        (is (= #dur "3s" (time/between begun (now))))))""")
    held("""(with-http {"GET /flaky" {:status 503}}
      (is (thrown? :http/status (http/get "https://a.example/flaky")))
      (is (= 5 (count (calls "GET /flaky")))))""")


def test_an_answer_may_wait_and_be_too_late() -> None:
    held("""(with-foreign {slow (fn [] (sleep #dur "1h") :late)}
      (is (= :late (call 'slow [])))
      (is (thrown? :flow/timeout (call 'slow [] {:timeout #dur "1m"}))))""")
    held("""(with-http {"GET /slow" (fn [_] (sleep #dur "2h") {:status 200})}
      (is (thrown? :http/timeout (http/get "https://a.example/slow" {:timeout #dur "30s"}))))""")


def test_answers_see_the_request_and_give_a_response() -> None:
    held("""(with-http {"POST /v1/*" (fn [r] {:status 200 :headers {"x-a" "b"} :json (assoc (:json r) :path (:path r) :q (:query r))})}
      (let [r (http/post "https://a.example/v1/orders?x=1" {:json {:n 1}})]
        (is (= {:n 1 :path "/v1/orders" :q {:x "1"}} (:json r)))
        (is (= "b" (get-in r [:headers "x-a"] (get-in r [:headers :x-a]))))
        (is (= :post (:method (ffirst (calls "POST /v1/*")))))))""")


def test_secrets_are_stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWMETAL_SECRET_KEY", "the real one")
    held("""(with-http {"GET /a" (fn [r] {:json {:got (get-in r [:headers "authorization"] (get-in r [:headers :authorization]))}})}
      (is (= "Bearer secret KEY" (:got (:json (http/get "https://a.example/a" {:headers {"Authorization" (str "Bearer " (secret "KEY"))}}))))))""")


def test_processes_and_queries_are_answered_by_their_names() -> None:
    held("""(with-foreign {sh (fn [command] {:exit 0 :out "hi" :err ""}) sql/query (fn [url query params] [{:q query :p params}])}
      (is (= "hi" (:out (sh ["echo" "hi"]))))
      (is (= [{:q "SELECT 1" :p [2]}] (sql/query "duckdb://x" "SELECT 1" [2])))
      (is (= [[["echo" "hi"]]] (calls 'sh))))""")
    held('(is (thrown? :test/unanswered (sh ["rm" "-rf" "/"])))')


def test_the_innermost_answer_counts_and_ends_with_its_block() -> None:
    held("""(with-foreign {f (fn [] 1)}
      (is (= 2 (with-foreign {f (fn [] 2)} (call 'f []))))
      (is (= 1 (call 'f []))))
      (is (thrown? :test/unanswered (call 'f [])))""")


def test_a_webhook_comes_through_the_interpreters_own_door() -> None:
    held("""(let [notify (atom nil)]
      (with-foreign {charge-card (fn [o a] {:id "ch_1"})}
        (with-http {"POST /shipments" (fn [r] (reset! notify (:notify (:json r))) {:status 201})}
          (let [h (start fulfil {:id "A" :total 1})]
            (settle!)
            (is (= 202 (:status (http/post @notify {:json {:tracking "T1"}}))))
            (is (= {:charge "ch_1" :tracking "T1"} @h))))))""")


def test_a_test_that_waits_for_nothing_says_so() -> None:
    result = one("(is (= 1 (receive)))")
    assert "never comes" in (result.error or "") and "waits for receive" in (result.error or "")


def test_a_test_that_never_ends_is_stopped() -> None:
    result = one("(loop [n 0] (recur (inc n)))", seconds=0.3)
    assert "too long" in (result.error or "")


def test_a_result_that_is_not_there_yet_says_how_to_wait() -> None:
    held(ANSWERED % '(let [h (start fulfil {:id 1 :total 1})] (settle!) (is (thrown-with-msg? :value #"advance!" (result h))))')


def test_tools_of_tests_do_not_work_outside_of_one() -> None:
    source = '(defflow out [] (advance! #dur "1s")) (deftest it (is (thrown-with-msg? :value #"inside a deftest" @(start out))))'
    assert run(source)["it"].ok


def test_a_notebook_is_tested_by_its_definitions(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": "# (deftest no)"},
        {"cell_type": "code", "source": ['(defflow nap [] (sleep #dur "9d") :rested)\n', "(println 1)"]},
        {"cell_type": "code", "source": "%flows"},
        {"cell_type": "code", "source": "(def h (start nap))"},
        {"cell_type": "code", "source": "(ns other)\n(deftest naps\n  (is (= :rested @(start user/nap)))\n  (is (= 1 2)))"},
    ]
    path = tmp_path / "book.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    report = run_file(path)
    assert report.error is None, report.error
    (result,) = report.results
    assert (result.name, result.passed, len(result.failures)) == ("other/naps", 1, 1)
    assert (result.failures[0].file, result.failures[0].line) == (f"{path}#cell-5", 4)


def test_files_are_found_in_folders(tmp_path: Path) -> None:
    (tmp_path / "a.flow").write_text("(deftest a (is true))")
    (tmp_path / "b.flow").write_text("(def x 1)")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "c.flow").write_text("(deftest c (is true))")
    assert find_files([tmp_path]) == [tmp_path / "a.flow"]
    assert find_files([tmp_path / "b.flow"]) == [tmp_path / "b.flow"]
    with pytest.raises(LispError, match="there is no file"):
        find_files([tmp_path / "none.flow"])


@pytest.mark.parametrize(
    ("pattern", "request_", "matches"),
    [
        ("POST /a", "POST https://x.example/a", True),
        ("post /a", "POST https://x.example/a", True),
        ("GET /a", "POST https://x.example/a", False),
        ("GET /a", "GET https://x.example/a/b", False),
        ("GET /a/*", "GET https://x.example/a/b", True),
        ("GET https://x.example/a", "GET https://x.example/a", True),
        ("GET https://y.example/a", "GET https://x.example/a", False),
    ],
)
def test_answers_are_for_a_method_and_a_path(pattern: str, request_: str, matches: bool) -> None:
    assert request_matches(pattern, request_) is matches


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("(with-foreign 5 1)", "with-foreign needs a map of names and functions, but found 5"),
        ("(with-http [1] 1)", "with-http needs a map"),
        ('(with-http {"GET /x" 5} (http/get "http://a.example/x"))', "must be a map such as"),
        ('(with-http {"GET /x" {:status "no"}} (http/get "http://a.example/x"))', "a number from 100 to 599"),
        ("(advance! 5)", "needs a duration"),
        ('(advance! #dur "-1s")', "needs a duration"),
        ("(calls 5)", "expected a name"),
        ('(result "nope")', "there is no flow nope"),
        ("(with-foreign {f 5} (call 'f []))", "5 cannot be called"),
        ("(with-foreign {f (fn [] (atom 1))} (call 'f []))", "atom"),
    ],
)
def test_a_mistake_in_a_test_is_told(form: str, message: str) -> None:
    assert message in (one(form).error or "")


@pytest.mark.parametrize("text", ["[]", "{}", '{"cells": [1]}', '{"cells": [{"cell_type": "code"}]}', "no json"])
def test_what_is_no_notebook_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "book.ipynb"
    path.write_text(text)
    assert "is not a notebook" in str(run_file(path).error)


def test_two_tests_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "twins.flow"
    path.write_text("(deftest a (is false)) (deftest a (is true))")
    assert "defines the test a twice" in str(run_file(path).error)

"""Sagas: compensation in reverse order, durable, whatever happens on the way."""

from __future__ import annotations

import pytest

from flowmetal.testing import Program, check, run_source

ORDER = """
(defforeign charge-card "Charges a card." [order amount] {:retry {:max-attempts 5 :initial #dur "1s" :backoff 2.0}})
(defforeign refund-card "Gives it back: given {:value charge}, or what is known." [r])
(defflow fulfil
  "Charge, ship, wait for the courier's webhook; refund if it never comes."
  [{:keys [id total]}]
  (saga
    (let [charge (undoable (charge-card id total) refund-card)
          done   (callback)]
      (http/post "https://courier.example/shipments"
                 {:json {:order id :notify (:url done)} :timeout #dur "30s"})
      (let [receipt (await done {:timeout #dur "14d"})]
        {:order id :charge charge :tracking (:tracking receipt)}))))
(defforeign step [n])
(defforeign undo [n r])
(defflow steps [n] (saga (doseq [i (range n)] (undoable (step i) (fn [r] (undo i r)))) (throw (ex-info "too late" {:n n}))))
"""


def held(test: str) -> None:
    (result,) = run_source(f"{ORDER}(deftest it {test})")
    assert result.ok, result
    assert result.passed


def test_refunds_when_the_courier_is_silent() -> None:
    held("""(with-http {"POST /shipments" {:status 201}}
      (with-foreign {charge-card (fn [o a] {:id "ch_1"}) refund-card (fn [r] :refunded)}
        (let [h (start fulfil {:id "A-17" :total 4200})]
          (advance! #dur "13d")
          (is (= :waiting (status h)))
          (advance! #dur "1d")
          (is (= :failed (status h)))
          (is (= [[{:value {:id "ch_1"}}]] (calls 'refund-card))))))""")


def test_nothing_is_undone_when_all_went_well() -> None:
    held("""(with-foreign {step (fn [n] n) undo (fn [n r] nil)}
      (is (= 3 (saga (undoable (step 3) (fn [r] (undo 3 r))))))
      (is (= [] (calls 'undo))))""")


def test_rollbacks_run_in_reverse_and_the_error_goes_on() -> None:
    held("""(with-foreign {step (fn [n] (* n 10)) undo (fn [n r] nil)}
      (is (thrown-with-msg? :user #"too late" @(start steps 3)))
      (is (= [[2 {:value 20}] [1 {:value 10}] [0 {:value 0}]] (calls 'undo))))""")


def test_a_step_that_failed_is_undone_as_well() -> None:
    held("""(with-foreign {step (fn [n] (if (= n 1) (throw (ex-info "no" {:type :my/no})) n)) undo (fn [n r] nil)}
      (is (thrown? :my/no @(start steps 3)))
      (is (= [1 0] (mapv first (calls 'undo))))
      (is (= :my/no (ex-type (:error (second (first (calls 'undo))))))))""")


def test_a_rollback_that_fails_does_not_keep_others_from_running() -> None:
    held("""(with-foreign {step (fn [n] n) undo (fn [n r] (if (= n 1) (throw (ex-info "stuck" {:type :my/stuck})) nil))}
      (let [e (is (thrown? :user @(start steps 3)))]
        (is (= 3 (count (calls 'undo))))
        (is (= "too late" (ex-message e)))
        (is (= [:my/stuck] (map :type (:flow/rollback-failures (ex-data e)))))
        (is (= 3 (:n (ex-data e))))))""")


def test_cancelling_a_flow_undoes_what_it_did() -> None:
    held("""(with-http {"POST /shipments" {:status 201}}
      (with-foreign {charge-card (fn [o a] {:id "ch_1"}) refund-card (fn [r] (sleep #dur "1h") :refunded)}
        (let [h (start fulfil {:id "A-17" :total 4200})]
          (advance! #dur "1d")
          (cancel! h "changed my mind")
          (advance! #dur "30m")
          (cancel! h "now!")
          (advance! #dur "1h")
          (is (= :cancelled (status h)))
          (is (= [[{:value {:id "ch_1"}}]] (calls 'refund-card)))
          (is (= [{:value :refunded}] (results h 'refund-card))))))""")


def test_a_call_in_flight_is_undone_by_its_key() -> None:
    held("""(with-foreign {charge-card (fn [o a] (sleep #dur "1d") {:id "late"}) refund-card (fn [r] :refunded)}
      (let [h (start fulfil {:id "A-17" :total 4200})]
        (advance! #dur "1h")
        (cancel! h)
        (advance! #dur "1h")
        (is (= :cancelled (status h)))
        (is (str/ends-with? (:unknown (ffirst (calls 'refund-card))) "/1"))))""")


@pytest.mark.parametrize(
    ("call", "key"),
    [
        ("(step (do (now) (now) 7))", "/3"),
        ('(call \'step [7] {:idempotency-key "mine"})', "mine"),
        ('(race (step 7) (sleep #dur "9d"))', "/1"),
        ("(do (inc 1) (step 7))", "/1"),
    ],
)
def test_the_key_of_a_call_in_flight_is_that_under_which_it_was_sent(call: str, key: str) -> None:
    (result,) = run_source(f"""{ORDER} (defflow one [] (saga (undoable {call} (fn [r] (undo 1 r)))))
      (deftest it (with-foreign {{step (fn [n] (sleep #dur "1d") n) undo (fn [n r] nil)}}
        (let [h (start one)]
          (settle!) (cancel! h) (settle!)
          (is (= :cancelled (status h)))
          (is (str/ends-with? (:unknown (second (first (calls 'undo)))) "{key}")))))""")
    assert result.ok, result


@pytest.mark.parametrize("before", ["(try 0 (finally (step 1)))", "(saga (try 0 (finally (undoable (step 1) (fn [r] (undo 1 r))))))"])
def test_a_call_that_was_not_made_is_not_undone(before: str) -> None:
    """A cancel that finds its flow in a clean-up comes after it, before anything more is asked."""
    (result,) = run_source(f"""{ORDER} (defflow late [] {before} (saga (undoable (step 2) (fn [r] (undo 2 r)))))
      (deftest it (with-foreign {{step (fn [n] (sleep #dur "1d") n) undo (fn [n r] nil)}}
        (let [h (start late)]
          (settle!) (cancel! h) (advance! #dur "2d")
          (is (= :cancelled (status h)))
          (is (= [[1]] (calls 'step)))
          (is (= [] (calls 'undo))))))""")
    assert result.ok, result


def test_what_an_inner_saga_did_the_outer_one_undoes() -> None:
    held("""(with-foreign {undo (fn [n r] nil)}
      (is (thrown? :user (saga (on-rollback (undo 1 nil)) (saga (on-rollback (undo 2 nil)) :fine) (on-rollback (undo 3 nil)) (throw (ex-info "x" {})))))
      (is (= [3 2 1] (mapv first (calls 'undo)))))""")


def test_fibers_begun_in_a_saga_stand_in_it() -> None:
    held("""(with-foreign {step (fn [n] n) undo (fn [n r] nil)}
      (is (thrown? :user (saga (pmap (fn [n] (undoable (step n) (fn [r] (undo n r)))) [1 2]) (throw (ex-info "x" {})))))
      (is (= #{1 2} (set (map first (calls 'undo))))))""")


@pytest.mark.parametrize("form", ["(on-rollback 1)", "(undoable (inc 1) (fn [r] r))"])
def test_outside_of_a_saga_there_is_nothing_to_register_with(form: str) -> None:
    held(f'(is (thrown-with-msg? :value #"inside a saga" {form}))')


def test_rollbacks_survive_crashes_at_every_commit() -> None:
    source = """(defforeign step [n]) (defforeign undo [n r])
      (defflow main [] (saga (undoable (step 1) (fn [r] (undo 1 r))) (on-rollback (sleep #dur "1h") (undo 2 nil)) (step 3) (throw (ex-info "x" {}))))"""
    outcomes = check(Program(source))
    assert outcomes[0].ending["status"] == "failed"
    assert len(outcomes[0].world.sent) == 4

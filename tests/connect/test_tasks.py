"""Foreign calls over HTTP: what any program that speaks it may rely on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from engines import TOKEN, Door, door
from stores import Stores

PROGRAM = """
(defforeign charge "Charges a card." [order amount] {:retry {:max-attempts 3 :initial #dur "50ms"}})
(defflow buy [order amount] (charge order amount))
(defflow plain [x] (call "plain" [x]))
(defflow keyed [x] (call :keyed [x] {:idempotency-key (str "order-" x)}))
(defflow queued [x] (call "queued" [x] {:queue "gpu"}))
(defflow hurry [] (try (call "nobody" [] {:timeout #dur "100ms"}) (catch :flow/timeout e :too-late)))
(defflow bounded [] (call "bounded" [] {:attempt-timeout #dur "100ms" :retry {:max-attempts 2 :initial #dur "10ms"}}))
(defflow once [] (try (call "once" [] {:at-most-once true :retry {:max-attempts 3 :initial #dur "10ms"}}) (catch :effect/interrupted e :unknown)))
(defflow picky [] (call "picky" [] {:retry {:max-attempts 5 :initial #dur "10ms" :on #{:card/busy}}}))
(defflow bad [] (call "bad" [] {:retry {:max-attempts 0}}))
(defflow odd [] (call "odd" [] {:retries 3}))
(defflow rich [] (call "rich" [{:k :kw :d #dur "90s" :s #{1}} [1.5M] (secret "API_KEY") (str "Bearer " (secret "API_KEY"))]))
(defflow first-of [] (race (call "slow" []) (receive)))
"""


@pytest.fixture(scope="module")
def http(module_stores: Stores) -> Iterator[Door]:
    with door(module_stores.quick(), PROGRAM) as client:
        yield client


def test_a_call_is_leased_with_what_the_contract_names_and_its_answer_is_the_value(http: Door) -> None:
    flow = http.start("buy", "A-17", 4200)
    (task,) = http.lease("charge", max=5)
    assert {"id", "function", "args", "attempt", "idempotency_key", "deadline"} <= set(task)
    assert (task["function"], task["args"], task["attempt"], task["deadline"]) == ("charge", ["A-17", 4200], 1, None)
    assert task["idempotency_key"].endswith("/1")
    assert http.get(f"/v1/flows/{flow}").json()["status"] == "waiting"
    assert http.answer(task, "complete", result={"id": "ch_1"}) == 200
    assert http.result(flow) == {"id": "ch_1"}


def test_an_answer_given_twice_is_given_once(http: Door) -> None:
    flow = http.start("plain", 1)
    (task,) = http.lease("plain")
    assert [http.answer(task, "complete", result=n) for n in (1, 2)] == [200, 200]
    assert http.result(flow) == 1
    assert http.answer(task, "complete", result=3) == 200
    assert http.answer(task, "fail", error={"message": "no"}) == 409, "it did not fail"
    assert http.rows("SELECT count(*) FROM events WHERE flow_id = ? AND kind = 'effect-completed'", flow) == [[1]]


def test_only_asked_for_functions_are_leased_and_at_most_so_many(http: Door) -> None:
    flows = [http.start("plain", n) for n in range(5)]
    assert http.lease("other", wait=0) == []
    tasks = http.lease("plain", "other", max=3)
    assert [t["args"] for t in tasks] == [[0], [1], [2]], "the oldest first"
    rest = http.lease("plain", max=10, wait=0)
    assert [t["args"] for t in rest] == [[3], [4]]
    for task in tasks + rest:
        http.answer(task, "complete", result=task["args"][0])
    assert [http.result(f) for f in flows] == [0, 1, 2, 3, 4]


def test_a_worker_that_waits_gets_the_call_as_soon_as_it_is_made(http: Door) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(http.lease, "plain") for _ in range(2)]
        flows = [http.start("plain", n) for n in range(2)]
        tasks = [task for w in waiting for task in w.result(10)]
        assert sorted(t["args"][0] for t in tasks) == [0, 1], "each to one of them"
        for task in tasks:
            http.answer(task, "complete", result="done")
    assert [http.result(f) for f in flows] == ["done", "done"]


def test_a_failed_attempt_is_made_again_under_the_same_key_after_a_recorded_wait(http: Door) -> None:
    flow = http.start("buy", "B", 1)
    keys = []
    for attempt in (1, 2):
        (task,) = http.lease("charge")
        assert task["attempt"] == attempt
        keys.append(task["idempotency_key"])
        assert http.answer(task, "fail", error={"type": "card/busy", "message": "busy", "data": {"n": attempt}}) == 200
        assert http.answer(task, "fail", error={"type": "card/busy", "message": "busy"}) == 200, "a repetition is harmless"
    (task,) = http.lease("charge")
    assert (task["attempt"], {*keys}) == (3, {task["idempotency_key"]})
    failed = http.rows(
        "SELECT data->>'attempt', data->'error'->>'type', CAST(data->>'next_at' AS TIMESTAMPTZ) - \"at\" >= INTERVAL '15 milliseconds' FROM events "
        "WHERE flow_id = ? AND kind = 'attempt-failed'",
        flow,
    )
    assert failed == [["1", "card/busy", True], ["2", "card/busy", True]]
    http.answer(task, "complete", result="paid")
    assert http.result(flow) == "paid"
    assert http.rows("SELECT op, target, attempts, status FROM effects WHERE flow_id = ?", flow) == [["foreign", "charge", 3, "completed"]]


def test_the_last_failure_is_thrown_with_its_type_message_and_data(http: Door) -> None:
    flow = http.start("plain", 1)
    (task,) = http.lease("plain")
    http.answer(task, "fail", error={"type": "card/declined", "message": "no money", "data": {"code": 51}})
    error = http.ended(flow)["error"]
    assert (error["type"], error["message"], error["data"]) == ("card/declined", "no money", {"code": 51})


def test_a_worker_may_forbid_another_attempt(http: Door) -> None:
    flow = http.start("buy", "C", 1)
    (task,) = http.lease("charge")
    assert http.answer(task, "fail", error={"message": "never"}, retry=False) == 200
    assert http.ended(flow)["error"]["type"] == "user"


def test_only_the_errors_that_retry_names_are_tried_again(http: Door) -> None:
    flow = http.start("picky")
    http.answer(http.lease("picky")[0], "fail", error={"type": "card/busy", "message": "busy"})
    http.answer(http.lease("picky")[0], "fail", error={"type": "card/stolen", "message": "stolen"})
    assert http.ended(flow)["error"]["type"] == "card/stolen"


def test_a_lease_that_runs_out_is_given_to_another_and_the_first_is_fenced_off(http: Door) -> None:
    flow = http.start("plain", 1)
    (first,) = http.lease("plain", lease=0.1)
    (second,) = http.lease("plain")
    assert second["id"] != first["id"]
    assert (second["idempotency_key"], second["attempt"]) == (first["idempotency_key"], 1), "a lost lease is no attempt"
    assert http.answer(first, "heartbeat") == 409
    assert http.answer(first, "complete", result="late") == 409
    assert http.answer(first, "fail", error={"message": "late"}) == 409
    assert http.answer(second, "complete", result="right") == 200
    assert http.result(flow) == "right"
    assert http.answer(first, "complete", result="late") == 409


def test_a_heartbeat_extends_a_lease(http: Door) -> None:
    flow = http.start("plain", 1)
    (task,) = http.lease("plain", lease=1)
    for _ in range(3):
        assert http.lease("plain", wait=0.4) == []
        assert http.answer(task, "heartbeat") == 200
    assert http.answer(task, "complete", result=1) == 200
    assert http.result(flow) == 1


def test_the_time_of_a_call_covers_its_waiting_for_a_worker(http: Door) -> None:
    assert http.result(http.start("hurry")) == "too-late"
    assert http.lease("nobody", wait=0) == []


def test_an_attempt_has_a_time_of_its_own(http: Door) -> None:
    flow = http.start("bounded")
    (first,) = http.lease("bounded")
    assert first["deadline"] is not None
    (second,) = http.lease("bounded")
    assert second["attempt"] == 2
    assert http.answer(first, "complete", result=1) == 409
    assert http.ended(flow)["error"]["type"] == "flow/timeout"


def test_a_call_at_most_once_is_never_leased_again(http: Door) -> None:
    flow = http.start("once")
    (task,) = http.lease("once", lease=0.1)
    kinds = [e["kind"] for e in http.get(f"/v1/flows/{flow}/events").json()]
    assert "attempt-started" in kinds, "it is on record that it was sent"
    assert http.result(flow) == "unknown"
    assert http.lease("once", wait=0) == []
    assert http.answer(task, "complete", result=1) == 409


def test_a_lease_that_runs_out_is_no_attempt_and_the_history_shows_it(http: Door) -> None:
    flow = http.start("keyed", 8)
    (first,) = http.lease("keyed", lease=0.1)
    (second,) = http.lease("keyed")
    assert (first["attempt"], second["attempt"], second["idempotency_key"]) == (1, 1, first["idempotency_key"])
    assert http.answer(first, "complete", result="late") == 409
    http.answer(second, "complete", result=None)
    http.ended(flow)
    shown = [(e["kind"], e["data"]["task"]) for e in http.get(f"/v1/flows/{flow}/events").json() if "task" in e["data"]]
    assert shown == [("lease-expired", first["id"]), ("effect-completed", second["id"])]


def test_at_most_once_another_attempt_needs_the_workers_word_that_nothing_happened(http: Door) -> None:
    flow = http.start("once")
    http.answer(http.lease("once")[0], "fail", error={"message": "not sent"}, retry=True)
    (task,) = http.lease("once")
    assert task["attempt"] == 2
    http.answer(task, "fail", error={"type": "card/declined", "message": "who knows"})
    assert http.ended(flow)["error"]["type"] == "card/declined"


def test_a_call_that_is_wanted_no_more_is_not_sent_and_a_late_answer_is_recorded_and_ignored(http: Door) -> None:
    flow = http.start("first-of")
    (task,) = http.lease("slow")
    http.post(f"/v1/flows/{flow}/messages", json="enough")
    assert http.result(flow) == "enough"
    assert http.answer(task, "heartbeat") == 409
    assert http.answer(task, "complete", result=1) == 409
    assert http.lease("slow", wait=0) == []
    assert http.rows("SELECT status FROM effects WHERE flow_id = ? AND op = 'foreign'", flow) == [["cancelled"]]


def test_an_idempotency_key_of_the_programs_own(http: Door) -> None:
    http.start("keyed", 7)
    (task,) = http.lease("keyed")
    assert task["idempotency_key"] == "order-7"
    http.answer(task, "complete", result=None)


def test_queues_choose_their_workers(http: Door) -> None:
    flow = http.start("queued", 1)
    assert http.lease("queued", queues=["cpu"], wait=0) == []
    (task,) = http.lease("queued", queues=["cpu", "gpu"])
    http.answer(task, "complete", result=1)
    assert http.result(flow) == 1


def test_arguments_are_the_plain_json_that_they_stand_for_and_a_secret_is_its_name(http: Door) -> None:
    http.start("rich")
    (task,) = http.lease("rich")
    assert task["args"] == [{"k": "kw", "d": 90, "s": [1]}, [1.5], "API_KEY", "Bearer #secret[API_KEY]"]
    http.answer(task, "complete", result=None)


def test_options_that_mean_nothing_fail_in_the_program(http: Door) -> None:
    assert ":max-attempts" in http.ended(http.start("bad"))["error"]["message"]
    odd = http.ended(http.start("odd"))["error"]
    assert odd["type"] == "value" and ":retries" in odd["message"] and ":retry" in odd["message"]


@pytest.mark.parametrize(
    "body",
    [{}, {"functions": []}, {"functions": "charge"}, {"functions": ["a"], "max": 0}, {"functions": ["a"], "lease": -1}, {"functions": ["a"], "hello": 1}],
)
def test_a_lease_that_makes_no_sense_is_refused(http: Door, body: object) -> None:
    answer = http.post("/v1/tasks/lease", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("task_id", ["nonsense", "a~1~b", "x~y~z", "%20", "simulated~1"])
def test_an_unknown_task_is_a_lost_lease(http: Door, task_id: str) -> None:
    answer = http.post(f"/v1/tasks/{task_id}/complete", json={"result": 1})
    assert answer.status_code == 409, answer.text
    assert "lease" in answer.json()["detail"]


def test_the_token_is_needed(http: Door) -> None:
    for path in ("lease", "x/complete", "x/fail", "x/heartbeat"):
        assert http.post(f"/v1/tasks/{path}", json={}, headers={"Authorization": "Bearer no"}).status_code == 401


def test_a_worker_that_goes_away_while_it_waits_is_given_nothing(http: Door) -> None:
    address = urlsplit(str(http.base_url))
    body = b'{"functions":["plain"],"wait":30}'
    head = f"POST /v1/tasks/lease HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((address.hostname, address.port)) as gone:
        gone.sendall(head.encode() + body)
        while not http.engine.foreign.pollers:
            http.get("/healthz")
    while http.engine.foreign.pollers:
        http.get("/healthz")
    flow = http.start("plain", "still here")
    (task,) = http.lease("plain", wait=5)
    http.answer(task, "complete", result=1)
    assert http.result(flow) == 1

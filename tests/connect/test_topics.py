"""Topics over HTTP: plain JSON, CloudEvents, signatures; subscriptions that lose nothing."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from engines import Door, door
from stores import Stores

PROGRAM = """
(defflow take-one [topic options] (next-event (subscribe topic options)))
(defflow take-all [topic n where]
  (let [s (subscribe topic {:where where})]
    (loop [got []] (if (= n (count got)) got (recur (conj got (:n (next-event s))))))))
(defflow about [topic] (meta (next-event (subscribe topic {:envelope {:type "com.example.paid"}}))))
(defflow tell [topic data] (publish topic data))
(defflow declare [name options] (topic name options))
(defflow hook [scheme]
  (topic (str "signed-" scheme) {:verify {:scheme (keyword scheme) :secret (secret "HOOK") :header "x-sign" :prefix "v1="}})
  (next-event (subscribe (str "signed-" scheme))))
(defflow endings [] (next-event (subscribe "$flows" {:where {:name "fails"}})))
(defflow fails [] (throw (ex-info "no" {:type :my/no})))
(defflow both [topic]
  (let [s (subscribe topic)]
    (let [a (async (next-event s)) event (next-event s)]
      [event (try @a (catch :value e (ex-message e)))])))
(defflow patient [topic]
  (let [s (subscribe topic)]
    [(try (with-timeout #dur "50ms" (next-event s)) (catch :flow/timeout e :nothing)) (:n (next-event s)) (:n (next-event s))]))
"""


@pytest.fixture(scope="module")
def http(module_stores: Stores) -> Iterator[Door]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWMETAL_SECRET_HOOK", "c2VjcmV0")
        with door(module_stores.quick(), PROGRAM) as client:
            yield client


def subscribed(http: Door, name: str, *args: Any) -> str:
    flow = http.start(name, *args)
    http.waits_for(flow, "next-event")
    return flow


def post(http: Door, topic: str, body: Any, status: int = 202, **headers: str) -> dict[str, Any]:
    answer = http.post(f"/v1/topics/{topic}", json=body, headers={k.replace("_", "-"): v for k, v in headers.items()})
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_an_event_reaches_who_subscribed(http: Door) -> None:
    flow = subscribed(http, "take-one", "orders", {})
    answer = post(http, "orders", {"id": 7})
    assert answer["duplicate"] is False
    assert http.result(flow) == {"id": 7}
    rows = http.rows("SELECT flow_id, topic, data->>'$.id', consumed_at IS NOT NULL FROM messages WHERE message_id = ? ORDER BY flow_id", answer["message_id"])
    assert sorted(rows, key=repr) == sorted([[None, "orders", "7", False], [flow, "orders", "7", True]], key=repr), "the topic's own row, and one a delivery"


def test_only_what_the_pattern_matches_wakes_a_flow(http: Door) -> None:
    flow = subscribed(http, "take-all", "pushes", 2, {"kind": "push"})
    before = len(http.get(f"/v1/flows/{flow}/events").json())
    for n, kind in enumerate(["pull", "push", "pull", "pull", "push"]):
        post(http, "pushes", {"n": n, "kind": kind})
    assert http.result(flow) == [1, 4]
    kinds = [e["kind"] for e in http.get(f"/v1/flows/{flow}/events").json()[before:]]
    assert kinds.count("effect-completed") == 2


def test_events_come_in_order_and_none_is_lost_between_two_questions(http: Door) -> None:
    flow = subscribed(http, "take-all", "many", 30, None)
    for n in range(30):
        post(http, "many", {"n": n})
    assert http.result(flow) == list(range(30))


@pytest.mark.parametrize("start", [":start", '#inst "2020-01-01"'])
def test_a_subscription_may_begin_in_the_past(http: Door, start: str) -> None:
    topic = f"past-{start[1:5]}"
    post(http, topic, {"n": 1})
    source = f'(:n (next-event (subscribe "{topic}" {{:from {start}}})))'
    flow = http.post("/v1/eval", json={"source": source}).json()["flow_id"]
    assert http.result(flow) == 1


def test_a_repetition_is_known_by_its_key(http: Door) -> None:
    for header in ("Idempotency-Key", "webhook-id", "X-GitHub-Delivery"):
        first = post(http, "twice", {"n": 1}, **{header: f"{header}-1"})
        again = post(http, "twice", {"n": 1}, **{header: f"{header}-1"})
        assert (first["duplicate"], again["duplicate"]) == (False, True)
        assert again["message_id"] == first["message_id"]
        assert post(http, "another", {"n": 1}, **{header: f"{header}-1"})["duplicate"] is False, "keys belong to their topic"
    assert http.rows("SELECT count(*) FROM messages WHERE topic = 'twice'") == [[3]]


EVENT = {"specversion": "1.0", "id": "e-1", "source": "/shop", "type": "com.example.paid", "data": {"n": 5}}


def structured(http: Door, topic: str, event: Any, kind: str = "application/cloudevents+json") -> httpx.Response:
    return http.post(f"/v1/topics/{topic}", content=json.dumps(event), headers={"Content-Type": kind})


def binary(http: Door, topic: str, event: dict[str, Any]) -> httpx.Response:
    headers = {f"ce-{name}": value for name, value in event.items() if name != "data"}
    return http.post(f"/v1/topics/{topic}", json=event["data"], headers=headers)


@pytest.mark.parametrize("send", [structured, binary])
def test_a_cloud_event_is_its_data_with_its_attributes_about_it(http: Door, send: Any) -> None:
    topic = f"cloud-{send.__name__}"
    value, about = subscribed(http, "take-one", topic, {"where": {"n": 5}}), subscribed(http, "about", topic)
    assert send(http, topic, {**EVENT, "type": "com.example.other", "id": "e-0", "data": {"n": 1}}).status_code == 202
    first, again = send(http, topic, EVENT), send(http, topic, EVENT)
    assert (first.status_code, first.json()["duplicate"], again.json()["duplicate"]) == (202, False, True), "source and id name it"
    assert http.result(value) == {"n": 5}
    assert {k: http.result(about)[k] for k in ("id", "source", "type", "topic")} == {"id": "e-1", "source": "/shop", "type": "com.example.paid", "topic": topic}
    assert http.rows("SELECT source FROM messages WHERE topic = ? AND flow_id IS NULL", topic) == [["/shop"], ["/shop"]]


def test_a_batch_of_cloud_events(http: Door) -> None:
    flow = subscribed(http, "take-all", "batch", 3, None)
    events = [{**EVENT, "id": f"b-{n}", "data": {"n": n}} for n in range(3)]
    answer = structured(http, "batch", events, "application/cloudevents-batch+json")
    assert answer.status_code == 202 and len(set(answer.json()["message_ids"])) == 3, answer.text
    assert sorted(http.result(flow)) == [0, 1, 2]
    assert structured(http, "batch", events, "application/cloudevents-batch+json").json()["duplicate"] is True


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"id": "1"}, "application/cloudevents+json"),
        ([1], "application/cloudevents+json"),
        ({**EVENT, "specversion": "0.3"}, "application/cloudevents+json"),
        ({**EVENT, "data_base64": "x"}, "application/cloudevents+json"),
        (EVENT, "application/cloudevents-batch+json"),
    ],
)
def test_what_says_it_is_a_cloud_event_and_is_none_is_refused(http: Door, body: Any, kind: str) -> None:
    answer = structured(http, "refused", body, kind)
    assert answer.status_code == 422 and "CloudEvent" in answer.text, answer.text


def test_what_may_be_sent_has_limits(http: Door) -> None:
    for name in ("$flows", "a%20b", "%00", "x" * 201):
        post(http, name, {}, 422)
    assert "interpreter's own" in http.ended(http.start("tell", "$flows", {}))["error"]["message"]
    assert http.post("/v1/topics/big", content=b"[" + b"1," * 600_000 + b"1]").status_code == 413
    assert http.post("/v1/topics/deep", content=b"[" * 100 + b"]" * 100, headers={"Content-Type": "application/json"}).status_code == 422
    assert http.post("/v1/topics/none", json=1, headers={"Authorization": "Bearer no"}).status_code == 401
    assert httpx.post(f"{http.base_url}/v1/topics/none", json=1).status_code == 401


SECRET = "c2VjcmV0"


def sign(scheme: str, body: bytes, at: int, secret: str = SECRET) -> dict[str, str]:
    if scheme == "standard-webhooks":
        digest = hmac.digest(base64.b64decode(secret), f"m-1.{at}.".encode() + body, "sha256")
        signature = f"v1,{base64.b64encode(b'other').decode()} v1,{base64.b64encode(digest).decode()}"
        return {"webhook-id": "m-1", "webhook-timestamp": str(at), "webhook-signature": signature}
    if scheme == "stripe":
        digest_hex = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
        return {"stripe-signature": f"t={at},v1=00,v1={digest_hex},v0=ff"}
    digest_hex = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"x-hub-signature-256": f"sha256={digest_hex}"} if scheme == "github" else {"X-Sign": f"v1={digest_hex}"}


@pytest.mark.parametrize("scheme", ["standard-webhooks", "github", "stripe", "hmac"])
def test_a_signed_topic_takes_what_was_signed_with_its_secret_and_needs_no_token(http: Door, scheme: str) -> None:
    flow = subscribed(http, "hook", scheme)
    body, now, url = b'{"n": 1}', int(time.time()), f"{http.base_url}/v1/topics/signed-{scheme}"
    bad = [{}, sign(scheme, body + b" ", now), sign(scheme, body, now, "b3RoZXI=")]
    if scheme in ("standard-webhooks", "stripe"):
        bad += [sign(scheme, body, now - 1000), sign(scheme, body, now + 1000)]
    for headers in bad:
        refused = httpx.post(url, content=body, headers=headers)
        assert refused.status_code == 401, (headers, refused.text)
        assert SECRET not in refused.text
    assert httpx.post(url, content=body, headers=sign(scheme, body, now)).status_code == 202
    assert http.result(flow) == {"n": 1}
    assert post(http, f"signed-{scheme}", {"n": 2})["duplicate"] is False, "with the token no signature is needed"


def test_the_example_of_the_standard_webhooks_specification() -> None:
    from flowmetal.connect.signatures import Scheme, verify

    headers = {"webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek", "webhook-timestamp": "1614265330"}
    headers["webhook-signature"] = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    verify(Scheme("standard-webhooks"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", headers, b'{"test": 2432232314}', 1614265330)


def test_the_example_of_githubs_documentation() -> None:
    from flowmetal.connect.signatures import Scheme, verify

    headers = {"x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"}
    verify(Scheme("github"), "It's a Secret to Everybody", headers, b"Hello, World!", 0)


@pytest.mark.parametrize("options", [{"verify": 1}, {"verify": {"scheme": "github"}}, {"retain": 3}, {"hello": 1}])
def test_a_declaration_that_means_nothing_fails_in_the_program(http: Door, options: Any) -> None:
    assert http.ended(http.start("declare", "odd", options))["error"]["type"] == "value"


def test_flows_publish_too_and_once(http: Door) -> None:
    flow = subscribed(http, "take-one", "told", {})
    message_id = http.result(http.start("tell", "told", {"a": [1, {"b": None}]}))
    assert http.result(flow) == {"a": [1, {"b": None}]}
    assert http.rows("SELECT message_id FROM messages WHERE topic = 'told' AND flow_id IS NULL") == [[message_id]]


def test_every_ending_of_a_flow_is_an_event(http: Door) -> None:
    watcher = subscribed(http, "endings")
    flow = http.start("fails")
    event = http.result(watcher)
    assert (event["flow_id"], event["status"], event["error"]) == (flow, "failed", {"type": "my/no", "message": "no"})


def test_an_event_that_came_too_late_for_one_question_is_there_for_the_next(http: Door) -> None:
    flow = http.start("patient", "slow")
    time_out = time.monotonic() + 10
    while len([e for e in http.get(f"/v1/flows/{flow}/events").json() if (e["data"] or {}).get("op") == "next-event"]) < 2:
        assert time.monotonic() < time_out
    post(http, "slow", {"n": 1})
    post(http, "slow", {"n": 2})
    assert http.result(flow) == ["nothing", 1, 2]


def test_two_fibers_need_two_subscriptions(http: Door) -> None:
    flow = subscribed(http, "both", "shared")
    post(http, "shared", {"n": 1})
    event, said = http.result(flow)
    assert event == {"n": 1} and "subscribe once for each" in said


def test_subscriptions_and_declarations_survive_a_restart(stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWMETAL_SECRET_HOOK", SECRET)
    path = tmp_path / "flowmetal.duckdb"
    with closing(stores.open(path)) as store, door(store, PROGRAM) as http:
        flow, signed = subscribed(http, "take-all", "kept", 3, {"k": 1}), subscribed(http, "hook", "github")
        post(http, "kept", {"n": 1, "k": 1})
        post(http, "kept", {"n": 2, "k": 2})
    with closing(stores.open(path)) as store, door(store, "") as http:
        http.waits_for(flow, "next-event")
        post(http, "kept", {"n": 3, "k": 1})
        post(http, "kept", {"n": 4, "k": 1})
        assert http.result(flow) == [1, 3, 4]
        body = b'{"n": 9}'
        url = f"{http.base_url}/v1/topics/signed-github"
        assert httpx.post(url, content=body).status_code == 401
        assert httpx.post(url, content=body, headers=sign("github", body, 0)).status_code == 202
        assert http.result(signed) == {"n": 9}

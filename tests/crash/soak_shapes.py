"""The flows of a soak: their source, what a client does for each besides starting it, and how each must end.

In: what the outside server knows. Out: an AssertionError for a flow that ended otherwise. Every effect of a flow has a
path of its own, so that its keys can be counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from soak_server import Outside

SOURCE = """
(defn effect [base path body]
  (:id (:json (http/post (str base path) {:json body :retry {:max-attempts 20 :initial #dur "20ms" :max #dur "300ms"}}))))
(defn done [base id n] (effect base (str "/do/" id "/" n) {:n n}))
(defforeign handed [id n] {:retry {:max-attempts 9 :initial #dur "20ms"}})

(defflow leaf [base id n] (done base id n))
(defflow chain [base id] (loop [n 0 got []] (if (< n 8) (recur (inc n) (conj got (done base id n))) got)))
(defflow saga-fails [base id]
  (saga
    (doseq [n (range 3)] (undoable (done base id n) (fn [r] (effect base (str "/undo/" id "/" n) {:of (:value r)}))))
    (sleep #dur "100ms")
    (effect base (str "/fail/" id "/0") {})))
(defflow fan [base id] (pmap (fn [n] (done base id n)) (range 8) {:max 4}))
(defflow once [base id]
  (mapv (fn [n]
          (try (:id (:json (http/post (str base "/once/" id "/" n) {:json {:n n} :at-most-once true})))
               (catch :default e (do (log {:n n :error (ex-type e)}) :unknown))))
        (range 4)))
(defflow naps [base id] (mapv (fn [n] (sleep #dur "300ms") (done base id n)) (range 4)))
(defflow hook [base id]
  (mapv (fn [n] (let [c (callback)] [(effect base (str "/do/" id "/" n) {:notify (:url c)}) (:paid (await c))])) (range 3)))
(defflow kids [base id]
  (let [a (start leaf base id 1) b (start leaf base id 2)]
    [(leaf base id 0) @a @b]))
(defflow again
  ([base id] (continue-as base id 0 []))
  ([base id n got] (let [got (conj got (done base id n))] (if (< n 4) (continue-as base id (inc n) got) got))))
(defflow line [base id]
  (let [hs (mapv (fn [n] (start-with {:queue :narrow} leaf base id n)) (range 4))]
    (mapv deref hs)))
(defflow mail [base id] (mapv (fn [n] (let [m (receive)] (done base id n) (:n m))) (range 4)))
(defflow listener [base id]
  (let [sub (subscribe "soak" {:where {:for id} :from :start})]
    (mapv (fn [n] (:n (next-event sub))) (range 4))))
(defflow waits [base id] (try (receive) (finally (done base id 0) (sleep #dur "50ms") (done base id 1))))
(defflow worked [base id] (mapv (fn [n] (handed id n)) (range 3)))
(defflow raced [base id]
  [(race (do (sleep #dur "1d") :slow) (done base id 0))
   (try (with-timeout #dur "100ms" (receive)) (catch :flow/timeout e :late))
   (nth (select {:a (timer #dur "200ms") :m (receive)}) 0)])
"""
DECLARE = "(queue :narrow {:concurrency 3})"
Follow = tuple[str, str, dict[str, Any], str]
"""A call of the client: method and path, body, idempotency key."""


def no_follow(flow_id: str) -> Iterator[Follow]:
    """Nothing is done for the flow."""
    return iter(())


def mails(flow_id: str) -> Iterator[Follow]:
    """Four messages."""
    return (("POST", f"/v1/flows/{flow_id}/messages", {"n": n}, f"{flow_id}-m{n}") for n in range(4))


def events(flow_id: str) -> Iterator[Follow]:
    """Four events, and some for nobody."""
    return (("POST", "/v1/topics/soak", {"for": flow_id if n < 4 else "nobody", "n": n}, f"{flow_id}-e{n}") for n in range(6))


def cancels(flow_id: str) -> Iterator[Follow]:
    """Cancels the flow."""
    return iter([("POST", f"/v1/flows/{flow_id}/cancel", {"reason": "enough"}, f"{flow_id}-c")])


def pauses(flow_id: str) -> Iterator[Follow]:
    """Pauses the flow, and lets it go on."""
    return (("POST", f"/v1/flows/{flow_id}/{action}", {}, f"{flow_id}-{action}") for action in ("pause", "resume"))


def effects(count: int) -> Callable[[Outside, str, dict[str, Any]], None]:
    """The flow has the results of so many effects, each of one key."""

    def check(outside: Outside, flow_id: str, ending: dict[str, Any]) -> None:
        assert ending.get("result") == [outside.result(f"/do/{flow_id}/{n}") for n in range(count)], ending

    return check


def undone(outside: Outside, flow_id: str, ending: dict[str, Any]) -> None:
    """It failed of the business, and everything was undone under one key."""
    assert (ending["status"], (ending.get("error") or {}).get("type")) == ("failed", "http/status"), ending
    for n in range(3):
        outside.key(f"/do/{flow_id}/{n}")
        outside.key(f"/undo/{flow_id}/{n}")


def at_most_once(outside: Outside, flow_id: str, ending: dict[str, Any]) -> None:
    """No effect happened twice; what the flow knows is so."""
    assert ending["status"] == "completed", ending
    for n, known in enumerate(ending["result"]):
        keys = outside.keys[f"/once/{flow_id}/{n}"]
        assert len(keys) <= 1 and all(outside.arrived[key] == 1 for key in keys), f"{flow_id}: an effect at most once was sent {keys}"
        assert known in ("unknown", *(outside.results.get(key) for key in keys)), ending


def called_back(outside: Outside, flow_id: str, ending: dict[str, Any]) -> None:
    """Each callback gave what the effect's key came to."""
    results = [outside.result(f"/do/{flow_id}/{n}") for n in range(3)]
    assert ending.get("result") == [[result, result] for result in results], ending


def counted(outside: Outside, flow_id: str, ending: dict[str, Any]) -> None:
    """It got the four messages or events, in order."""
    assert ending.get("result") == [0, 1, 2, 3], ending


def cleaned_up(outside: Outside, flow_id: str, ending: dict[str, Any]) -> None:
    """It was cancelled, and cleaned up after itself."""
    assert ending["status"] == "cancelled", ending
    for n in range(2):
        outside.key(f"/do/{flow_id}/{n}")


def worked(outside: Outside, flow_id: str, ending: dict[str, Any]) -> None:
    """Workers answered; each call had one key."""
    assert ending.get("result") == [outside.result(f"/handed/{flow_id}/{n}") for n in range(3)], ending


def raced(outside: Outside, flow_id: str, ending: dict[str, Any]) -> None:
    """Time ran as it was to."""
    assert ending.get("result") == [outside.result(f"/do/{flow_id}/0"), "late", "a"], ending


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of flow."""

    check: Callable[[Outside, str, dict[str, Any]], None]
    follow: Callable[[str], Iterator[Follow]] = no_follow


SHAPES: dict[str, Shape] = {
    "chain": Shape(effects(8)),
    "saga-fails": Shape(undone),
    "fan": Shape(effects(8)),
    "once": Shape(at_most_once),
    "naps": Shape(effects(4), pauses),
    "hook": Shape(called_back),
    "kids": Shape(effects(3)),
    "again": Shape(effects(5)),
    "line": Shape(effects(4)),
    "mail": Shape(counted, mails),
    "listener": Shape(counted, events),
    "waits": Shape(cleaned_up, cancels),
    "worked": Shape(worked),
    "raced": Shape(raced),
}

"""`kill -9` of `flowmetal serve` in the middle of flows with outside effects, at seeded places.

Between two lives the log on disk is compared with what it was, with what the outside was told, and with what it got.
"""

from __future__ import annotations

import json
import random
import threading
import urllib.error
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from outside import Outside, Served, strike
from stores import Stores

from flowmetal.store import kinds
from flowmetal.store.protocol import Row

pytestmark = pytest.mark.slow

PROGRAM = """
(defflow part [base id n]
  (:n (:json (http/post (str base "/" id "/" n) {:json {:n n :salt (rand-int 1000000)}}))))

(defflow work [base id]
  (loop [n 0 got []]
    (if (= n 10)
      got
      (let [kind (rem n 5)
            notify (if (= kind 1) (callback) nil)
            answer (if (= kind 3)
                     (part base id n)
                     (:n (:json (http/post (str base "/" id "/" n) {:json {:n n :salt (rand-int 1000000) :notify (:url notify)}}))))]
        (if (= kind 2) (sleep #dur "5ms") nil)
        (recur (inc n) (conj got (if notify [answer (:paid (await notify))] answer)))))))
"""
RESULT = [0, [1, 1], 2, 3, 4, 5, [6, 6], 7, 8, 9]


@pytest.fixture
def outside() -> Iterator[Outside]:
    outside = Outside()
    yield outside
    outside.close()


@pytest.fixture
def served(tmp_path: Path, stores: Stores) -> Iterator[Served]:
    served = Served(tmp_path, stores.at(tmp_path / "flowmetal.duckdb"))
    yield served
    strike(served.pid)
    served.reap()


def test_flows_survive_kills(outside: Outside, served: Served) -> None:
    survive(outside, served, seed=1, flows=6, kills=4)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(2, 22))
def test_flows_survive_many_kills(outside: Outside, served: Served, seed: int) -> None:
    survive(outside, served, seed, flows=24, kills=12)


def survive(outside: Outside, served: Served, seed: int, flows: int, kills: int) -> None:
    """Starts the flows; kills their host so many times, each time at another place."""
    chance = random.Random(seed)
    ids = {f"flow-{n}" for n in range(flows)}
    served.start()
    assert served.call("PUT", "/v1/definitions?file=work.flow", PROGRAM.encode())[0] == 200
    unknown = set(ids)
    lives: list[tuple[int, set[str]]] = []
    log: list[Row] = []
    for number in range(kills):
        latest = arm(outside, served.pid, chance.randint(1, flows * len(RESULT) // kills - 1), chance.choice([0, 0, chance.uniform(0, 0.03)]))
        begin(outside, served, unknown)
        served.reap()
        latest.cancel()
        before, log = log, served.log(number)
        assert [facts(row) for row in log[: len(before)]] == [facts(row) for row in before], "what was recorded is lost"
        assert set(outside.acknowledged) <= settled_callbacks(log), "a callback was acknowledged and lost"
        assert ids - unknown <= {row.flow_id for row in log}, "a flow's start was acknowledged and lost"
        lives.append((len(outside.arrivals), effects(log)[1]))
        served.start()
    begin(outside, served, unknown)
    assert not unknown
    for flow_id in sorted(ids):
        status, answer = served.call("GET", f"/v1/flows/{flow_id}/result?wait=60")
        assert (status, answer.get("status"), answer.get("result")) == (200, "completed", RESULT), answer
    served.stop()
    check_keys(outside, ids, served.log(kills), lives)


def arm(outside: Outside, pid: int, after: int, delay: float) -> threading.Timer:
    """Sees to it that the process is killed when so many more requests have come, that many seconds later; at the latest in
    some seconds, when there is nothing more to come."""
    at = len(outside.arrivals) + after

    def on_arrival(count: int) -> None:
        if count >= at:
            threading.Timer(delay, strike, [pid]).start() if delay else strike(pid)

    outside.on_arrival = on_arrival
    latest = threading.Timer(5, strike, [pid])
    latest.start()
    return latest


def begin(outside: Outside, served: Served, unknown: set[str]) -> None:
    """Starts the flows of which it is not known that they were started; one start may be cut off by the kill."""
    for flow_id in sorted(unknown):
        try:
            status, answer = served.call("POST", "/v1/flows", {"name": "work", "args": [outside.url, flow_id], "id": flow_id})
        except (OSError, urllib.error.URLError):
            return
        assert (status, answer) in ((201, {"flow_id": flow_id}), (200, {"flow_id": flow_id}))
        unknown.discard(flow_id)


def facts(row: Row) -> tuple[object, ...]:
    return (row.pos, row.flow_id, row.seq, row.kind, row.step, row.at, row.data, row.exact, row.key)


def runs(log: list[Row]) -> dict[str, str]:
    """Each flow's RUN, the first half of its idempotency keys."""
    return {row.flow_id: json.loads(row.data)["run"] for row in log if row.kind == kinds.FLOW_STARTED}


def effects(log: list[Row]) -> tuple[set[str], set[str]]:
    """The keys of the HTTP requests that were asked for, and of those whose outcome is recorded."""
    run = runs(log)
    asked = {(row.flow_id, row.step) for row in log if row.kind == kinds.EFFECT_REQUESTED and json.loads(row.data)["op"].startswith("http")}
    done = {(row.flow_id, row.step) for row in log if row.kind == kinds.EFFECT_COMPLETED} & asked
    return {f"{run[flow]}/{step}" for flow, step in asked}, {f"{run[flow]}/{step}" for flow, step in done}


def settled_callbacks(log: list[Row]) -> set[str]:
    """The tokens of the callbacks whose outcome is recorded."""
    done = {(row.flow_id, row.step) for row in log if row.kind == kinds.EFFECT_COMPLETED}
    return {row.key for row in log if row.key is not None and (row.flow_id, row.step) in done}


def check_keys(outside: Outside, ids: set[str], log: list[Row], lives: list[tuple[int, set[str]]]) -> None:
    """Each request had one key, at every attempt the same and with the same body; what was recorded was not sent again."""
    sent: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for arrival in outside.arrivals:
        sent[arrival.path].add((arrival.key, arrival.body))
    assert {path: len(ways) for path, ways in sent.items()} == {f"/{flow}/{n}": 1 for flow in ids for n in range(len(RESULT))}
    asked, done = effects(log)
    assert {key for ways in sent.values() for key, _ in ways} == asked == done
    for arrived, recorded in lives:
        again = {arrival.key for arrival in outside.arrivals[arrived:]} & recorded
        assert not again, "what was recorded is sent again"
    assert len(outside.arrivals) > len(sent), "no kill struck while a request was under way"

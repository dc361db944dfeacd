"""Processes that notebooks run: none before somebody has allowed the notebook to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from engines import Door, door
from lives import HandClock, life, play
from stores import Stores

PROGRAM = '(defflow hello [] (:out (sh ["echo" "hello"])))'
SH = '(:out (sh ["echo" "hi"]))'


@pytest.fixture
def http(stores: Stores) -> Iterator[Door]:
    with door(stores.quick(), PROGRAM) as client:
        yield client


def evaluate(http: Door, source: str, file: str) -> str:
    answer = http.post("/v1/eval", json={"source": source, "ns": "user", "file": file})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["flow_id"])


@pytest.mark.parametrize("place", ["orders In[3]", "In[1]"])
def test_a_cell_runs_no_process_and_says_what_allows_it(http: Door, place: str) -> None:
    error = http.ended(evaluate(http, SH, place))["error"]
    assert error["type"] == "sh/not-allowed"
    assert f"flowmetal allow {'orders' if 'orders' in place else 'notebook'}" in error["message"]


def test_what_a_cell_defines_runs_none_either_whoever_starts_it(http: Door) -> None:
    http.result(evaluate(http, '(defflow sly [] (sh ["echo" "x"]))', "orders In[1]"))
    assert http.ended(http.start("sly"))["error"]["type"] == "sh/not-allowed"


def test_allowed_it_runs_until_that_is_taken_back_and_other_notebooks_do_not(http: Door) -> None:
    assert http.post("/v1/notebooks/allowed", json={"notebook": "orders"}).json() == {"notebooks": ["orders"]}
    assert http.result(evaluate(http, SH, "orders In[2]")) == "hi\n"
    assert http.ended(evaluate(http, SH, "other In[2]"))["error"]["type"] == "sh/not-allowed"
    assert http.post("/v1/notebooks/allowed", json={"notebook": "orders", "allowed": False}).json() == {"notebooks": []}
    assert http.ended(evaluate(http, SH, "orders In[3]"))["error"]["type"] == "sh/not-allowed"
    assert http.get("/v1/notebooks/allowed").json() == {"notebooks": []}


def test_files_and_programs_need_no_word(http: Door) -> None:
    assert http.result(http.start("hello")) == "hello\n"
    assert http.result(evaluate(http, SH, "eval")) == "hi\n"


def test_a_setting_of_the_interpreter_allows_all(http: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWMETAL_ALLOW_SH", "1")
    assert http.result(evaluate(http, SH, "orders In[2]")) == "hi\n"


def test_the_word_is_in_the_log_with_who_gave_it_and_survives_a_restart(stores: Stores) -> None:
    store = stores.quick()

    async def scene() -> None:
        async with life(store, HandClock()) as engine:
            await engine.allowances.allow("orders", True, by="command line")
            await engine.allowances.allow("orders", True, by="command line")
        async with life(store, HandClock()) as engine:
            assert engine.allowances.allowed == {"orders"}
            rows = (await engine.sql("SELECT data FROM events WHERE kind = 'notebook-allowed'")).plain()
            assert [row["data"] for row in rows] == [{"notebook": "orders", "allowed": True, "by": "command line"}]

    play(scene)

"""Promises about values: whatever the language can write is given back as it was, and seen in the views."""

from __future__ import annotations

import json
from typing import Final

from flowmetal.store.protocol import Commit, CommitResult, Duplicate, Row, Snapshot, Store
from flowmetal.store.testing.kit import T0, commit, promise, row, started, table

ODD: Final = [
    "", "\0", "a\0b", "\ud800", "\udfff\ud83d", "😀", "\x1a", "\x1a0000", "\x1a=d800", "\\u0000", "\\", '"', "'", "é\n\t", "\x7f\x01", "￿",
    "%s $1 ?", "{,}", "NULL",
]  # fmt: skip


@promise
def odd_texts_come_back(store: Store) -> None:
    """NUL, lone surrogates and what looks like an escape: in the encoding and, escaped as JSON has it, in the data."""
    for n, text in enumerate(ODD):
        for data in (json.dumps({"text": text}), json.dumps(text)):
            written = Row(f"f{n}", "log", data, T0, exact=json.dumps([text]))
            commit(store, written)
            assert store.rows(f"f{n}")[-1] == written, text
    assert len(table(store, "SELECT * FROM events")) == 2 * len(ODD)


@promise
def odd_texts_are_seen_in_the_views(store: Store) -> None:
    texts = [text for text in ODD if not any("\ud800" <= c <= "\udfff" for c in text)]
    for n, text in enumerate(texts):
        commit(store, started(f"f{n:02}", text, args=[text]), row(f"f{n:02}", "flow-completed", {"result": {"text": text}}))
    flows = table(store, "SELECT * FROM flows ORDER BY flow_id")
    assert [(f["name"], f["args"], f["result"]) for f in flows] == [(text, [text], {"text": text}) for text in texts]
    assert store.flow_rows()[::-1] == flows
    assert [f["flow_id"] for f in store.flow_rows(name="a\0b")] == [f"f{texts.index('a' + chr(0) + 'b'):02}"]


@promise
def keys_may_be_odd_and_long(store: Store) -> None:
    for key in ("\0k", "k" * 10_000, "é" * 3_000, "k" * 9_999 + "x"):
        first = row("$requests", "request", {"key": len(key)}, key=key)
        commit(store, first, unique=("request", key))
        assert store.find("request", key) == first
        (outcome,) = store.commit_group([Commit([row("$requests", "request", key=key)], unique=("request", key))])
        assert isinstance(outcome, Duplicate) and outcome.row == first
    assert store.find("request", "k" * 256) is None


@promise
def deep_data_is_kept(store: Store) -> None:
    deep = "[" * 20_000 + "]" * 20_000
    commit(store, started("a"), Row("a", "log", deep, T0), row("a", "log", 1))
    assert store.rows("a")[1].data == deep
    assert [r["seq"] for r in table(store, "SELECT seq FROM events ORDER BY seq")] == [1, 2, 3]


@promise
def many_rows_in_one_commit(store: Store) -> None:
    rows = [Row(f"f{n % 7}", "log", json.dumps({"n": n, "text": '{"\\' * (n % 5)}), T0 + n, step=n if n % 3 else None) for n in range(3_000)]
    commit(store, *rows)
    assert [r for n in range(7) for r in store.rows(f"f{n}")] == sorted(rows, key=lambda r: (r.flow_id, r.seq))


@promise
def large_snapshots(store: Store) -> None:
    body = bytes(range(256)) * 4_000
    (outcome,) = store.commit_group([Commit([started("a")], {"a": 0}, [Snapshot("a", 1, 0, "1", body)])])
    assert isinstance(outcome, CommitResult)
    assert store.snapshot("a") == Snapshot("a", 1, 0, "1", body)

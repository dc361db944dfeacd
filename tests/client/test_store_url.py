"""Which store is meant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flowmetal.client.store_url import resolve
from flowmetal.errors import StoreError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(os.path.realpath(tmp_path))


def test_option_wins_over_environment_and_folder(folder: Path) -> None:
    (folder / "flowmetal.duckdb").touch()
    url = resolve("mine.duckdb", environ={"FLOWMETAL_STORE": ":memory:"}, cwd=folder)
    assert (url.kind, url.path) == ("duckdb", folder / "mine.duckdb")


def test_environment_wins_over_folder(folder: Path) -> None:
    (folder / "flowmetal.duckdb").touch()
    assert resolve(None, environ={"FLOWMETAL_STORE": ":memory:"}, cwd=folder).kind == "memory"


def test_nearest_store_above(folder: Path) -> None:
    below = folder / "a" / "b"
    below.mkdir(parents=True)
    (folder / "flowmetal.duckdb").touch()
    assert resolve(None, environ={}, cwd=below).path == folder / "flowmetal.duckdb"
    (folder / "a" / "flowmetal.duckdb").touch()
    assert resolve(None, environ={}, cwd=below).path == folder / "a" / "flowmetal.duckdb"


def test_none_anywhere_is_made_here(folder: Path) -> None:
    assert resolve(None, environ={}, cwd=folder).path == folder / "flowmetal.duckdb"


def test_links_and_dots_name_one_store(folder: Path) -> None:
    (folder / "real").mkdir()
    (folder / "link").symlink_to(folder / "real")
    first = resolve("link/x.duckdb", environ={}, cwd=folder)
    second = resolve("real/../real/x.duckdb", environ={}, cwd=folder)
    assert first == second


@pytest.mark.parametrize(
    ("written", "kind", "url"),
    [
        (":memory:", "memory", ":memory:"),
        ("http://127.0.0.1:8421/", "http", "http://127.0.0.1:8421"),
        ("HTTPS://example.org", "http", "https://example.org"),
        ("postgresql://u:p@h/db", "postgresql", "postgresql://u:p@h/db"),
        ("postgres://h/db", "postgresql", "postgres://h/db"),
    ],
)
def test_kinds(written: str, kind: str, url: str, folder: Path) -> None:
    resolved = resolve(written, environ={}, cwd=folder)
    assert (resolved.kind, resolved.url, resolved.path) == (kind, url, None)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (".", "is a folder"),
        ("no/such/x.duckdb", "does not exist"),
        ("mysql://x", "is not a store"),
        ("http://", "names no host"),
    ],
)
def test_refusals_say_what_to_do(written: str, words: str, folder: Path) -> None:
    with pytest.raises(StoreError, match=words) as caught:
        resolve(written, environ={}, cwd=folder)
    assert caught.value.hint


def test_what_stands_beside_a_store(folder: Path) -> None:
    url = resolve("x.duckdb", environ={}, cwd=folder)
    assert url.beside(".host") == folder / "x.duckdb.host"
    with pytest.raises(StoreError):
        resolve(":memory:", environ={}, cwd=folder).beside(".host")

"""`flowmetal lab`: what it opens, and on which store. (That Lab then works is the browser's test.)"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from flowmetal.cli.main import run_command


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `flowmetal lab` would have run, instead of running it."""
    seen: dict[str, Any] = {}

    def execve(program: str, command: list[str], environment: dict[str, str]) -> None:
        seen.update(program=program, command=command, store=environment["FLOWMETAL_STORE"])

    monkeypatch.setattr(os, "execve", execve)
    return seen


def test_it_opens_the_tour_of_this_checkout_and_passes_options_on(started: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(["lab", "--", "--no-browser", "--port=9999"]) == 0
    notebooks = Path(__file__).parents[2] / "notebooks"
    assert started["command"][:4] == [sys.executable, "-m", "jupyter", "lab"]
    assert f"--ServerApp.root_dir={notebooks}" in started["command"]
    assert "--LabApp.default_url=/lab/tree/00-tour.ipynb" in started["command"]
    assert started["command"][-2:] == ["--no-browser", "--port=9999"]
    assert started["store"] == str(notebooks / "flowmetal.duckdb")


def test_it_opens_a_folder_or_a_notebook_that_is_named(started: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "my orders.ipynb").write_text("{}")
    assert run_command(["lab", str(tmp_path)]) == 0
    assert f"--ServerApp.root_dir={tmp_path}" in started["command"]
    assert not any("default_url" in word for word in started["command"])
    assert started["store"] == str(tmp_path / "flowmetal.duckdb")
    assert run_command(["lab", str(tmp_path / "my orders.ipynb")]) == 0
    assert "--LabApp.default_url=/lab/tree/my%20orders.ipynb" in started["command"]


def test_the_store_that_is_named_is_absolute(started: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run_command(["lab", "notebooks", "--store", "other.duckdb", "--", "--no-browser"]) == 0
    assert started["store"] == str(tmp_path / "other.duckdb")


def test_a_folder_that_is_not_there_is_bad_usage(started: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["lab", "no/such/folder"]) == 2
    assert "there is no no/such/folder" in capsys.readouterr().err
    assert started == {}


def test_an_installation_gives_everybody_a_tour_of_their_own(started: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "prefix" / "share" / "flowmetal" / "notebooks"
    installed.mkdir(parents=True)
    (installed / "00-tour.ipynb").write_text('{"the": "tour"}')
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    monkeypatch.setattr("flowmetal.cli.lab.__file__", str(tmp_path / "prefix" / "lib" / "flowmetal" / "cli" / "lab.py"))
    monkeypatch.setattr("flowmetal.cli.lab.ensure_installed", lambda: True)
    assert run_command(["lab"]) == 0
    assert f"--ServerApp.root_dir={here / 'notebooks'}" in started["command"]
    assert started["store"] == str(here / "notebooks" / "flowmetal.duckdb")
    (here / "notebooks" / "00-tour.ipynb").write_text("my own notes")
    assert run_command(["lab"]) == 0
    assert (here / "notebooks" / "00-tour.ipynb").read_text() == "my own notes"

"""The command line as a user has it: real processes, in a folder of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from flowmetal.client.host_file import lock_holder
from flowmetal.client.store_url import resolve

ORDERS = """\
(defflow main [] (+ 1 2))
(defflow add [a b] (+ a b))
(defflow waits [] {:got (receive)})
(defflow naps [] (sleep #dur "1h") :rested)
(defflow boom [] (throw (ex-info "it broke" {:why "test"})))
(defflow talks [] (println "hello from inside") 7)
"""


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    def rows(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Cli:
    """Runs `flowmetal …` in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = resolve(folder / "flowmetal.duckdb", environ={})
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("FLOWMETAL_")}
        self.env["FLOWMETAL_HOME"] = str(folder / "home")

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "flowmetal", *args]

    def __call__(self, *args: str, input: str | bytes = "", env: dict[str, str] | None = None) -> Done:
        sent = input.encode() if isinstance(input, str) else input
        done = subprocess.run(
            self.command(*args),
            input=sent,
            capture_output=True,
            cwd=self.folder,
            env=self.env | (env or {}),
            timeout=120,
            check=False,
        )
        err = done.stderr.decode()
        assert "Traceback" not in err, err
        return Done(done.returncode, done.stdout.decode(), err)

    def ok(self, *args: str, input: str = "") -> Done:
        done = self(*args, input=input)
        assert done.code == 0, done
        return done

    def popen(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*args),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=self.env,
        )

    def file(self, text: str, name: str = "orders.flow") -> str:
        (self.folder / name).write_text(text)
        return name

    def host_pid(self) -> int | None:
        return lock_holder(self.store)


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    cli = Cli(tmp_path)
    yield cli
    end_host(cli)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """A store with `ORDERS` loaded and a host that runs, for tests that do not disturb each other."""
    cli = Cli(tmp_path_factory.mktemp("shared"))
    cli.ok("load", cli.file(ORDERS))
    yield cli
    end_host(cli)


def end_host(cli: Cli) -> None:
    pid = cli.host_pid()
    if pid:
        process = psutil.Process(pid)
        process.terminate()
        process.wait(timeout=30)

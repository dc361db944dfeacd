"""The command line in a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forks import Forks
from stores import Stores, named

from flowmetal.client.host_file import lock_holder
from flowmetal.client.store_url import StoreUrl

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
    """Runs `flowmetal …` in a folder: on the file that it finds there, or on the store that the environment names."""

    def __init__(self, folder: Path, forks: Forks, stores: Stores) -> None:
        self.folder = folder
        self.stores = stores
        self.store = self.at("flowmetal.duckdb")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("FLOWMETAL_")}
        self.env["FLOWMETAL_HOME"] = str(folder / "home")
        self.env |= named(self.store)
        self._forks = forks

    def at(self, name: str) -> StoreUrl:
        """The store that stands for a file in the folder."""
        return self.stores.at(self.folder / name)

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "flowmetal", *args]

    def __call__(self, *args: str, input: str | bytes = "", env: dict[str, str] | None = None) -> Done:
        sent = input.encode() if isinstance(input, str) else input
        code, out, err = self._forks.run(list(args), sent, self.folder, self.env | (env or {}))
        said = err.decode()
        assert "Traceback" not in said, said
        return Done(code, out.decode(), said)

    def ok(self, *args: str, input: str = "") -> Done:
        done = self(*args, input=input)
        assert done.code == 0, done
        return done

    def popen(self, *args: str) -> subprocess.Popen[str]:
        """The command as its own program, from the start."""
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

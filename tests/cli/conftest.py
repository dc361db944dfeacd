"""The command line as a user has it: real processes, in a folder of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import ORDERS, Cli
from forks import Forks
from processes import end_host
from stores import Stores


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    forks = Forks(dict(os.environ))
    yield forks
    forks.close()


@pytest.fixture
def cli(tmp_path: Path, forks: Forks, stores: Stores) -> Iterator[Cli]:
    cli = Cli(tmp_path, forks, stores)
    yield cli
    end_host(cli.store)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, forks: Forks, module_stores: Stores) -> Iterator[Cli]:
    """A store with `ORDERS` loaded and a host that runs, for tests that do not disturb each other."""
    cli = Cli(tmp_path_factory.mktemp("shared"), forks, module_stores)
    cli.ok("load", cli.file(ORDERS))
    yield cli
    end_host(cli.store)

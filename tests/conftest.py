"""What every test shares: a home of its own, the stores of `--store`, how long generated tests look, and what a missing tool means.

With `--store postgresql` only tests that take whatever store they get run, each on databases of its own; without, they run on DuckDB.
A few, marked `stores`, run on several kinds each time. What is about a store of one kind is marked `one_store`, with the reason.

Under `FLOWMETAL_REQUIRE_ALL=1` a test that is skipped because something is not installed has failed. Tests marked
`long` run only with `FLOWMETAL_LONG=1`, and generated tests then look for longer, elsewhere each time.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from postgres_server import Server, binaries
from stores import KINDS, Stores

pytest.register_assert_rewrite("flowmetal.store.testing")

REQUIRE_ALL = os.environ.get("FLOWMETAL_REQUIRE_ALL") == "1"
LONG = os.environ.get("FLOWMETAL_LONG") == "1"
ALLOWED = ("root may read everything", "FLOWMETAL_LONG", "needs Linux", "stays on its store: ")
"""Reasons to skip that have nothing to do with what is installed."""

settings.register_profile("suite", deadline=None, derandomize=True, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", deadline=None, max_examples=1_000, suppress_health_check=list(HealthCheck))
settings.load_profile("long" if LONG else "suite")


@pytest.fixture(autouse=True, scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """`FLOWMETAL_HOME` is a folder of this run; the user's other settings do not count."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith("FLOWMETAL_") and n not in ("FLOWMETAL_REQUIRE_ALL", "FLOWMETAL_LONG")]:
            patch.delenv(name)
        patch.setenv("FLOWMETAL_HOME", str(tmp_path_factory.mktemp("home")))
        if "PYTHONDONTWRITEBYTECODE" in os.environ:  # many tests start processes: compiling all of it takes half of a start
            patch.delenv("PYTHONDONTWRITEBYTECODE")
            run = tmp_path_factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else tmp_path_factory.getbasetemp()
            patch.setenv("PYTHONPYCACHEPREFIX", str(run / "bytecode"))
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server."""
    there = binaries()
    if there is None:
        pytest.skip("no PostgreSQL server's binaries are installed")
    server = Server(there)
    yield server
    server.remove()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--store`."""
    parser.addoption("--store", choices=KINDS, default="duckdb", help="the store that tests run on which take whatever store they get")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The stores that a test runs on this time."""
    if "store_kind" in metafunc.fixturenames:
        asked, several = metafunc.config.getoption("store"), metafunc.definition.get_closest_marker("stores")
        kinds = several.args if several is not None and asked == "duckdb" else (asked,)
        metafunc.parametrize("store_kind", kinds, indirect=True, scope="session", ids=None if several is not None else [pytest.HIDDEN_PARAM])


@pytest.fixture(scope="session")
def store_kind(request: pytest.FixtureRequest) -> str:
    """The kind of store that a test runs on: `duckdb`, `postgresql` or, where the test says so, `memory`."""
    return str(request.param)


def _stores(request: pytest.FixtureRequest, kind: str) -> Iterator[Stores]:
    stores = Stores(kind, request.getfixturevalue("postgres") if kind == "postgresql" else None)
    yield stores
    stores.close()


@pytest.fixture
def stores(request: pytest.FixtureRequest, store_kind: str) -> Iterator[Stores]:
    """The stores of a test."""
    yield from _stores(request, store_kind)


@pytest.fixture(scope="module")
def module_stores(request: pytest.FixtureRequest, store_kind: str) -> Iterator[Stores]:
    """The stores of a module."""
    yield from _stores(request, store_kind)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what takes long, unless it is asked for; and with `--store`, what has no store or one of its own. Files with something slow come first."""
    left_out = [] if LONG else [item for item in items if item.get_closest_marker("long")]
    if config.getoption("store") != "duckdb":
        for item in items:
            own = item.get_closest_marker("one_store")
            if own is not None:
                item.add_marker(pytest.mark.skip(reason=f"stays on its store: {own.args[0]}"))
            elif "store_kind" not in getattr(item, "fixturenames", ()) and item not in left_out:
                left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)  # else, at the end of a run, one process works at them and the others have nothing to do


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Makes a skip for want of something a failure, where everything is required."""
    report = yield
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(allowed in reason for allowed in ALLOWED):
            report.outcome = "failed"
            report.longrepr = f"skipped, and FLOWMETAL_REQUIRE_ALL=1 requires it: {reason}"
    return report

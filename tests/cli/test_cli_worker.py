"""`flowmetal worker` and `flowmetal publish`: real processes, killed in the middle."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest
from command_line import Cli
from processes import has_ended, kill, kill_host

from flowmetal.cli.worker import functions_of

PROGRAM = """\
(defforeign charge-card "Charges." [order])
(defflow buy [order] (charge-card order))
(defflow once [order] (try (call "charge-card" [order] {:at-most-once true}) (catch :effect/interrupted e "unknown")))
(defflow listen [] (next-event (subscribe "orders" {:where {:kind "paid"}})))
"""
CARDS = """\
import os, sys, time, flowmetal

def charge_card(order):
    with open("sent", "a") as file:
        file.write(flowmetal.current_call().key + "\\n")
    os.write(1, b"sent\\n")
    while os.path.exists("hold"):
        time.sleep(0.01)
    return f"paid {order}"

def _private():
    return 1

class Till:
    def charge_card(self, order):
        return f"cash {order}"

till = Till()
table = {"charge-card": lambda order: f"by table {order}"}
"""


@contextmanager
def worker(cli: Cli, *args: str) -> Iterator[subprocess.Popen[str]]:
    """A worker that serves."""
    process = cli.popen("worker", *args)
    try:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        assert line.startswith("serving charge-card to "), line + process.stderr.read()
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
        assert "Traceback" not in said, said


@pytest.fixture
def shop(cli: Cli) -> Cli:
    (cli.folder / "cards.py").write_text(CARDS)
    cli.ok("load", cli.file(PROGRAM))
    return cli


def keys(cli: Cli) -> list[str]:
    return (cli.folder / "sent").read_text().split()


def test_a_module_serves_its_public_functions(shop: Cli) -> None:
    flow = shop.ok("start", "buy", '"A"').out.strip()
    with worker(shop, "cards"):
        assert shop.ok("result", flow, "--timeout", "20").json() == "paid A"


@pytest.mark.parametrize(("place", "said"), [("charge_card", "paid A"), ("till", "cash A"), ("table", "by table A"), ("", "paid A")])
def test_an_object_may_be_a_function_a_mapping_or_anything_with_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, said: str) -> None:
    module = f"cards_{place or 'all'}"
    (tmp_path / f"{module}.py").write_text(CARDS.replace("flowmetal.current_call().key", "'key'"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    (name, function), *rest = functions_of(f"{module}:{place}").items()
    assert (name, function("A"), rest) == ("charge-card", said, [])


@pytest.mark.parametrize(("place", "said"), [("no_such", "no module no_such"), ("json:nothing", "json has no nothing"), ("json:decoder.x", "no decoder.x")])
def test_what_cannot_be_served_is_said(place: str, said: str) -> None:
    with pytest.raises(click.UsageError) as refused:
        functions_of(place)
    assert said in refused.value.message


def test_a_module_that_cannot_be_imported_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torn.py").write_text("def f(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    with pytest.raises(click.UsageError, match=r"torn cannot be imported: SyntaxError: invalid syntax \(torn.py, line 1\)"):
        functions_of("torn")


def test_a_worker_that_is_killed_in_the_middle_loses_nothing(shop: Cli) -> None:
    """Its lease runs out, and another does the call under the same key; a call at most once is not done again."""
    (shop.folder / "hold").touch()
    buy, once = (shop.ok("start", name, '"A"').out.strip() for name in ("buy", "once"))
    with worker(shop, "cards", "--lease", "1") as first:
        assert first.stdout is not None
        assert [first.stdout.readline() for _ in range(2)] == ["sent\n"] * 2
        kill(first.pid)
    (shop.folder / "hold").unlink()
    with worker(shop, "cards"):
        assert shop.ok("result", buy, "--timeout", "20").json() == "paid A"
        assert shop.ok("result", once, "--timeout", "20").json() == "unknown"
    sent = keys(shop)
    assert len(sent) == 3 and len(set(sent)) == 2


def test_a_worker_survives_its_host(shop: Cli) -> None:
    """The host is killed while a function runs: the worker finds the next host, and the call is done."""
    (shop.folder / "hold").touch()
    flow = shop.ok("start", "buy", '"A"').out.strip()
    with worker(shop, "cards", "--lease", "2") as serving:
        assert serving.stdout is not None and serving.stdout.readline() == "sent\n"
        kill_host(shop.store)
        (shop.folder / "hold").unlink()
        assert shop.ok("result", flow, "--timeout", "30").json() == "paid A"
    assert len(set(keys(shop))) == 1


def test_a_second_interrupt_ends_a_worker_whose_function_is_stuck(shop: Cli) -> None:
    (shop.folder / "hold").touch()
    shop.ok("start", "buy", '"A"')
    with worker(shop, "cards") as stuck:
        assert stuck.stdout is not None and stuck.stdout.readline() == "sent\n"
        stuck.send_signal(signal.SIGINT)
        while not has_ended(stuck.pid, 0.2):
            stuck.send_signal(signal.SIGINT)
        stuck.wait(30)
        assert stuck.returncode in (130, -signal.SIGINT)


def test_publish(shop: Cli) -> None:
    flow = shop.ok("start", "listen").out.strip()
    assert shop("result", flow, "--timeout", "0").code == 4
    assert shop("publish", "orders", "paid").code == 2
    shop.ok("publish", "orders", '{"kind": "open"}')
    first = shop.ok("publish", "orders", '{"kind": "paid", "n": 1}', "--key", "k").out
    assert shop.ok("publish", "orders", '{"kind": "paid", "n": 1}', "--key", "k").out == first
    assert shop.ok("result", flow, "--timeout", "20").json() == {"kind": "paid", "n": 1}

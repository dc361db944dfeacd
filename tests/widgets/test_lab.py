"""The tour as a stranger meets it: `flowmetal lab` in a browser, every cell, and the buttons of a live history."""

from __future__ import annotations

import os
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lab_driver
import pytest
from lab_driver import CHROMIUM, Notebook, browser_page, errors, texts
from processes import end_host
from stores import Stores, named

import flowmetal
from flowmetal.client.store_url import StoreUrl

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "images" / "notebook.png"
UPDATE = bool(os.environ.get("FLOWMETAL_UPDATE_PICTURES"))

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, module_stores: Stores) -> Iterator[tuple[str, Path, StoreUrl]]:
    """JupyterLab on a copy of the notebooks; its URL, the folder and the store."""
    folder = tmp_path_factory.mktemp("lab") / "notebooks"
    shutil.copytree(ROOT / "notebooks", folder, ignore=shutil.ignore_patterns("*.duckdb*", ".ipynb_checkpoints"))
    store = module_stores.at(folder / "flowmetal.duckdb")
    try:
        with lab_driver.server(folder, named(store)) as url:
            yield url, folder, store
    finally:
        end_host(store)


def view(page: Any, name: str) -> Any:
    """The live history of the flow that a Lisp name holds, by what the view says of its arguments."""
    return page.locator(".fm-history", has_text=name)


def test_the_tour_runs_and_its_view_pauses_and_resumes_a_flow(lab: tuple[str, Path, StoreUrl]) -> None:
    url, _, store = lab
    with browser_page(1240, 1060) as page:
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        tour = Notebook(page, url)  # `flowmetal lab` opens it by itself
        assert page.locator(".jp-KernelName, .jp-Toolbar-kernelName").first.inner_text() == "Flowmetal"
        tour.command("application:toggle-left-area")
        assert errors(tour.run_until("order")) == []
        waiting = view(page, "A-17")
        waiting.locator(".fm-badge[data-status=waiting]").wait_for()
        if UPDATE:
            take_picture(page, waiting)
        assert errors(tour.run_rest()) == []

        yours = view(page, "A-18")
        yours.scroll_into_view_if_needed()
        flow_id = yours.get_attribute("data-flow")
        with flowmetal.open(store.url) as fm:
            tour.add_and_start("@yours")  # from here on a cell waits, and the buttons must work all the same
            yours.get_by_role("button", name="Pause").click()
            yours.locator(".fm-badge[data-status=paused]").wait_for()
            assert fm.sql("SELECT status FROM flows WHERE flow_id = ?", [flow_id]).fetchall() == [("paused",)]
            deliver(fm, flow_id)
            assert fm.status(flow_id) == "paused"
            yours.get_by_role("button", name="Resume").click()
            assert texts(tour.last_cell()) == '{:order "A-18", :total 2100, :tracking "CX-1"}'
        view(page, "A-18").locator(".fm-badge[data-status=completed]").wait_for()
        scrub(view(page, "A-18"))
        assert faults == []


def deliver(fm: flowmetal.Flowmetal, flow_id: str) -> None:
    """Calls the URL that the flow gave to the courier, as the courier would."""
    asked = fm.sql("SELECT args FROM effects WHERE flow_id = ? AND op = 'http/post'", [flow_id]).fetchall()[0][0]
    request = urllib.request.Request(asked[0]["json"]["notify"], b'{"tracking": "CX-1"}', {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 202


def scrub(ended: Any) -> None:
    """Moves the slider of an ended flow's view to its second step and looks at what the flow knew then."""
    ended.get_by_label("step of the flow's history").fill("1")
    stack = ended.locator(".fm-stack")
    stack.get_by_text("fulfil").wait_for()
    assert 'id "A-18"' in stack.inner_text()
    assert "as it asked for step 2: http/post" in ended.locator(".fm-where").inner_text()
    assert "receipt" not in stack.inner_text()


def take_picture(page: Any, waiting: Any) -> None:
    """The README's picture: the flow's program, and its history while it waits."""
    program = page.locator(".jp-CodeCell", has_text="(defflow fulfil").first
    program.evaluate("node => node.scrollIntoView({block: 'start'})")
    waiting.wait_for()
    page.wait_for_timeout(1200)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    page.set_viewport_size({"width": 1240, "height": 800})
    page.screenshot(path=PICTURE)


def test_views_outlive_their_kernel_and_are_pictures_without_one(lab: tuple[str, Path, StoreUrl]) -> None:
    import nbformat

    url, folder, _ = lab
    code = ["(defflow waits [] (receive)) (start waits)", "(defflow adds [a b] (+ a b)) (def sum (start adds 1 2)) @sum sum"]
    small = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "flowmetal", "display_name": "Flowmetal", "language": "flowmetal"}})
    small.cells = [nbformat.v4.new_code_cell(source) for source in code]
    nbformat.write(small, folder / "small.ipynb")
    with browser_page(1240, 900) as page:
        notebook = Notebook(page, url, "small.ipynb")
        assert errors(notebook.run_all()) == []
        page.locator(".fm-badge[data-status=completed]").wait_for()
        notebook.restart_kernel()
        press_until(page.get_by_role("button", name="Pause"), page.locator(".fm-badge[data-status=paused]"))
        notebook.save()

        page.route("**/api/sessions**", lambda route: route.abort())
        page.goto(f"{url}/lab/tree/small.ipynb?reset")
        pictures = page.locator('.jp-OutputArea-output img[alt^="Flowmetal history of"]')
        pictures.nth(1).wait_for()
        assert [str(pictures.nth(i).get_attribute("alt")).split()[3] for i in (0, 1)] == ["waits", "adds"]
        assert page.locator(".fm-history").count() == 0


def press_until(button: Any, effect: Any) -> None:
    """Presses a button of a view that is drawn anew about now, until what it does is seen."""
    from playwright.sync_api import TimeoutError as PlaywrightTimeout

    for _ in range(20):
        button.click()
        try:
            effect.wait_for(timeout=1500)
            return
        except PlaywrightTimeout:
            continue
    raise AssertionError("the view did not come back to life")

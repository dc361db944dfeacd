"""Live histories as a kernel speaks of them: what is displayed, what its buttons do, what stays in the saved notebook."""

from __future__ import annotations

import base64
import re
from typing import Any
from xml.etree import ElementTree

from kernel_driver import Notebook

from flowmetal_kernel.views import HISTORY, WIDGET
from flowmetal_kernel.widgets.history import model_id

WAITS = '(defflow waits-for-you [order] (checkpoint "begun") (:answer (receive)))'


def start(nb: Notebook, flow_id: str, *, show: bool = True) -> Any:
    """A flow that waits for a message, shown in a cell."""
    return nb.ok(f'{WAITS} (start-with {{:id "{flow_id}"}} waits-for-you {{:id "A-17"}})' + ("" if show else " nil"))


def picture(html: str) -> str:
    """The text in the static picture, which must be XML."""
    found = re.search(r'<img alt="Flowmetal [^"]*" [^>]*src="data:image/svg\+xml;base64,([^"]+)">', html)
    assert found, html[:200]
    return " ".join(ElementTree.fromstring(base64.b64decode(found[1])).itertext())


def test_a_handle_is_displayed_as_a_live_view_with_a_static_picture_beside_it(nb: Notebook) -> None:
    bundle = start(nb, "view-1").data
    assert bundle[WIDGET]["model_id"] == model_id("view-1")
    assert bundle["text/plain"] == "#flow[view-1 waits-for-you]"
    drawn = picture(bundle["text/html"])
    assert all(word in drawn for word in ("waits-for-you", "waiting", "receive", "until a message comes", "checkpoint", 'id "A-17"'))


def test_a_view_follows_its_flow_while_another_cell_waits_and_its_buttons_work(nb: Notebook) -> None:
    start(nb, "view-2")
    with nb.open() as fm:
        busy = nb.send('(println "begun") (sleep #dur "1h")')
        nb.until_output("begun")
        nb.click("view-2", "pause")
        paused = nb.until_view("view-2", lambda t: t["status"] == "paused")
        assert fm.status("view-2") == "paused"
        assert "asked for in the notebook" in [row["text"] for row in paused["rows"] if row["mark"] == "paused"]
        nb.click("view-2", "send", '{"answer": 42}')
        nb.until_view("view-2", lambda t: any(row["mark"] == "message" for row in t["rows"]))
        assert fm.status("view-2") == "paused"
        nb.click("view-2", "resume")
        ended = nb.until_view("view-2", lambda t: t["ended"])
        assert (ended["status"], ended["result"]) == ("completed", "42")
        assert not busy.idle
        nb.interrupt()
        nb.finish(busy)


def test_a_paused_flow_goes_on_step_by_step(nb: Notebook) -> None:
    nb.ok('(defflow counts [] (receive) (now) (receive)) (start-with {:id "view-step"} counts)')
    nb.click("view-step", "pause")
    nb.until_view("view-step", lambda t: t["status"] == "paused")
    nb.click("view-step", "send", "1")
    nb.click("view-step", "step")
    stepped = nb.until_view("view-step", lambda t: t["status"] == "paused" and any(row.get("step") == 2 for row in t["rows"]))
    assert [row["mark"] for row in stepped["rows"] if row["mark"]] == ["paused", "message", "one step", "paused"]
    nb.click("view-step", "cancel")
    nb.until_view("view-step", lambda t: t["ended"])


def test_a_flow_that_failed_shows_where_and_is_retried(nb: Notebook) -> None:
    nb.ok('(def shop (atom :closed)) (defflow buy [sku] (if (= :closed @shop) (throw (ex-info "closed" {})) sku))')
    nb.ok('(defn order [n] (let [sku (str "tea-" n)] (buy sku))) (defflow shopping [] (order (receive))) (start-with {:id "view-failed"} shopping)')
    nb.click("view-failed", "send", "7")
    failed = nb.until_view("view-failed", lambda t: t["ended"])
    assert (failed["status"], [f["function"] for f in failed["failure"]["frames"]]) == ("failed", ["order", "shopping"])
    assert failed["failure"]["frames"][0]["locals"] == [["n", "7"], ["sku", '"tea-7"']]
    assert "closed" in failed["failure"]["error"] and "^" in failed["failure"]["error"]
    nb.ok("(reset! shop :open)")
    nb.click("view-failed", "retry")
    done = nb.until_view("view-failed", lambda t: t["status"] == "completed")
    assert (done["result"], done["failure"]) == ('"tea-7"', None)


def test_cancel_ends_the_flow(nb: Notebook) -> None:
    start(nb, "view-3")
    nb.click("view-3", "cancel")
    assert nb.until_view("view-3", lambda t: t["ended"])["status"] == "cancelled"


def test_words_that_are_no_json_are_sent_as_they_are(nb: Notebook) -> None:
    nb.ok('(defflow echoes [] (receive)) (start-with {:id "view-words"} echoes)')
    nb.click("view-words", "send", "just words")
    assert nb.until_view("view-words", lambda t: t["ended"])["result"] == '"just words"'


def test_a_button_that_cannot_work_says_why(nb: Notebook) -> None:
    start(nb, "view-4")
    with nb.open() as fm:
        fm.terminate("view-4")
    nb.until_view("view-4", lambda t: t["ended"])
    nb.click("view-4", "pause")
    notice = nb.until(lambda m: m["msg_type"] == "comm_msg" and "notice" in m["content"]["data"].get("content", {}))
    assert "ended" in notice["content"]["data"]["content"]["notice"]


def test_a_fork_from_the_step_that_is_looked_at(nb: Notebook) -> None:
    start(nb, "view-fork")
    nb.click("view-fork", "fork", 1)
    notice = nb.until(lambda m: m["msg_type"] == "comm_msg" and "notice" in m["content"]["data"].get("content", {}))
    made = notice["content"]["data"]["content"]["notice"].rpartition("%flow ")[2].split()[0]
    with nb.open() as fm:
        row = fm.flow(made).row()
        assert (row["forked_from"], row["forked_at"]) == ("view-fork", 1)
        fm.flow(made).terminate()


def test_at_its_end_the_output_is_a_picture_for_good(nb: Notebook) -> None:
    cell = start(nb, "view-5")
    display_id = cell.of("display_data")[-1]["transient"]["display_id"]
    with nb.open() as fm:
        fm.send("view-5", {"answer": [1, 2]})
    changed = nb.until(lambda m: m["msg_type"] == "update_display_data" and m["content"]["transient"]["display_id"] == display_id)["content"]
    assert WIDGET not in changed["data"]
    assert changed["data"][HISTORY] == {"model_id": model_id("view-5"), "flow_id": "view-5"}
    assert "completed" in picture(changed["data"]["text/html"]) and "→ [1 2]" in picture(changed["data"]["text/html"])
    assert "1 step in full" in changed["data"]["text/html"]


def test_a_view_opened_in_a_program_that_runs_notebooks_ends_as_a_picture(nb: Notebook) -> None:
    """Such a program listens to the running cell only: what changed between two cells is said again in the next."""
    display_id = start(nb, "view-6").of("display_data")[-1]["transient"]["display_id"]
    with nb.open() as fm:
        fm.send("view-6", {"answer": 1})
    nb.until(lambda m: m["msg_type"] == "update_display_data" and m["content"]["transient"]["display_id"] == display_id)
    changes = nb.ok("(+ 1 1)").of("update_display_data")
    assert [c["transient"]["display_id"] for c in changes] == [display_id]
    assert nb.ok("(+ 1 1)").of("update_display_data") == []


def test_flow_shows_by_id_by_its_beginning_and_by_name(nb: Notebook) -> None:
    start(nb, "view-named", show=False)
    nb.ok('(def by-name (start-with {:id "view-named"} waits-for-you {:id "A-17"}))')
    for argument in ("view-named", "view-nam", "by-name", '"view-named"'):
        assert nb.ok(f"%flow {argument}").value == "#flow[view-named waits-for-you]"


def test_replay_shows_a_past_step_with_its_stack_and_locals(nb: Notebook) -> None:
    nb.ok(
        '(defn twice [n] (let [half n] (sleep #dur "1ms") (* 2 half)))\n'
        "(defflow looks-back [n] (let [t (now) r (twice n)] (random-uuid) r))\n"
        '@(start-with {:id "view-7"} looks-back 21)'
    )
    bundle = nb.ok("%replay view-7 2").data
    assert bundle[HISTORY]["model_id"] == model_id("view-7", 2)
    text = bundle["text/plain"]
    assert "as it asked for step 2" in text and "twice line 1" in text and "half = 21" in text and "looks-back line 2" in text
    assert "r = " not in text  # not yet
    assert "half" in bundle["text/html"]
    nb.click("view-7", "state", 3, at=2)
    answer = nb.until(lambda m: m["msg_type"] == "comm_msg" and "state" in m["content"]["data"].get("content", {}))
    state = answer["content"]["data"]["content"]["state"]
    assert (state["step"], state["frames"][0]["function"]) == (3, "looks-back")
    assert ["r", "42"] in state["frames"][0]["locals"]


def test_a_new_kernel_finds_the_views_of_the_old_one(opened: Any) -> None:
    nb = opened()
    start(nb, "view-8")
    nb.restart()
    asked = nb.client.comm_info("jupyter.widget")
    while (reply := nb.client.get_shell_msg(timeout=30))["parent_header"].get("msg_id") != asked:
        pass
    assert model_id("view-8") in reply["content"]["comms"]
    nb.click("view-8", "watch")
    assert nb.until_view("view-8", lambda t: t["rows"])["status"] == "waiting"


def test_what_comes_from_outside_is_text_in_every_form(nb: Notebook) -> None:
    evil = "<script>alert(1)</script>\\u0000]]>"
    html = nb.ok(f'(defflow says [x] (log x) (print x) (throw (ex-info x {{}}))) (def said (start says "{evil}")) (status said) said').data["text/html"]
    assert "<script" not in html
    assert "<script>alert(1)" in picture(html)

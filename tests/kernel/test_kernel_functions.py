"""Foreign functions in a notebook: a `%%python` cell provides what a Lisp cell calls."""

from __future__ import annotations

from kernel_driver import Notebook


def test_a_python_cell_answers_the_calls_of_flows(nb: Notebook) -> None:
    nb.ok('%%python\n@fm.function("shout")\ndef shout(text):\n    return text.upper()')
    assert nb.ok('(defforeign shout "Shouts." [text]) (shout "hello")').value == '"HELLO"'
    nb.ok('%%python\n@fm.function("shout")\ndef shout(text):\n    return text + "!"')
    assert nb.ok('(shout "hello")').value == '"hello!"', "the newest definition counts"


def test_what_a_python_function_raises_is_the_cells_error(nb: Notebook) -> None:
    nb.ok('%%python\n@fm.function("breaks")\ndef breaks():\n    raise ValueError("no such thing")')
    assert nb.ok('(try (call "breaks" []) (catch :python/ValueError e (ex-message e)))').value == '"no such thing"'


def test_a_cell_waits_for_an_event_that_python_publishes(nb: Notebook) -> None:
    nb.ok('(defflow listen [] (next-event (subscribe "news"))) (def l (start listen)) (sleep #dur "300ms")')
    nb.ok('%%python\n_ = fm.publish("news", {"n": 1})')
    assert nb.ok("@l").value == "{:n 1}"

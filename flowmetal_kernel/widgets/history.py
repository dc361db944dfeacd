"""The live history view of one flow: a model from timeline.py goes in, what its buttons ask for comes out.

The one rule: a view holds nothing that must last. Its model id follows from the flow's id, so that a notebook opened again
finds the view that a new kernel made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any
from uuid import NAMESPACE_URL, uuid5

Action = Callable[[Any, str, Any], None]
"""Called with the widget, what was asked (`watch pause resume step retry cancel send state`) and what came with it."""

SCRIPTS = ("history.js", "scrubber.js")
"""Joined into the one module that the browser loads."""


def model_id(flow_id: str, at: int | None = None) -> str:
    """The widget's id: the same in every kernel for the same flow (and the step at which it opens)."""
    place = "" if at is None else f":{at}"
    return uuid5(NAMESPACE_URL, f"flowmetal:history:{flow_id}{place}").hex


def new_view(flow_id: str, model: Mapping[str, Any], on_action: Action, at: int | None = None) -> Any:
    """A widget for one flow, open in the present or at a past step. Needs a kernel; the first one imports ipywidgets."""
    view = _widget_class()(model_id=model_id(flow_id, at), timeline=dict(model), at=at or 0)
    view.on_msg(lambda widget, content, _buffers: on_action(widget, str(content.get("action")), content.get("message")))
    return view


@lru_cache(maxsize=1)
def _widget_class() -> Any:
    import anywidget
    import traitlets

    here = files(__package__)

    class HistoryView(anywidget.AnyWidget):
        """Header, one row a step, what the flow waits for, a slider over its past."""

        _esm = "\n".join(here.joinpath(name).read_text("utf-8") for name in SCRIPTS)
        _css = here.joinpath("history.css").read_text("utf-8")
        timeline = traitlets.Dict().tag(sync=True)
        at = traitlets.Int(0).tag(sync=True)

    return HistoryView

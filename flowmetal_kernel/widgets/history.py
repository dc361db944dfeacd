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

Action = Callable[[str, Any], None]
"""Called with what was clicked (`watch pause resume cancel send`) and the message that came with it."""


def model_id(flow_id: str) -> str:
    """The widget's id: the same in every kernel for the same flow."""
    return uuid5(NAMESPACE_URL, f"flowmetal:history:{flow_id}").hex


def new_view(flow_id: str, model: Mapping[str, Any], on_action: Action) -> Any:
    """A widget for one flow. Needs a kernel; the first one imports ipywidgets."""
    view = _widget_class()(model_id=model_id(flow_id), timeline=dict(model))
    view.on_msg(lambda _widget, content, _buffers: on_action(str(content.get("action")), content.get("message")))
    return view


@lru_cache(maxsize=1)
def _widget_class() -> Any:
    import anywidget
    import traitlets

    class HistoryView(anywidget.AnyWidget):  # type: ignore[misc]
        """Header, one row a step, what the flow waits for."""

        _esm = files(__package__).joinpath("history.js").read_text("utf-8")
        _css = files(__package__).joinpath("history.css").read_text("utf-8")
        timeline = traitlets.Dict().tag(sync=True)

    return HistoryView

"""Flowmetal: a durable, evented, asynchronous, scripted Lisp.

Public names, nothing else; each is loaded when it is first used, so that `import flowmetal` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowmetal.client.aio import AsyncFlow as AsyncFlow
    from flowmetal.client.aio import AsyncFlowmetal as AsyncFlowmetal
    from flowmetal.client.aio import open_async as open_async
    from flowmetal.client.api import Flow as Flow
    from flowmetal.client.api import Flowmetal as Flowmetal
    from flowmetal.client.api import open as open
    from flowmetal.client.worker import current_call as current_call
    from flowmetal.errors import FlowCancelled as FlowCancelled
    from flowmetal.errors import FlowFailed as FlowFailed
    from flowmetal.errors import FlowmetalError as FlowmetalError
    from flowmetal.errors import FlowNotFound as FlowNotFound
    from flowmetal.errors import FlowTimeout as FlowTimeout
    from flowmetal.errors import LispError as LispError
    from flowmetal.errors import SourceError as SourceError
    from flowmetal.errors import StoreError as StoreError

__version__ = "0.1.0"

_HOMES = {
    "AsyncFlow": "flowmetal.client.aio",
    "AsyncFlowmetal": "flowmetal.client.aio",
    "open_async": "flowmetal.client.aio",
    "Flow": "flowmetal.client.api",
    "Flowmetal": "flowmetal.client.api",
    "open": "flowmetal.client.api",
    "current_call": "flowmetal.client.worker",
    "FlowCancelled": "flowmetal.errors",
    "FlowFailed": "flowmetal.errors",
    "FlowmetalError": "flowmetal.errors",
    "FlowNotFound": "flowmetal.errors",
    "FlowTimeout": "flowmetal.errors",
    "LispError": "flowmetal.errors",
    "SourceError": "flowmetal.errors",
    "StoreError": "flowmetal.errors",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'flowmetal' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

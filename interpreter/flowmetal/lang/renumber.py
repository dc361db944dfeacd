"""Versions of definitions and owners in stored documents: which there are, and others in their place.

In: a document, as `codec` describes it. Out: the numbers, or the document with others. The one rule: nothing is built or run; what is
no document is `Damaged`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from flowmetal.lang.decoding import Damaged
from flowmetal.lang.encoding import FORMAT

_PLACES: Final = {"fn": 3, "root": 2, "sm": 2, "ss": 2}
"""Where in a node the version stands."""
_OWNERS: Final = {"h": 1, "p": 2, "cb": 2}
"""Where in a node the flow stands to which a handle, a promise or a callback belongs."""


def versions_in(text: str) -> set[int]:
    """The versions that a document names."""
    return {node[place] for node, place in _versioned(_nodes(text)[2])}


def renumbered(text: str, number: Callable[[int], int]) -> str:
    """The document with `number(v)` for each version `v`."""
    document = _nodes(text)
    found = list(_versioned(document[2]))
    for node, place in found:
        node[place] = number(node[place])
    return json.dumps(document, separators=(",", ":"), allow_nan=False) if found else text


def _nodes(text: str) -> list[Any]:
    try:
        document = json.loads(text)
        format_, _, nodes = document
    except (ValueError, TypeError, RecursionError) as error:
        raise Damaged(f"stored data cannot be read: {error}") from error
    if format_ != FORMAT or not isinstance(nodes, list) or not all(isinstance(node, list) and node and isinstance(node[0], str) for node in nodes):
        raise Damaged(f"stored data is not of format {FORMAT}")
    return list(document)


def _versioned(nodes: list[Any]) -> Iterator[tuple[list[Any], int]]:
    """The nodes that hold a version, and where in them."""
    for node in nodes:
        bare = node[2] if node[0] == "^" and len(node) == 3 and isinstance(node[2], list) and node[2] else node
        place = _PLACES.get(bare[0]) if isinstance(bare[0], str) else None
        if place is not None and len(bare) > place and type(bare[place]) is int:
            yield bare, place


def known_otherwise(text: str, flow_id: str, known_as: str) -> str:
    """The document with the handles and promises of a flow as those of another."""
    document = _nodes(text)
    for node in document[2]:
        place = _OWNERS.get(node[0])
        if place is not None and node[place] == flow_id:
            node[place] = known_as
    return json.dumps(document, separators=(",", ":"))


def shared_in(text: str) -> set[str]:
    """The ids of the shared atoms that a document names."""
    return {node[1] for node in _nodes(text)[2] if node[0] == "shared" and len(node) == 3 and isinstance(node[1], str)}

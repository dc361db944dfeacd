"""Printed Lisp, laid out: one long line of `pr-str` goes in, the same text broken over lines comes out.

The one rule: only white space between tokens changes, so that what is shown still reads back as the same value.
"""

from __future__ import annotations

import re

WIDTH = 100
MAX_LENGTH = 200_000
_TOKEN = re.compile(r'#?"(?:\\.|[^"\\])*"|#\w*\[[^\[\]]*\]|#?[(\[{]|[)\]}]|[^\s,()\[\]{}"]+', re.DOTALL)
_OPEN = "([{"
_CLOSE = ")]}"

Node = str | list["Node"]  # a list is [opening text, items…, closing text]


def pretty(printed: str, width: int = WIDTH) -> str:
    """Breaks `printed` where it would not fit into `width` columns; short or odd text comes back as it is."""
    if len(printed) <= width or len(printed) > MAX_LENGTH or "\n" in printed:
        return printed
    nodes = _parse(printed)
    return printed if nodes is None else "\n".join(_layout(node, 0, width) for node in nodes)


def _parse(text: str) -> list[Node] | None:
    root: list[Node] = []
    stack: list[list[Node]] = [root]
    for token in _TOKEN.findall(text):
        if token[-1] in _OPEN and not token.startswith('"'):
            node: list[Node] = [token]
            stack[-1].append(node)
            stack.append(node)
        elif token in _CLOSE:
            if len(stack) == 1:
                return None
            stack.pop().append(token)
        else:
            stack[-1].append(token)
        if len(stack) > 200:
            return None
    return root if len(stack) == 1 else None


def _flat(node: Node) -> str:
    if isinstance(node, str):
        return node
    inner = [_flat(item) for item in node[1:-1]]
    if _is_map(node):
        pairs = [" ".join(inner[i : i + 2]) for i in range(0, len(inner), 2)]
        return f"{node[0]}{', '.join(pairs)}{node[-1]}"
    return f"{node[0]}{' '.join(inner)}{node[-1]}"


def _is_map(node: list[Node]) -> bool:
    return isinstance(node[0], str) and node[0] == "{"


def _layout(node: Node, column: int, width: int) -> str:
    if isinstance(node, str):
        return node
    flat = _flat(node)
    if column + len(flat) <= width or len(node) <= 2:
        return flat
    opening = str(node[0])
    inner = column + len(opening)
    if _is_map(node):
        lines = [_entry(node[i : min(i + 2, len(node) - 1)], inner, width) for i in range(1, len(node) - 1, 2)]
    else:
        lines = [_layout(item, inner, width) for item in node[1:-1]]
    return opening + ("\n" + " " * inner).join(lines) + str(node[-1])


def _entry(pair: list[Node], column: int, width: int) -> str:
    key = _flat(pair[0])
    return key if len(pair) < 2 else f"{key} {_layout(pair[1], column + len(key) + 1, width)}"

"""Inspection (Shift-Tab): the name under the cursor goes in, its documentation comes out as Markdown and as text.

The one rule: what the engine says is shown as text, whatever it holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowmetal.client.client import Client
from flowmetal_kernel.scanner import head_of_list, symbol_at

NOTHING: dict[str, Any] = {"status": "ok", "found": False, "data": {}, "metadata": {}}


async def inspect(client: Client, code: str, cursor: int, ns: str, detail: int = 0) -> dict[str, Any]:
    """Jupyter's `inspect_reply` for the symbol at the cursor, or for the head of the list around it."""
    for name in (symbol_at(code, cursor), head_of_list(code, cursor)):
        found = await client.inspect(name, ns) if name else None
        if found:
            data = {"text/plain": _plain(name, found, detail), "text/markdown": _markdown(name, found, detail)}
            return {"status": "ok", "found": True, "data": data, "metadata": {}}
    return NOTHING


def _calls(name: str, found: Mapping[str, Any]) -> list[str]:
    arglists = found.get("arglists") or []
    texts = [arglists] if isinstance(arglists, str) else [str(a) for a in arglists]
    if len(texts) == 1 and texts[0].startswith("("):
        texts = [t for t in texts[0].strip("()").replace("] [", "]\n[").split("\n") if t]
    return [f"({name} {text.strip()[1:-1]})".replace(" )", ")") if text.strip().startswith("[") else text for text in texts]


def _plain(name: str, found: Mapping[str, Any], detail: int) -> str:
    parts = [str(found.get("name") or name) + (f"  ({found['kind']})" if found.get("kind") else "")]
    parts += _calls(name, found)
    if found.get("doc"):
        parts += ["", str(found["doc"])]
    if found.get("example"):
        parts += ["", str(found["example"])]
    if detail and found.get("source"):
        parts += ["", str(found["source"])]
    return "\n".join(parts)


def _markdown(name: str, found: Mapping[str, Any], detail: int) -> str:
    parts = [f"**`{found.get('name') or name}`**" + (f" *{found['kind']}*" if found.get("kind") else "")]
    calls = "\n".join(_calls(name, found))
    if calls:
        parts.append(f"```clojure\n{calls}\n```")
    if found.get("doc"):
        parts.append(str(found["doc"]).replace("<", "&lt;"))
    if found.get("example"):
        parts.append(f"```clojure\n{found['example']}\n```")
    if detail and found.get("source"):
        parts.append(f"```clojure\n{found['source']}\n```")
    return "\n\n".join(parts)

"""Any text in PostgreSQL, which knows neither NUL nor lone surrogates, in text or in JSON.

What goes in: text of the language. What comes out: text that PostgreSQL takes, and the first text again from that.
The one rule: what PostgreSQL cannot hold is written as SUBSTITUTE (U+001A) and the four hexadecimal digits of its code;
SUBSTITUTE itself is written so too. In JSON the same is done to escapes (`\\u0000` becomes `\\u001a0000`), since
PostgreSQL refuses to look into a document that has them; so what a query takes out of a document is in the form of texts.
"""

from __future__ import annotations

import re
from typing import Final

MARK: Final = "\x1a"
_ODD: Final = re.compile("[\x00\x1a\ud800-\udfff]")
_MARKED: Final = re.compile("\x1a=?([0-9a-fA-F]{4})")

_SUSPECT: Final = re.compile(r"\\u(?:0000|001[aA]|[dD][89a-fA-F])" "|[\ud800-\udfff]")
_ODD_JSON: Final = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair of surrogates is a character like others
    r"|\\u(?P<escape>0000|001[aA]|[dD][89a-fA-F][0-9a-fA-F]{2})"
    r"|\\."
    "|(?P<raw>[\ud800-\udfff])",
    re.DOTALL,
)
_MARKED_JSON: Final = re.compile(r"\\u001a(?P<raw>=?)(?P<code>[0-9a-fA-F]{4})|\\.", re.DOTALL)


def to_text(text: str) -> str:
    """The text as PostgreSQL can hold it."""
    if text.isascii() and "\0" not in text and MARK not in text:
        return text
    return _ODD.sub(lambda found: f"{MARK}{ord(found[0]):04x}", text)


def from_text(text: str) -> str:
    """The text that `to_text` was given, or that a query took out of JSON."""
    return _MARKED.sub(lambda found: chr(int(found[1], 16)), text) if MARK in text else text


def to_json(text: str) -> str:
    """JSON text as PostgreSQL can hold it and look into it. What is no JSON may come out as something else."""
    return _ODD_JSON.sub(_hide, text) if _SUSPECT.search(text) else text


def from_json(text: str) -> str:
    """The JSON text that `to_json` was given."""
    return _MARKED_JSON.sub(_show, text) if "\\u001a" in text else text


def _hide(found: re.Match[str]) -> str:
    if found["escape"] is not None:
        return rf"\u001a{found['escape']}"
    return rf"\u001a={ord(found['raw']):04x}" if found["raw"] is not None else found[0]


def _show(found: re.Match[str]) -> str:
    if found["code"] is None:
        return found[0]
    return chr(int(found["code"], 16)) if found["raw"] else rf"\u{found['code']}"

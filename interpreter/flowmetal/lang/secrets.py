"""Secrets as values: a name that whoever sends fills in, and nobody else can look into.

In: a secret's name, or text with such names in it. Out: a value that prints as `#secret[NAME]`. The one
rule: what it stands for is never in the program's state, so it can be in no log, snapshot or error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from flowmetal.errors import LispError
from flowmetal.lang.persistent import List, Map, Set, Vector

NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")


class Secret:
    """A secret, or text that holds some: `parts` are pieces of text and, as one-element tuples, names."""

    __slots__ = ("parts",)

    def __init__(self, parts: tuple[str | tuple[str], ...]) -> None:
        self.parts = parts

    @property
    def name(self) -> str | None:
        """The name, where it is one secret and nothing else."""
        only = self.parts[0] if len(self.parts) == 1 else None
        return only[0] if isinstance(only, tuple) else None

    def fill(self, value_of: Callable[[str], str]) -> str:
        """The text itself: for whoever sends it, at that moment."""
        return "".join(value_of(part[0]) if isinstance(part, tuple) else part for part in self.parts)

    def to_plain(self) -> str:
        """What outsiders see."""
        return "".join(f"#secret[{part[0]}]" if isinstance(part, tuple) else part for part in self.parts)

    def flowmetal_repr(self) -> str:
        """`#secret[NAME]`, in its text."""
        return self.to_plain()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash(self.parts)

    def __repr__(self) -> str:
        return self.to_plain()


def secret(name: Any) -> Secret:
    """The secret of that name. Raises LispError for a name that an environment variable cannot have."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise LispError('secret needs a name of letters, digits and _, such as (secret "API_KEY")', type="value")
    return Secret(((name,),))


def joined(texts: list[str | Secret]) -> Secret:
    """Text with secrets in it, as `str` makes it."""
    parts: list[str | tuple[str]] = []
    for text in texts:
        parts += [text] if isinstance(text, str) else text.parts
    return Secret(tuple(part for part in parts if part != ""))


def replaced(value: Any, text_of: Callable[[Secret], str]) -> Any:
    """A value with text in the place of its secrets; the same value where it holds none."""
    if isinstance(value, Secret):
        return text_of(value)
    if isinstance(value, Map):
        pairs = [(k, v, replaced(v, text_of)) for k, v in value.items()]
        return Map.of([(k, new) for k, _, new in pairs]) if any(new is not old for _, old, new in pairs) else value
    if isinstance(value, (Vector, List, Set)):
        items = list(value)
        new = [replaced(item, text_of) for item in items]
        return Vector.of(new) if any(a is not b for a, b in zip(new, items, strict=True)) else value
    return value


def used(who: str, x: Secret) -> LispError:
    """The error of a function that would look into a secret."""
    return LispError(f"{who} cannot look into {x.to_plain()[:80]}: a secret is known to who sends it only; str puts it into text", type="secret/used")

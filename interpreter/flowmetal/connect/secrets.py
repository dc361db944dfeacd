"""Where secrets come from: the environment, or a file beside the store that nobody else may read.

In: a name. Out: its text. The one rule: it is read at the moment of sending and kept nowhere.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang.secrets import replaced

SecretOf = Callable[[str], str]


def secrets_of(file: Path | None) -> SecretOf:
    """Finds a secret in `FLOWMETAL_SECRET_NAME`, else in `file` (lines `NAME=text`). Raises LispError where there is none."""

    def find(name: str) -> str:
        value = os.environ.get(f"FLOWMETAL_SECRET_{name}")
        if value is None and file is not None:
            value = _read(file).get(name)
        if value is None:
            where = f" or in {file}" if file is not None else ""
            raise LispError(f"there is no secret {name}: set FLOWMETAL_SECRET_{name}{where} where the interpreter runs", type="secret/missing")
        return value

    return find


def filled(value: Any, secret_of: SecretOf) -> Any:
    """A value with its secrets in place, for whoever sends it now; the same value where it holds none."""
    return replaced(value, lambda secret: secret.fill(secret_of))


def _read(file: Path) -> dict[str, str]:
    try:
        mode = file.stat().st_mode
        if stat.S_IMODE(mode) & 0o077:
            raise LispError(f"{file} may be read by others: chmod 600 it, then its secrets are taken", type="secret/missing")
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise LispError(f"{file} cannot be read: {error}", type="secret/missing") from None
    pairs = (line.partition("=")[::2] for line in lines if "=" in line and not line.lstrip().startswith("#"))
    return {name.strip(): text.strip() for name, text in pairs}

"""Which process this is, in words that another process of the same machine can check.

In: `/proc`. Out: an identity to be kept where others read it; and of another's, whether that process is known to be over. The one rule:
only what is certain counts: who is on another machine, in another container, or cannot be looked at, is not known to be over.

A number of a process is given again, so its beginning belongs to it; and it is a number of one namespace, of one run of one kernel.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_OVER: Final = "ZX"
"""States of a process that has ended and whose parent has not noticed."""


def identity() -> str | None:
    """This process, as `MACHINE NAMESPACE NUMBER BEGINNING`; None where the system does not tell."""
    try:
        place = _place()
        number, _, began = _stat("self")
    except (OSError, ValueError):
        return None
    return f"{place} {number} {began}" if number == os.getpid() else None


def is_over(who: str | None) -> bool:
    """Whether the process of that identity is known to have ended."""
    try:
        *place, text, began = (who or "").split(" ")
        if " ".join(place) != _place():
            return False
        number = int(text)
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # there is one of that number, which is another user's
    except (OSError, ValueError, OverflowError):
        return False
    try:
        _, state, found = _stat(text)
    except (OSError, ValueError):
        return False  # it may have ended just now, or be hidden from this user: that is not certain
    return state in _OVER or found != began


def _place() -> str:
    """This run of the kernel, and the namespace of this process's number."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot} {Path('/proc/self/ns/pid').stat().st_ino}"


def _stat(process: str) -> tuple[int, str, str]:
    """A process's number, its state, and when it began, in ticks since the kernel did."""
    number, _, rest = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").partition(" ")
    fields = rest.rpartition(")")[2].split()
    return int(number), fields[0], fields[19]

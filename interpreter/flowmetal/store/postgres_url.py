"""The URL of a PostgreSQL store as it may be shown.

What goes in: `postgresql://USER:PASSWORD@HOST/DATABASE?…`. What comes out: the same without passwords. The one rule: no message,
list of processes or answer of a host shows a password.
"""

from __future__ import annotations

import re

_SECRET = re.compile(r"(?i)(^|&)(ssl)?password=[^&]*")


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    scheme, _, rest = url.partition("://")
    address, _, options = rest.partition("?")
    account, at, host = address.rpartition("@")
    kept = _SECRET.sub("", options).lstrip("&")
    return f"{scheme}://{account.partition(':')[0]}{at}{host}{'?' if kept else ''}{kept}"

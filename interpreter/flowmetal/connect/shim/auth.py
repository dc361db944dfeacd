"""Who may come in: the bearer token, and the names that a browser may know this server by.

In: headers. Out: nothing, or a problem: 401 without the token, 403 for a foreign `Host`. The one
rule: the token is compared in constant time, and a page of another site (DNS rebinding) is never served.
"""

from __future__ import annotations

import hmac
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from flowmetal.connect.shim.context import Ctx
from flowmetal.connect.shim.problems import Problem

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
bearer = HTTPBearer(auto_error=False, description="The store's token; `flowmetal token` prints it.")


async def require_token(context: Ctx, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)] = None) -> None:
    """Refuses a request without the store's token."""
    given = credentials.credentials if credentials else ""
    if not context.token or not hmac.compare_digest(given.encode(), context.token.encode()):
        what = "wrong token" if given else "no token"
        raise Problem(
            401,
            f"{what}: send `Authorization: Bearer TOKEN`; `flowmetal token` prints it",
            headers={"WWW-Authenticate": "Bearer"},
        )


def host_name(header: str) -> str:
    """The name in a `Host` header, in lower case, without port, brackets and final dot."""
    try:
        return (urlsplit(f"//{header.strip()}").hostname or "").rstrip(".")
    except ValueError:
        return ""

"""Problem documents become the errors that they came from."""

from __future__ import annotations

import json

import pytest

from flowmetal.client.problems import error_of, failure_of
from flowmetal.errors import (
    FlowCancelled,
    FlowConflict,
    FlowEnded,
    FlowFailed,
    FlowmetalError,
    FlowNotFound,
    LispError,
    SourceError,
    StoreError,
)


@pytest.mark.parametrize(
    ("status", "type_", "kind"),
    [
        (404, "flow/not-found", FlowNotFound),
        (404, None, FlowNotFound),
        (422, "reader/eof", SourceError),
        (422, "compile/unresolved", SourceError),
        (422, "value", LispError),
        (401, None, StoreError),
        (500, None, StoreError),
        (503, "store", StoreError),
        (410, "flow/ended", FlowEnded),
        (409, "flow/conflict", FlowConflict),
    ],
)
def test_classes(status: int, type_: str | None, kind: type[FlowmetalError]) -> None:
    document = {"title": "x", "detail": "what is wrong", "status": status, "error": {"type": type_, "message": "m"}}
    error = error_of(status, json.dumps(document).encode())
    assert type(error) is kind
    if type_ is not None:
        assert error.type == type_


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"\xff\xfe", b'{"detail": null}'])
def test_what_is_no_problem_document_is_an_error_too(body: bytes) -> None:
    assert error_of(502, body).message


def test_failures() -> None:
    rendered = "boom\n  a.flow:1:2\n  (boom)\n  ^^^^^^"
    failed = failure_of({"status": "failed", "error": {"type": "user", "message": "boom", "rendered": rendered}}, "f1")
    assert isinstance(failed, FlowFailed)
    assert (failed.type, failed.message, failed.render()) == ("user", "boom", rendered)
    cancelled = failure_of({"status": "cancelled", "error": {"type": "flow/cancelled", "message": "why"}}, "f1")
    assert isinstance(cancelled, FlowCancelled)
    source = failure_of({"status": "failed", "error": {"type": "compile/unresolved", "message": "x"}}, "f1")
    assert isinstance(source, SourceError)

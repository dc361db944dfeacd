"""The tests in docs/testing.md run, and hold."""

from __future__ import annotations

from documents import ROOT, blocks

from flowmetal.testing import run_source


def test_the_tests_of_the_page_hold() -> None:
    found = blocks("clojure", ROOT / "docs" / "testing.md")
    results = run_source("\n".join(block.text for block in found), file="docs/testing.md")
    assert len(results) == 5
    assert all(result.ok and result.passed for result in results), [result for result in results if not result.ok]

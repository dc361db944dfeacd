"""Every public name of the language says what it does, how it is called, and shows an example that holds."""

from __future__ import annotations

import pytest

from flowmetal.errors import FlowmetalError
from flowmetal.lang import describe
from flowmetal.lang.describe import Description
from flowmetal.lang.library import library
from flowmetal.lang.natives import REWRITES, SPECIAL
from flowmetal.lang.special_docs import SPECIAL_DOCS
from flowmetal.testing.examples import Examples, split

DEFINITIONS = library()


def described(ns: str, name: str) -> Description:
    found = describe.describe(DEFINITIONS, f"{ns}/{name}", "user", DEFINITIONS.version)
    assert found is not None
    return found


NAMES = [described(ns, name) for ns, name in describe.public_names(DEFINITIONS, DEFINITIONS.version)]
SPECIAL_FORMS = [describe.special(name) for name in SPECIAL_DOCS]


EXAMPLES = Examples()


@pytest.mark.parametrize("d", NAMES + SPECIAL_FORMS, ids=lambda d: d.full_name)
def test_every_public_name_is_documented_and_its_example_holds(d: Description) -> None:
    assert d.doc, f"{d.full_name} has no docstring"
    assert d.arglists or d.kind == "value", f"{d.full_name} has no arglists"
    assert d.example, f"{d.full_name} has no example"
    form, value = split(d.example)
    assert EXAMPLES.value_of(form, waits=d.ns in ("flow", "http", "sql", "test")) == value


def test_every_special_form_is_documented() -> None:
    inner = {"let*", "loop*", "fn*", "def*", "syntax-quote", "unquote", "unquote-splicing"}
    assert set(SPECIAL) | set(REWRITES) <= set(SPECIAL_DOCS) | inner


def test_examples_that_are_none_are_refused() -> None:
    for text in ("(inc 1)", "(inc 1) ;=>", ";=> 2"):
        with pytest.raises(FlowmetalError, match="an example is written"):
            split(text)

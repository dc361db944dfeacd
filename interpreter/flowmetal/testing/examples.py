"""Runs examples of documentation: `(form) ;=> value`, each in a flow of its own on virtual time.

In: the text of an example. Out: what it printed for its value, to compare. Examples may use the programs of `PROGRAMS`, and the
outside world answers as `WORLD` says.
"""

from __future__ import annotations

from flowmetal.errors import FlowmetalError, LispError
from flowmetal.lang.effect_examples import PROGRAMS, WORLD
from flowmetal.lang.layout import AnyAlias
from flowmetal.lang.printer import pr_str
from flowmetal.lang.reader import Reader
from flowmetal.lang.session import Session
from flowmetal.lang.spans import Source
from flowmetal.runtime.definitions_log import DefinitionsLog
from flowmetal.testing.deftests import add_source, run_test


def split(example: str) -> tuple[str, str]:
    """The form and the value of `form ;=> value`."""
    form, arrow, value = example.rpartition(";=>")
    if not arrow or not form.strip() or not value.strip():
        raise LispError(f"an example is written (form) ;=> value, not {example}", type="value")
    return form.strip(), value.strip()


def texts(forms: str) -> list[str]:
    """The text of each top-level form."""
    reader = Reader(Source("example", forms), aliases=AnyAlias())
    return [reader.last_text for _ in reader]


class Examples:
    """Evaluates examples, one after the other: pure forms at once, others in a flow of their own on virtual time."""

    def __init__(self) -> None:
        self._session = Session()
        self._definitions = DefinitionsLog(lambda: 0)
        add_source(self._definitions, PROGRAMS, "programs")

    def value_of(self, form: str, *, waits: bool = False) -> str:
        """What the last of some forms prints as. Raises FlowmetalError with what went wrong."""
        if not waits:
            try:
                return pr_str(self._session.eval(form))
            except FlowmetalError as e:
                if e.type not in ("compile/syntax", "compile/unresolved"):
                    raise
            finally:
                self._session.ns = "user"
        return self._in_flow(form)

    def _in_flow(self, form: str) -> str:
        *definitions, last = texts(form)
        body = WORLD % f'(println (str "{_MARK}" (pr-str {last})))'
        add_source(self._definitions, "\n".join([*definitions, f"(deftest example {body})"]), "example")
        result = run_test(self._definitions, "user/example", {})
        if result.error is not None:
            raise LispError(result.error, type="value")
        return result.output.rpartition(_MARK)[2].rstrip("\n")


_MARK = "=> "

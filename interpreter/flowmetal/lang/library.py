"""The core library as definitions at version 0: leaf primitives, machine operations, the prelude.

The prelude is compiled a definition at a time, when it is first used: its files are indexed by the
names at the start of their lines, so that starting costs a few milliseconds.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import flowmetal.lang.atoms
import flowmetal.lang.doc_ops
import flowmetal.lang.durable_ops
import flowmetal.lang.flow_ops
import flowmetal.lang.language_ops
import flowmetal.lang.makers
import flowmetal.lang.multimethods
import flowmetal.lang.output_ops
import flowmetal.lang.outside_ops
import flowmetal.lang.primitives
import flowmetal.lang.run_ops
import flowmetal.lang.saga_ops
import flowmetal.lang.test_ops
import flowmetal.lang.time_travel_ops  # noqa: F401  likewise
from flowmetal.lang import evaluate
from flowmetal.lang.definitions import Binding, Definitions
from flowmetal.lang.functions import Root
from flowmetal.lang.machine_ops import OPS
from flowmetal.lang.prelude_forms import PreludeForm, prelude
from flowmetal.lang.primitives.registry import PRIMITIVES_VERSION, TABLE


def engine_version() -> str:
    """What re-execution depends on besides definitions: the primitives' version and the prelude's hash."""
    digest = hashlib.sha256("".join(f.text for f in prelude().values()).encode()).hexdigest()[:12]
    return f"{PRIMITIVES_VERSION}-{digest}"


@lru_cache(maxsize=1)
def library_namespaces() -> frozenset[str]:
    """The namespaces that the library has."""
    return frozenset([ns for ns, _ in (*TABLE, *OPS)] + [form.ns for form in prelude().values()])


def install(definitions: Definitions) -> Definitions:
    """Puts the library into `definitions`, at version 0."""
    for table in (TABLE, OPS):
        for (ns, name), fn in table.items():
            meta = {"doc": fn.doc, "arglists": fn.arglists, "example": fn.example}
            definitions.define(ns, name, Binding(fn, kind="library", meta=meta))
    for form in prelude().values():
        definitions.define(form.ns, form.name, _lazy(definitions, form))
    return definitions


def _lazy(definitions: Definitions, form: PreludeForm) -> Binding:
    binding = Binding(None, kind="prelude", macro=form.kind == "defmacro", meta={"private": form.kind == "defn-", "source": form.text})

    def force() -> Any:
        value, meta = evaluate.definition(definitions, form.root())
        binding.meta = {**meta, **binding.meta}
        return value

    binding._thunk = force
    return binding


@lru_cache(maxsize=1)
def _shared() -> Definitions:
    """The library, once a process: nothing changes it, so what was compiled of it serves all."""
    return install(Definitions())


def library() -> Definitions:
    """New definitions with the library in them."""
    return _shared().copy()


def load_root(definitions: Definitions, root: Root) -> Root:
    """The compiled root for one that was read from the store."""
    if root.prelude is not None:
        root = prelude()[root.prelude].root()
    return evaluate.compiled(definitions, root)

"""`%%python name <<`: how a Python cell's last expression is kept instead of shown.

In: the cell's syntax tree, as IPython hands it over. Out: the same tree, its last expression assigned. The one rule: lines
keep their numbers, so that a traceback still points at the right one.
"""

from __future__ import annotations

import ast
from collections.abc import MutableMapping
from typing import Any

NAME = "_flowmetal_last_value"


class LastValue(ast.NodeTransformer):
    """An `ast_transformers` entry of IPython; `take` gives the value afterwards."""

    def visit_Module(self, node: ast.Module) -> ast.Module:
        """Turns the last statement, if it is an expression, into an assignment."""
        if node.body and isinstance(node.body[-1], ast.Expr):
            last = node.body[-1]
            target = ast.copy_location(ast.Name(NAME, ast.Store()), last)
            node.body[-1] = ast.copy_location(ast.Assign([target], last.value), last)
        return node

    def take(self, namespace: MutableMapping[str, Any]) -> Any:
        """The value of the last expression; None where there was none."""
        return namespace.pop(NAME, None)

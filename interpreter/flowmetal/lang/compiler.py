"""Compilation: nodes become flat instructions, addressed by position.

Each instruction is a tuple (operation, operands…). A leaf expression is one instruction; all others
use the frame's operand stack. Positions map to spans. The operations are in `OPS`.
"""

from __future__ import annotations

from typing import Any

from flowmetal.errors import SourceError
from flowmetal.lang import nodes as n
from flowmetal.lang.analyzer import Analyzer, FnScope, RunMacro
from flowmetal.lang.definitions import Definitions
from flowmetal.lang.functions import Arity, Closure, Code, Root
from flowmetal.lang.leaves import shape_of
from flowmetal.lang.python_tier import tier_of
from flowmetal.lang.reader import Reader
from flowmetal.lang.spans import Source

OPS = (
    "PUSH", "RETURN_LEAF", "JUMP_UNLESS_LEAF", "CALL", "SET_LEAF", "CALL_LEAVES", "RECUR_LEAVES", "RETURN", "JUMP", "JUMP_UNLESS", "SET",
    "EXEC", "POP", "RECUR", "BUILD", "TRY", "END_TRY", "CATCH", "RETHROW", "END_CATCH", "END_FINALLY", "DEF", "PATCH", "FINALLY",
)  # fmt: skip
(
    PUSH, RETURN_LEAF, JUMP_UNLESS_LEAF, CALL, SET_LEAF, CALL_LEAVES, RECUR_LEAVES, RETURN, JUMP, JUMP_UNLESS, SET,
    EXEC, POP, RECUR, BUILD, TRY, END_TRY, CATCH, RETHROW, END_CATCH, END_FINALLY, DEF, PATCH, FINALLY,
) = range(len(OPS))  # fmt: skip


VALUE, LOOPED, RETURNED = range(3)
"""Where an expression stands: its value is an operand; it is the last of a loop; it is the last of the function."""


class _Emitter:
    """Emits one arity."""

    def __init__(self, arity: Arity) -> None:
        self.arity = arity
        self.out: list[list[Any]] = []
        self.spans: list[Any] = []

    def op(self, span: Any, *ins: Any) -> int:
        self.out.append(list(ins))
        self.spans.append(span)
        return len(self.out) - 1

    def patch(self, at: int, operand: int) -> None:
        self.out[at][operand] = len(self.out)

    def finish(self) -> None:
        self.arity.instructions = [tuple(x) for x in self.out]
        self.arity.spans = self.spans
        if len(self.out) == 1 and self.out[0][0] == RETURN_LEAF:
            self.arity.leaf = self.out[0][1]

    # Expressions: each leaves its value on the stack, or returns it.

    def emit(self, node: n.Node, tail: int) -> None:
        if node.leaf is not None:
            self.op(node.span, RETURN_LEAF if tail == RETURNED else PUSH, node.leaf)
            return
        _EMIT[type(node)](self, node, tail)

    def drop(self, node: n.Node) -> None:
        """An expression whose value nobody needs."""
        if isinstance(node, n.Const):
            return
        if node.leaf is not None:
            self.op(node.span, EXEC, node.leaf)
            return
        self.emit(node, VALUE)
        self.op(node.span, POP)

    def done(self, node: n.Node, tail: int) -> None:
        if tail == RETURNED:
            self.op(node.span, RETURN)

    def call(self, node: n.Call, tail: int) -> None:
        assert node.fn is not None
        parts = [node.fn, *node.args]
        fns = [p.leaf for p in parts if p.leaf is not None]
        if len(fns) == len(parts):
            self.op(node.span, CALL_LEAVES, tuple(fns))
        else:
            for p in parts:
                self.emit(p, VALUE)
            self.op(node.span, CALL, len(node.args))
        self.done(node, tail)

    def if_(self, node: n.If, tail: int) -> None:
        assert node.test and node.then and node.other
        if node.test.leaf is not None:
            to_else = self.op(node.span, JUMP_UNLESS_LEAF, node.test.leaf, 0)
            operand = 2
        else:
            self.emit(node.test, VALUE)
            to_else, operand = self.op(node.span, JUMP_UNLESS, 0), 1
        self.emit(node.then, tail)
        to_end = None if tail == RETURNED else self.op(node.span, JUMP, 0)
        self.patch(to_else, operand)
        self.emit(node.other, tail)
        if to_end is not None:
            self.patch(to_end, 1)

    def do(self, node: n.Do, tail: int) -> None:
        *before, last = node.parts
        for p in before:
            self.drop(p)
        self.emit(last, tail)

    def bindings(self, pairs: list[tuple[int, str, n.Node]]) -> list[tuple[int, str, int]]:
        marks = []
        for slot, name, init in pairs:
            self.set(slot, init)
            marks.append((slot, name, len(self.out)))
        return marks

    def set(self, slot: int, init: n.Node) -> None:
        if init.leaf is not None:
            self.op(init.span, SET_LEAF, slot, init.leaf)
        else:
            self.emit(init, VALUE)
            self.op(init.span, SET, slot)

    def named(self, marks: list[tuple[int, str, int]]) -> None:
        end = len(self.out)
        self.arity.names += [(slot, name, start, end) for slot, name, start in marks if not name.endswith("__auto")]

    def let(self, node: n.Let, tail: int) -> None:
        assert node.body
        marks = self.bindings(node.pairs)
        self.emit(node.body, tail)
        self.named(marks)

    def loop(self, node: n.Loop, tail: int) -> None:
        assert node.body
        marks = self.bindings(node.pairs)
        node.label.append(len(self.out))
        self.emit(node.body, tail or LOOPED)
        self.named(marks)

    def letfn(self, node: n.LetFn, tail: int) -> None:
        assert node.body
        marks = self.bindings(node.pairs)
        for slot, _, init in node.pairs:
            assert init.leaf is not None
            self.op(node.span, PATCH, slot, init.leaf)
        self.emit(node.body, tail)
        self.named(marks)

    def recur(self, node: n.Recur, tail: int) -> None:
        if tail == VALUE:
            raise SourceError("recur must be the last thing that a loop or function does", type="compile/syntax", span=node.span)
        fns = [a.leaf for a in node.args if a.leaf is not None]
        target = node.label[0]
        if len(fns) == len(node.args):
            self.op(node.span, RECUR_LEAVES, target, tuple(node.slots), tuple(fns))
            return
        for a in node.args:
            self.emit(a, VALUE)
        self.op(node.span, RECUR, target, tuple(node.slots))

    def collection(self, node: n.Collection, tail: int) -> None:
        for p in node.parts:
            self.emit(p, VALUE)
        self.op(node.span, BUILD, node.kind, len(node.parts))
        self.done(node, tail)

    def try_(self, node: n.Try, tail: int) -> None:
        """Body and catches leave their value in a slot; a finally runs once, whatever the way out."""
        assert node.body
        error, value = node.error_slot, node.value_slot
        guard = self.op(node.span, TRY, 0, error) if node.finally_ is not None else None
        inner = self.op(node.span, TRY, 0, error) if node.catches else None
        self.set(value, node.body)
        ends = []
        if inner is not None:
            self.op(node.span, END_TRY)
            ends.append(self.op(node.span, JUMP, 0))
            self.patch(inner, 1)
            ends += [end for c in node.catches if (end := self.catch(node, c)) is not None]
            self.op(node.span, RETHROW, error)
        for at in ends:
            self.patch(at, 1)
        if guard is not None:
            assert node.finally_ is not None
            self.op(node.span, END_TRY)
            self.patch(guard, 1)
            self.op(node.span, FINALLY)
            self.drop(node.finally_)
            self.op(node.span, END_FINALLY, error)
        self.op(node.span, RETURN_LEAF if tail == RETURNED else PUSH, _slot(value))

    def catch(self, node: n.Try, c: n.Catch) -> int | None:
        skip = self.op(c.body.span, CATCH, node.error_slot, c.type, c.slot, 0)
        start = len(self.out)
        self.set(node.value_slot, c.body)
        self.named([(c.slot, c.name, start)])
        self.op(c.body.span, END_CATCH, c.slot)
        end = self.op(c.body.span, JUMP, 0)
        self.patch(skip, 4)
        return end

    def define(self, node: n.Def, tail: int) -> None:
        assert node.init
        self.emit(node.init, VALUE)
        self.op(node.span, DEF, node.ns, node.name, node.kind, _Facts(node.meta))
        self.done(node, tail)


class _Facts:
    """Metadata of a definition: no part of what the code does."""

    shape = "facts"
    __slots__ = ("meta",)

    def __init__(self, meta: dict[str, Any]) -> None:
        self.meta = meta


def _slot(slot: int) -> Any:
    from flowmetal.lang.leaves import local

    return local(slot)


_EMIT: dict[type, Any] = {
    n.Call: _Emitter.call, n.If: _Emitter.if_, n.Do: _Emitter.do, n.Let: _Emitter.let, n.Loop: _Emitter.loop, n.Recur: _Emitter.recur,
    n.LetFn: _Emitter.letfn, n.Collection: _Emitter.collection, n.Try: _Emitter.try_, n.Def: _Emitter.define,
}  # fmt: skip


def _compile_arity(arity: Arity, node: n.Node, scope: FnScope) -> None:
    emitter = _Emitter(arity)
    emitter.emit(node, RETURNED)
    emitter.finish()
    arity.size = scope.size
    arity.tier = tier_of(node)


def compile_form(definitions: Definitions, root: Root, form: Any, run_macro: RunMacro) -> Closure:
    """A function of no arguments that evaluates `form`; its code and all inside it belong to `root`."""
    root.definitions = definitions
    analyzer = Analyzer(definitions, root, run_macro)
    analyzer.compile_arity = _compile_arity
    code = Code("", root, getattr(form, "span", None))
    arity = Arity(code, 0, False)
    code.arities[0] = arity
    scope = FnScope(code, arity, None)
    try:
        _compile_arity(arity, analyzer.analyze(form, scope), scope)
    except RecursionError:
        raise SourceError("code nests too deep", type="limit", span=code.span, hint="quote it if it is data, or split it into functions") from None
    return Closure(code, [])


def compile_root(definitions: Definitions, root: Root, run_macro: RunMacro) -> Root:
    """Compiles a root from its text, once: the same key gives the same codes."""
    known = definitions.compiled(root.key)
    if known is not None:
        return known
    compile_form(definitions, root, read_root(root, definitions), run_macro)
    definitions.keep_compiled(root)
    return root


def read_root(root: Root, definitions: Definitions) -> Any:
    """The form of a root's text, with its spans where they were in the file."""
    padding = "\n" * (root.line - 1) + " " * (root.column - 1)
    table = definitions.namespace(root.ns, root.pin)
    aliases = dict(table.get("aliases").items()) if table else {}
    for form in Reader(Source(root.file, padding + root.text, library=root.prelude is not None), ns=root.ns, aliases=aliases):
        return form
    raise SourceError("there is no form here", type="reader/eof")


__all__ = ["OPS", "compile_form", "compile_root", "read_root", "shape_of"]

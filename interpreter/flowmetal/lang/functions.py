"""Values that the machine makes and calls: code, closures, promises, handles, programs, atoms.

All are plain data to the codec. A closure is its code and the values that it captured; no Python
function, frame or generator is part of any value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flowmetal.errors import LispError
from flowmetal.lang.definitions import REFERRED
from flowmetal.lang.persistent import EMPTY_MAP, Map, Vector, seq_of
from flowmetal.lang.spans import Span
from flowmetal.lang.values import Keyword, Symbol, kw

if TYPE_CHECKING:
    from flowmetal.lang.definitions import Definitions
    from flowmetal.lang.python_tier import Tier
    from flowmetal.lang.values import ErrorValue


class Root:
    """The top-level form that some code was compiled from, enough to compile it again.

    `pin` is the definitions version that the form saw. `index` counts top-level forms of one text.
    """

    __slots__ = ("__weakref__", "codes", "column", "definitions", "file", "line", "ns", "pin", "prelude", "text")

    def __init__(self, ns: str, pin: int, file: str, line: int, column: int, text: str, prelude: str | None = None) -> None:
        self.ns = ns
        self.pin = pin
        self.file = file
        self.line = line
        self.column = column
        self.text = text
        self.prelude = prelude
        self.codes: list[Code] = []
        self.definitions: Definitions | None = None
        """What it was compiled against."""

    @property
    def key(self) -> tuple[Any, ...]:
        """Two roots with the same key compile to the same code."""
        return (self.ns, self.pin, self.file, self.line, self.column, self.text, self.prelude)


class Arity:
    """One body of a function: flat instructions and what belongs to each position."""

    __slots__ = ("code", "instructions", "leaf", "names", "params", "size", "spans", "tier", "variadic")

    def __init__(self, code: Code, params: int, variadic: bool) -> None:
        self.code = code
        self.leaf: Callable[[list[Any]], Any] | None = None
        """The whole body, when it is one leaf: it cannot suspend, so it may be called without a frame."""
        self.tier: Tier | None = None
        """What the second tier knows of it; None where it cannot be pure."""
        self.params = params
        self.variadic = variadic
        self.size = 0
        self.instructions: list[tuple[Any, ...]] = []
        self.spans: list[Span | None] = []
        self.names: list[tuple[int, str, int, int]] = []
        """(slot, name, first position, end position) of each local that a user named."""

    def parameters(self) -> str:
        """`[a b & more]`; _ stands for a parameter that is taken apart."""
        named = {slot: name for slot, name, start, _ in reversed(self.names) if start == 0}
        shown = ["_" if name.endswith("__auto") else name for name in (named.get(2 + i, "_") for i in range(self.params + self.variadic))]
        return f"[{' '.join([*shown[:-1], '&', shown[-1]] if self.variadic else shown)}]"


class Code:
    """A compiled function: its arities, and where it stands in its root."""

    __slots__ = ("_hash", "arities", "captures", "index", "name", "root", "span", "variadic")

    def __init__(self, name: str, root: Root, span: Span | None) -> None:
        self.name = name
        self.root = root
        self.span = span
        self.index = len(root.codes)
        root.codes.append(self)
        self.arities: dict[int, Arity] = {}
        self.variadic: Arity | None = None
        self.captures: int = 0
        self._hash: str | None = None

    def arity(self, count: int) -> Arity | None:
        """The body that takes `count` arguments, or None."""
        found = self.arities.get(count)
        if found is None and self.variadic is not None and count >= self.variadic.params:
            return self.variadic
        return found

    def all_arities(self) -> list[Arity]:
        """Fixed arities in order of their size, then the variadic one."""
        fixed = [self.arities[n] for n in sorted(self.arities)]
        return [*fixed, self.variadic] if self.variadic else fixed

    @property
    def hash(self) -> str:
        """A hash of what the code does: locals are slots, so their names do not count."""
        if self._hash is None:
            parts = [f"{a.params}{'&' if a.variadic else ''}:{_canonical(a.instructions)}" for a in self.all_arities()]
            self._hash = hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return self._hash

    def arity_text(self) -> str:
        """The accepted numbers of arguments, in words."""
        fixed = sorted(self.arities)
        if self.variadic and fixed == list(range(fixed[0] if fixed else 0, self.variadic.params)):
            fixed, least = [], fixed[0] if fixed else self.variadic.params
        else:
            least = self.variadic.params if self.variadic else 0
        counts = [str(n) for n in fixed]
        if self.variadic:
            counts.append(f"{least} or more")
        *before, last = counts
        text = f"{', '.join(before)} or {last}" if before else last
        return f"{text} argument{'' if text == '1' else 's'}"

    def arity_message(self, name: str, count: int) -> str:
        """What to say of a call with `count` arguments: the numbers that are taken, and the parameters."""
        lists = " ".join(a.parameters() for a in self.all_arities())
        prefix = f"{self.root.ns}/" if self.root.prelude is not None and self.root.ns not in REFERRED and "/" not in name else ""
        return f"{prefix}{name} takes {self.arity_text()}, but was given {count}: ({lists})"


def _canonical(instructions: list[tuple[Any, ...]]) -> str:
    return ";".join(",".join(_part(x) for x in ins) for ins in instructions)


def _part(x: Any) -> str:
    shape = getattr(x, "shape", None)
    if shape is not None:
        return str(shape)
    if isinstance(x, Code):
        return x.hash
    if isinstance(x, (tuple, list)):
        return "(" + " ".join(_part(y) for y in x) + ")"
    named = getattr(x, "canonical", None)
    return named() if named is not None else repr(x)


class Closure:
    """A function value. `version` is None while it lives in the flow or definition that made it;
    a closure that came from another flow carries the definitions version it is to see."""

    __slots__ = ("captures", "code", "meta", "version")

    def __init__(self, code: Code, captures: list[Any], version: int | None = None, meta: Map | None = None) -> None:
        self.code = code
        self.captures = captures
        self.version = version
        self.meta = meta

    def with_meta(self, meta: Map | None) -> Closure:
        """The same function with other metadata."""
        return Closure(self.code, self.captures, self.version, meta)

    def flowmetal_repr(self) -> str:
        """`#fn[name hash]`."""
        return f"#fn[{self.code.name or 'fn'} {self.code.hash[:8]}]"


def locals_of(f: Closure, arity: Arity, args: list[Any], version: int) -> list[Any]:
    """The locals of a frame that runs `arity` of `f`: [version, closure, parameters…, room for lets…]."""
    L = [version, f, *args]
    if arity.variadic:
        rest = args[arity.params :]
        L[2 + arity.params :] = [seq_of(tuple(rest)) if rest else None]
    L.extend([None] * (arity.size - len(L)))
    return L


def arity_error(f: Closure, count: int) -> LispError:
    """The error of a call with `count` arguments, listing what is accepted."""
    return LispError(f.code.arity_message(f.code.name or "this function", count), type="arity")


def leaf_function(f: Closure, version: int, often: bool) -> Callable[..., Any]:
    """A Python function that calls `f`, whose bodies are leaves: for loops that cannot suspend.

    With `often`, it is worth a function of the second tier; what fails there runs again as a leaf, which has the place of the error.
    """
    own = f.version if f.version is not None else version

    def call(*args: Any) -> Any:
        arity = f.code.arity(len(args))
        if arity is None or arity.leaf is None:
            raise arity_error(f, len(args))
        return arity.leaf(locals_of(f, arity, list(args), own))

    if not often or f.code.variadic is not None or len(f.code.arities) != 1:
        return call
    (arity,) = f.code.arities.values()
    function = arity.tier.compiled(arity) if arity.tier is not None else None
    if function is None:
        return call

    def fast1(x: Any) -> Any:
        try:
            return function(own, f, x)
        except Exception:  # noqa: BLE001  it is raised again below
            return call(x)

    def fast2(x: Any, y: Any) -> Any:
        try:
            return function(own, f, x, y)
        except Exception:  # noqa: BLE001  likewise
            return call(x, y)

    fast: dict[int, Callable[..., Any]] = {1: fast1, 2: fast2}
    return fast.get(arity.params, call)


class MachineOp:
    """A function of the core library that needs the machine: it may suspend, or call functions.

    `fn(machine, fiber, args)` gives the value, or `PENDING` when it has arranged for one to come.
    """

    __slots__ = ("arglists", "doc", "example", "fn", "high", "low", "name", "ns")

    def __init__(self, ns: str, name: str, fn: Callable[..., Any], low: int, high: int | None, arglists: str, doc: str, example: str = "") -> None:
        self.ns = ns
        self.name = name
        self.fn = fn
        self.low = low
        self.high = high
        self.arglists = arglists
        self.doc = doc
        self.example = example

    def flowmetal_repr(self) -> str:
        """A function prints as its name."""
        return f"#fn[{self.ns}/{self.name}]"

    def canonical(self) -> str:
        """What stands for it in a code's hash."""
        return f"{self.ns}/{self.name}"


PENDING: Any = type("Pending", (), {"__repr__": lambda self: "PENDING"})()
"""What a MachineOp gives when its value comes later."""

OPEN, DONE, FAILED = 0, 1, 2


class Promise:
    """A durable single-assignment result. `flow` is None for a promise of the flow that holds it.

    `id` is the step (an integer) of a request, `fN` of a fiber, `result` of a flow's own result.
    """

    __slots__ = ("flow", "id", "op", "status", "value", "waiters")
    name = "promise"

    def __init__(self, id: int | str, flow: str | None = None, op: str = "") -> None:
        self.id = id
        self.flow = flow
        self.op = op
        self.status = OPEN
        self.value: Any = None
        self.waiters: list[int] = []

    def flowmetal_repr(self) -> str:
        """`#promise[flow id]`."""
        return f"#{self.name}[{' '.join(str(x) for x in (self.flow, self.id) if x is not None)}]"

    def to_plain(self) -> Any:
        """What outsiders see of it."""
        return {"promise": str(self.id), "flow": self.flow} if self.flow else {"promise": str(self.id)}

    def same(self, other: Any) -> bool:
        """Whether both name the same result."""
        return isinstance(other, Promise) and (self is other or (self.flow is not None and (self.flow, self.id) == (other.flow, other.id)))

    __eq__ = same

    def __hash__(self) -> int:
        return hash((self.flow, self.id)) if self.flow is not None else id(self)


class Callback(Promise):
    """A promise that the outside settles, by a POST to its `:url`; reads like a map."""

    __slots__ = ("token", "url")
    name = "callback"

    def __init__(self, id: int | str, url: str, token: str, flow: str | None = None) -> None:
        super().__init__(id, flow, "callback")
        self.url = url
        self.token = token

    def lookup(self, key: Any, default: Any) -> Any:
        """What `(:url c)` and `(:token c)` give."""
        if key is kw("url"):
            return self.url
        return self.token if key is kw("token") else default

    def to_plain(self) -> Any:
        """What outsiders see of it: where to POST."""
        return {"url": self.url}


class FlowHandle(Promise):
    """A flow, and the promise of its result."""

    __slots__ = ("program",)
    name = "flow"

    def __init__(self, flow: str, program: str) -> None:
        super().__init__("result", flow)
        self.program = program

    def flowmetal_repr(self) -> str:
        """`#flow[id name]`."""
        return f"#flow[{self.flow} {self.program}]"

    def lookup(self, key: Any, default: Any) -> Any:
        """What `(:id h)` and `(:name h)` give."""
        if key is kw("id"):
            return self.flow
        return self.program if key is kw("name") else default

    def to_plain(self) -> Any:
        """What outsiders see of it."""
        return {"flow_id": self.flow, "name": self.program}


class Atom:
    """A mutable cell in the state of one flow."""

    __slots__ = ("facts", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self.facts: Map | None = None
        """Its :meta, :validator and :watches, those that it has."""

    def flowmetal_repr(self) -> str:
        """`#atom[value]`."""
        from flowmetal.lang.printer import pr_str

        return f"#atom[{pr_str(self.value)}]"


class SharedAtom:
    """An atom that was given to a top-level `def`: its value is in the store, and every look at it is a step."""

    __slots__ = ("begins", "id")

    def __init__(self, id: str, begins: Any) -> None:
        self.id = id
        self.begins = begins

    def flowmetal_repr(self) -> str:
        """`#atom[its name]`."""
        return f"#atom[{self.id.rpartition('-')[0]}]"

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, SharedAtom) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)


class Delay:
    """A value that is computed when it is first asked for: until then, the function that gives it."""

    __slots__ = ("function", "value")

    def __init__(self, function: Any, value: Any = None) -> None:
        self.function = function
        """None once the value is known."""
        self.value = value

    def flowmetal_repr(self) -> str:
        """`#delay[pending]`, or `#delay[value]`."""
        from flowmetal.lang.printer import pr_str

        return f"#delay[{'pending' if self.function is not None else pr_str(self.value)}]"


class FlowProgram:
    """What `defflow` defines: called, it runs as a child; given to `start`, as a flow of its own."""

    __slots__ = ("body", "name", "ns")

    def __init__(self, ns: str, name: str, body: Closure) -> None:
        self.ns = ns
        self.name = name
        self.body = body

    @property
    def full_name(self) -> str:
        """`ns/name`, or the bare name in `user`."""
        return self.name if self.ns == "user" else f"{self.ns}/{self.name}"

    def flowmetal_repr(self) -> str:
        """`#flow-program[name hash]`."""
        return f"#defflow[{self.full_name} {self.body.code.hash[:8]}]"


class ForeignStub:
    """What `defforeign` defines: a function that some other program implements."""

    __slots__ = ("name", "options", "params")

    def __init__(self, name: str, params: Vector, options: Map) -> None:
        self.name = name
        self.params = params
        self.options = options

    def flowmetal_repr(self) -> str:
        """`#foreign[name]`."""
        return f"#foreign[{self.name}]"


class MultiFn:
    """A multimethod: a dispatch function, methods by dispatch value, and which value is preferred to which.

    `hierarchy` is the one it was given, or a var or atom that holds it; None for the shared one.
    """

    __slots__ = ("default", "dispatch", "hierarchy", "methods", "name", "preferences")

    def __init__(self, name: str, dispatch: Any, default: Any, methods: Map, preferences: Map = EMPTY_MAP, hierarchy: Any = None) -> None:
        self.name = name
        self.dispatch = dispatch
        self.default = default
        self.methods = methods
        self.preferences = preferences
        self.hierarchy = hierarchy

    def with_methods(self, methods: Map) -> MultiFn:
        """The same multimethod with other methods."""
        return MultiFn(self.name, self.dispatch, self.default, methods, self.preferences, self.hierarchy)

    def flowmetal_repr(self) -> str:
        """`#multi[name]`."""
        return f"#multi[{self.name}]"


CANCELLED = kw("flow/cancelled")
CONTINUED = kw("flow/continued")
"""What `continue-as` throws: nothing but `finally` stops it."""


def is_function(x: Any) -> bool:
    """Clojure's `fn?`: made by fn, or of the library; keywords and collections are not."""
    from flowmetal.lang.primitives.registry import Primitive

    return isinstance(x, (Closure, Primitive, MachineOp, FlowProgram, ForeignStub, MultiFn))


def error_type(error: ErrorValue) -> Keyword:
    """The keyword that `catch` compares."""
    return error.type


__all__ = [
    "CANCELLED", "CONTINUED", "DONE", "FAILED", "OPEN", "PENDING", "Arity", "Atom", "Callback", "Closure", "Code", "Delay", "FlowHandle", "FlowProgram",
    "ForeignStub", "MachineOp", "MultiFn", "Promise", "Root", "SharedAtom", "Symbol", "error_type", "is_function",
]  # fmt: skip

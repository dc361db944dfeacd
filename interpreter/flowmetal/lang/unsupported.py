"""Names that Clojure programmers know and that do not exist here, with what to use instead."""

from __future__ import annotations

from flowmetal.lang.values import Symbol

_DYNAMIC = "there are no dynamic vars: pass the value as an argument"
_REFS = "there are no refs or transactions: use an atom, given to a top-level def when flows share it"
_AGENTS = "there are no agents: use (async …) for a fiber or (start …) for a flow"
_JAVA = 'there is no Java here: look for a function with (apropos "…"), or implement one outside with defforeign'
_LAZY = "sequence functions are eager: use range, iterate, repeat, cycle or repeatedly with take, or a loop"
_THREADS = "use (async …) and @ : a durable promise takes the place of threads"
_TYPES = "there are no types to define: use maps, and defmulti for dispatch"

_WATCH = "atoms have no watches or validators: put what must happen into the function that swap! calls"
_NAMESPACES = "a file or notebook says what its namespace is and needs with (ns name (:require [other :as o]))"
_ARRAYS = (
    "to-array", "into-array", "object-array", "int-array", "long-array", "float-array", "double-array", "char-array", "byte-array", "boolean-array",
    "short-array", "make-array", "aget", "aset", "alength", "aclone", "amap", "areduce", "to-array-2d", "vector-of", "bytes", "ints", "longs",
)  # fmt: skip

INSTEAD = {
    **dict.fromkeys(
        ("binding", "with-redefs", "with-bindings", "bound-fn", "bound-fn*", "binding-conveyor-fn", "set!", "alter-var-root", "var-set", "thread-bound?"),
        _DYNAMIC,
    ),
    **dict.fromkeys(("ref", "sync", "dosync", "alter", "commute", "ref-set", "ensure", "io!"), _REFS),
    **dict.fromkeys(("agent", "send-off", "await-for", "restart-agent", "agent-error", "send-via", "shutdown-agents"), _AGENTS),
    **dict.fromkeys(
        (
            "new",
            ".",
            "..",
            "import",
            "gen-class",
            "proxy",
            "bean",
            "monitor-enter",
            "monitor-exit",
            "monitor",
            "definline",
            "memfn",
            "cast",
        ),
        _JAVA,
    ),
    **dict.fromkeys(("lazy-seq", "seque", "pvalues", "iteration"), _LAZY),
    **dict.fromkeys(("future", "future-call", "deliver", "pcalls", "locking", "thread", "go", "chan"), _THREADS),
    **dict.fromkeys(
        ("defrecord", "deftype", "defprotocol", "extend-type", "extend-protocol", "reify", "extend", "satisfies?", "extends?", "definterface"), _TYPES
    ),
    **dict.fromkeys(("numerator", "denominator", "rationalize", "ratio?"), "there are no ratios: / gives a float, quot rem mod are exact"),
    **dict.fromkeys(("slurp", "spit", "read-line", "load-string", "load-file", "read"), "programs do no I/O of their own: use http/get, sh or sql/query"),
    **dict.fromkeys(("add-watch", "remove-watch", "set-validator!", "get-validator"), _WATCH),
    **dict.fromkeys(_ARRAYS, "there are no arrays: use vectors"),
    **dict.fromkeys(("re-matcher", "re-groups"), "there are no matchers: re-find, re-matches and re-seq give the groups"),
    **dict.fromkeys(("intern", "create-ns", "remove-ns", "ns-unmap", "ns-unalias", "in-ns", "refer", "use", "alias", "load", "refer-clojure"), _NAMESPACES),
    **dict.fromkeys(("with-local-vars", "with-loading-context"), _DYNAMIC),
    **dict.fromkeys(("defstruct", "create-struct", "struct", "struct-map", "accessor"), _TYPES),
    **dict.fromkeys(("tap>", "add-tap", "remove-tap"), "use (log data): it goes into the flow's history"),
    **dict.fromkeys(("reader-conditional", "reader-conditional?", "tagged-literal", "tagged-literal?"), "there is one platform, and unknown tags are errors"),
    "use-fixtures": "each test has a store and a clock of its own: call a function in the test",
    **dict.fromkeys(("run-tests", "run-all-tests", "test-vars"), "flowmetal test FILE.flow runs the tests of a file"),
    "*ns*": "(current-ns) is the name of the namespace that the code stands in",
    "class": "(type x) gives the kind of a value as a keyword",
    "instance?": "(type x) gives the kind of a value as a keyword; string? map? inst? and the like ask for one kind",
    "with-open": "programs do no I/O of their own: use http/get, sh or sql/query",
    "with-precision": "decimals are exact; (double x) gives a float where there is no exact result",
    "promise": "use (callback), (timer d) or (async …): each gives a durable promise",
    "char": "a character is a one-letter string",
}


def replacement(name: Symbol) -> str | None:
    """What to use instead of a Clojure name that has no place here; None for any other name."""
    if name.ns is None:
        if name.name in INSTEAD:
            return INSTEAD[name.name]
        if (name.name.startswith(".") or name.name.endswith(".")) and len(name.name) > 1:
            return _JAVA
        if name.name.startswith("*") and name.name.endswith("*") and len(name.name) > 2:
            return _DYNAMIC
    elif name.ns[0].isupper() or name.ns in ("Math", "System", "Thread", "Integer", "Long", "Double", "String") or name.ns.startswith("java"):
        return _JAVA
    return None

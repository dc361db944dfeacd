"""Names that Clojure programmers know and that do not exist here, with what to use instead."""

from __future__ import annotations

from flowmetal.lang.values import Symbol

_DYNAMIC = "there are no dynamic vars: pass the value as an argument"
_REFS = "there are no refs or transactions: use an atom, given to a top-level def when flows share it"
_AGENTS = "there are no agents: use (async …) for a fiber or (start …) for a flow"
_JAVA = "there is no Java here: look for a function with (apropos \"…\"), or implement one outside with defforeign"
_LAZY = "sequence functions are eager: use range, iterate, repeat, cycle or repeatedly with take, or a loop"
_THREADS = "use (async …) and @ : a durable promise takes the place of threads"
_TYPES = "there are no types to define: use maps, and defmulti for dispatch"

INSTEAD = {
    **dict.fromkeys(("binding", "with-redefs", "with-bindings", "bound-fn", "set!", "alter-var-root", "var-set", "thread-bound?"), _DYNAMIC),
    **dict.fromkeys(("ref", "dosync", "alter", "commute", "ref-set", "ensure", "io!"), _REFS),
    **dict.fromkeys(("agent", "send-off", "await-for", "restart-agent"), _AGENTS),
    **dict.fromkeys(("new", ".", "..", "import", "gen-class", "proxy", "bean", "class", "instance?", "monitor-enter", "memfn", "cast"), _JAVA),
    **dict.fromkeys(("lazy-seq", "lazy-cat", "seque", "pvalues", "iteration"), _LAZY),
    **dict.fromkeys(("future", "future-call", "deliver", "pcalls", "locking", "thread", "go", "chan"), _THREADS),
    **dict.fromkeys(("defrecord", "deftype", "defprotocol", "extend-type", "extend-protocol", "reify", "extend"), _TYPES),
    **dict.fromkeys(("transient", "persistent!", "conj!", "assoc!", "dissoc!"), "collections are persistent only: use conj, assoc and into"),
    **dict.fromkeys(("numerator", "denominator", "rationalize", "ratio?"), "there are no ratios: / gives a float, quot rem mod are exact"),
    **dict.fromkeys(("slurp", "spit", "read-line", "eval", "load-string"), "programs do no I/O of their own: use http/get, sh or sql/query"),
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
    elif name.ns in ("Math", "System", "Thread", "Integer", "Long", "Double", "String") or name.ns.startswith("java"):
        return _JAVA
    return None

"""Names that programmers know from Clojure, Java and other languages and that do not exist here, with what to use instead."""

from __future__ import annotations

from flowmetal.lang.values import Symbol

_DYNAMIC = "there are no dynamic vars: pass the value as an argument"
_REFS = "there are no refs or transactions: use an atom, given to a top-level def when flows share it"
_AGENTS = "there are no agents: use (async …) for a fiber or (start …) for a flow"
_JAVA = 'there is no Java here: look for a function with (apropos "…"), or implement one outside with defforeign'
_LAZY = "sequence functions are eager: use range, iterate, repeat, cycle or repeatedly with take, or a loop"
_THREADS = "use (async …) and @ : a durable promise takes the place of threads"
_TYPES = "there are no types to define: use maps, and defmulti for dispatch"

_NAMESPACES = "a file or notebook says what its namespace is and needs with (ns name (:require [other :as o]))"
_ARRAYS = (
    "to-array", "into-array", "object-array", "int-array", "long-array", "float-array", "double-array", "char-array", "byte-array", "boolean-array",
    "short-array", "make-array", "aget", "aset", "alength", "aclone", "amap", "areduce", "to-array-2d", "vector-of", "bytes", "ints", "longs",
    "booleans", "chars", "doubles", "floats", "shorts", "aset-int", "aset-long", "aset-double", "aset-float", "aset-char", "aset-byte", "aset-short",
    "aset-boolean",
)  # fmt: skip

INSTEAD = {
    **dict.fromkeys(
        (
            "binding",
            "with-redefs",
            "with-redefs-fn",
            "with-bindings",
            "with-bindings*",
            "bound-fn",
            "bound-fn*",
            "binding-conveyor-fn",
            "set!",
            "alter-var-root",
            "var-set",
            "thread-bound?",
            "push-thread-bindings",
            "pop-thread-bindings",
            "get-thread-bindings",
        ),
        _DYNAMIC,
    ),
    **dict.fromkeys(
        ("ref", "sync", "dosync", "alter", "commute", "ref-set", "ensure", "io!", "ref-history-count", "ref-min-history", "ref-max-history"), _REFS
    ),
    **dict.fromkeys(
        (
            "agent",
            "send-off",
            "await-for",
            "restart-agent",
            "agent-error",
            "agent-errors",
            "send-via",
            "shutdown-agents",
            "release-pending-sends",
            "error-handler",
            "error-mode",
            "set-error-handler!",
            "set-error-mode!",
            "clear-agent-errors",
        ),
        _AGENTS,
    ),
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
            "bases",
            "supers",
            "class?",
            "init-proxy",
            "construct-proxy",
            "update-proxy",
            "proxy-super",
            "proxy-mappings",
            "gen-interface",
            "compile",
            "add-classpath",
            "Throwable->map",
        ),
        _JAVA,
    ),
    **dict.fromkeys(("lazy-seq", "seque", "pvalues", "iteration", "iterator-seq", "enumeration-seq", "chunk-cons", "chunk-first", "chunk-rest"), _LAZY),
    **dict.fromkeys(
        (
            "future",
            "future-call",
            "future?",
            "future-done?",
            "future-cancel",
            "future-cancelled?",
            "deliver",
            "pcalls",
            "locking",
            "thread",
            "go",
            "chan",
            "go-loop",
            ">!",
            "<!",
            ">!!",
            "<!!",
            "alts!",
        ),
        _THREADS,
    ),
    **dict.fromkeys(
        ("defrecord", "deftype", "defprotocol", "extend-type", "extend-protocol", "reify", "extend", "satisfies?", "extends?", "extenders", "definterface"),
        _TYPES,
    ),
    **dict.fromkeys(("numerator", "denominator", "rationalize", "ratio?"), "there are no ratios: / gives a float, quot rem mod are exact"),
    **dict.fromkeys(
        ("slurp", "spit", "read-line", "load-string", "load-file", "read", "read+string", "line-seq", "file-seq", "with-in-str", "input", "open"),
        "programs do no I/O of their own: use http/get, sh or sql/query",
    ),
    **dict.fromkeys(_ARRAYS, "there are no arrays: use vectors"),
    **dict.fromkeys(("re-matcher", "re-groups"), "there are no matchers: re-find, re-matches and re-seq give the groups"),
    **dict.fromkeys(
        ("intern", "create-ns", "remove-ns", "ns-unmap", "ns-unalias", "in-ns", "refer", "use", "alias", "load", "refer-clojure", "ns-imports"), _NAMESPACES
    ),
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
}


_METADATA = "metadata does not change: (with-meta x {…}) gives a value with other metadata"
_PRINTING = "every value prints so that it reads back; (str …) and (format …) make other texts"
INSTEAD |= {
    **dict.fromkeys(("alter-meta!", "reset-meta!"), _METADATA),
    **dict.fromkeys(("print-method", "print-dup", "print-ctor", "print-simple"), _PRINTING),
    "pprint": "(prn x) prints any value so that it reads back, and the notebook lays it out",
    "volatile?": "a volatile is an atom here: atom? asks for both",
}

FROM_ELSEWHERE = {
    **dict.fromkeys(("None", "null", "NULL", "undefined", "Nil", "NIL"), "nothing is written nil"),
    **dict.fromkeys(("True", "TRUE"), "it is written true"),
    **dict.fromkeys(("False", "FALSE"), "it is written false"),
    **dict.fromkeys(("lambda", "λ"), "a function without a name is (fn [x] …), or #(… % …)"),
    **dict.fromkeys(("defun", "function", "func", "define"), "(defn name [parameters] …) defines a function, (def name value) a value"),
    **dict.fromkeys(("setq", "setf", "var", "const"), "(def name value) defines a name, (let [name value] …) binds one; what changes is in an atom"),
    **dict.fromkeys(("progn", "begin"), "(do …) evaluates its forms in order"),
    **dict.fromkeys(("return", "yield"), "a function gives the value of its last form"),
    **dict.fromkeys(("elif", "elsif", "elseif", "switch"), "(cond test value … :else value) or (case x constant value … default) chooses"),
    **dict.fromkeys(("else", "then"), "(if test then else) has its parts by their places"),
    **dict.fromkeys(("raise", "error"), '(throw (ex-info "message" {…})) throws an error'),
    **dict.fromkeys(("except", "rescue"), "(try … (catch :default e …)) catches errors"),
    **dict.fromkeys(("foreach", "for-each"), "(doseq [x coll] …) does something for each element, (for [x coll] …) makes a sequence"),
    **dict.fromkeys(("len", "length", "size"), "(count x) is the number of elements"),
    **dict.fromkeys(("append", "push", "add"), "(conj coll x) gives a collection with x added, (concat a b) two in one"),
    **dict.fromkeys(("car", "head"), "(first x) is the first element"),
    **dict.fromkeys(("cdr", "tail"), "(rest x) is all but the first element"),
    "mapcar": "(map f coll) calls f on each element",
    "dict": "a map is written {:key value}",
    "tuple": "a vector is written [1 2]",
    "null?": "(nil? x) asks for nil",
    "string-append": "(str a b) makes one string of several",
    "break": "a loop ends where it does not recur; (reduced x) ends a reduce",
    "continue": "(recur …) begins the next turn of a loop",
    **dict.fromkeys(("!=", "<>", "/="), "(not= a b) is true of unequal values"),
    **dict.fromkeys(("&&", "||"), "(and a b), (or a b)"),
    **dict.fromkeys(("%", "**", "//", "+=", "++"), "(mod a b), (math/pow a b), (quot a b), (inc a)"),
}
"""Names of other languages that beginners write."""

_METHODS = {
    ".getMessage": "ex-message", ".toString": "str", ".toUpperCase": "str/upper-case", ".toLowerCase": "str/lower-case", ".length": "count",
    ".size": "count", ".trim": "str/trim", ".split": "str/split", ".contains": "str/includes?", ".startsWith": "str/starts-with?",
    ".endsWith": "str/ends-with?", ".indexOf": "str/index-of", ".lastIndexOf": "str/last-index-of", ".replace": "str/replace", ".substring": "subs",
    ".isEmpty": "empty?", ".equals": "=", ".hashCode": "hash", ".get": "get", ".charAt": "nth", ".getCause": "ex-cause", ".getData": "ex-data",
    "Integer/parseInt": "parse-long", "Long/parseLong": "parse-long", "Double/parseDouble": "parse-double", "Boolean/parseBoolean": "parse-boolean",
    "Integer/valueOf": "parse-long", "Long/valueOf": "parse-long", "Double/valueOf": "parse-double", "String/format": "format", "String/valueOf": "str",
    "String/join": "str/join", "UUID/randomUUID": "random-uuid", "java.util.UUID/randomUUID": "random-uuid", "Thread/sleep": "sleep",
    "System/currentTimeMillis": "now", "System/nanoTime": "now", "Instant/now": "now", "java.time.Instant/now": "now", "System/getenv": "secret",
    "Double/isNaN": "NaN?", "Character/isDigit": "re-matches", "Math/PI": "math/PI", "Math/E": "math/E",
    "Math/abs": "abs", "Math/max": "max", "Math/min": "min",
}  # fmt: skip
"""What is most often called in Java, and the function that does it here."""

NAMESPACES = {
    "clojure.pprint": "(prn x) prints any value so that it reads back, and the notebook lays it out",
    "clojure.data": "= compares values whole; two maps or sets are compared with select-keys and set/difference",
    "clojure.zip": "walk/postwalk, update-in and assoc-in change what is deep inside",
    "clojure.java.io": _JAVA,
    "clojure.java.shell": "(sh [command argument …]) runs a process and records what it gave",
    "clojure.core.async": "(async …), receive and send, select and race take the place of channels",
    "clojure.spec.alpha": "predicates, assert and :pre conditions check data",
    "clojure.data.json": "json/read-str and json/write-str are there",
    "cheshire.core": "json/read-str and json/write-str are there",
    "clj-http.client": "http/get, http/post and the like are there, and need no require",
    "clojure.java.jdbc": "(sql/query url text params) asks another database",
    "next.jdbc": "(sql/query url text params) asks another database",
    "clojure.tools.logging": "(log data) writes into the flow's history",
    "clojure.repl": "doc, source and apropos are there, and need no require",
    "clojure.instant": '#inst "…" and time/parse make instants',
    "clj-time.core": "the namespace time has what instants and durations need",
}
"""Namespaces that Clojure's programs require, and what to use instead."""


def namespace_replacement(name: str) -> str | None:
    """What to use instead of a namespace of Clojure's; None for any other."""
    return NAMESPACES.get(name)


def replacement(name: Symbol) -> str | None:
    """What to use instead of a name of Clojure or of another language that has no place here; None for any other name."""
    written = str(name)
    if written in _METHODS:
        return f"there is no Java here: use {_METHODS[written]}"
    if name.ns is None:
        if name.name in INSTEAD:
            return INSTEAD[name.name]
        if name.name in FROM_ELSEWHERE:
            return FROM_ELSEWHERE[name.name]
        if (name.name.startswith(".") or name.name.endswith(".")) and len(name.name) > 1:
            return _JAVA
        if name.name.startswith("*") and name.name.endswith("*") and len(name.name) > 2:
            return _DYNAMIC
    elif name.ns == "Math":
        return f"there is no Java here: the functions of mathematics are math/{name.name} and the like"
    elif name.ns[0].isupper() or name.ns.startswith("java"):
        return _JAVA
    return None

"""Programs as terms: each can be written as Flowmetal source, and knows by itself what may come of it.

In: a term, made at random. Out: source text, and the *worlds* that the term allows: each a result or the type of an
error, with how often each effect must and may be asked for. Nothing here knows of logs, crashes or time: what the
worlds say is promised whatever happens on the way. Effects are told apart by labels, which say how they end, too.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

ERROR = "my/error"
LATE, CAUGHT, UNKNOWN = "late", "caught", "unknown"
"""What a term gives for a time-out, for an error that it caught, for an effect of which nothing is known."""
KINDS = ("work", "bad", "flaky", "once", "http", "http-bad", "callback", "receive")
"""What a leaf asks of the outside. `bad` ones fail, `flaky` ones at their first two attempts."""
LIMIT = 64
"""So many worlds of a term are told apart; one with more promises nothing, and is not made."""

Counts = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class World:
    """One way in which a term may end: with a `value`, or an error of type `error`."""

    value: Any = None
    error: str | None = None
    must: Counts = ()
    may: Counts = ()


@dataclass(frozen=True, slots=True)
class Term:
    """A form and what it is made of. `info` is a leaf's number, kind, duration, or how often something is done."""

    form: str
    parts: tuple[Term, ...] = ()
    info: Any = None


@dataclass(slots=True)
class Written:
    """A program: its source, the labels in it, its sagas (each the mark of its success, and the labels that it undoes), its worlds."""

    name: str
    source: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    """Of each label the kind of its effect."""
    sagas: list[tuple[str, list[str]]] = field(default_factory=list)
    worlds: frozenset[World] = frozenset()
    children: int = 0
    runs: bool = False
    """Whether it begins anew, run after run."""

    def rewritten(self, number: int) -> str:
        """The same program in other words."""
        return "\n".join(
            source.replace(" [] (", f" [] (do {number}) (", 1).replace("(let [now ", f"(let [n n other {number} now ", 1) for source in self.source
        )

    def label(self, kind: str) -> str:
        """A new label."""
        label = f"{self.name}.{len(self.labels)}.{kind}"
        self.labels[label] = kind
        return label


def written(name: str, term: Term) -> Written:
    """The program whose flow has this name and does what the term says."""
    out = Written(name)
    if term.form == "runs":
        out.runs = True
        source, worlds = _form(out, term.parts[0])
        out.worlds = _runs(worlds, term.info)
        out.source.append(
            f"(defflow {name} ([] (continue-as {term.info - 1} [])) ([n past] (let [now (conj past {source})] (if (pos? n) (continue-as (dec n) now) now))))"
        )
    else:
        source, out.worlds = _form(out, term)
        out.source.append(f"(defflow {name} [] {source})")
    return out


def _form(out: Written, term: Term) -> tuple[str, frozenset[World]]:
    if term.form in ("number", "leaf", "sleep", "throw"):
        return _leaf(out, term)
    if term.form == "saga":
        return _saga(out, term)
    made = [_form(out, part) for part in term.parts]
    sources, worlds = [source for source, _ in made], [each for _, each in made]
    return _sources(out, term, sources), frozenset(_WORLDS[term.form](term, worlds))


def _leaf(out: Written, term: Term) -> tuple[str, frozenset[World]]:
    if term.form == "number":
        return str(term.info), frozenset({World(term.info)})
    if term.form == "sleep":
        return f'(do (sleep #dur "{term.info}") "slept")', frozenset({World("slept")})
    if term.form == "throw":
        return f'(throw (ex-info "thrown" {{:type :{ERROR}}}))', frozenset({World(error=ERROR)})
    label = out.label(term.info)
    counts = ((label, 1),)
    worlds = {World(label, None, counts, counts)}
    if term.info in ("bad", "http-bad"):
        worlds = {World(None, ERROR, counts, counts)}
    elif term.info == "once":
        worlds.add(World(UNKNOWN, None, counts, counts))
    elif term.info == "receive":
        worlds = {World(label)}
    return _LEAVES[term.info].format(label=label, unknown=UNKNOWN), frozenset(worlds)


_LEAVES = {
    "work": '(work "{label}")',
    "bad": '(work "{label}")',
    "flaky": '(flaky "{label}")',
    "once": '(try (once "{label}") (catch :effect/interrupted e "{unknown}"))',
    "http": '(:v (http/post "http://x/{label}" {{:json {{:n 1}}}}))',
    "http-bad": '(:v (http/post "http://x/{label}" {{:json {{:n 1}}}}))',
    "callback": '(let [c (callback)] (http/post "http://x/{label}" {{:json {{:token (:token c)}}}}) (:v (await c)))',
    "receive": '(:v (receive {{:match {{:k "{label}"}}}}))',
}
DEFINITIONS = """
(defforeign work "Done or failed, as the label says." [label])
(defforeign flaky "Done at the third attempt." [label] {:retry {:max-attempts 3 :initial #dur "2s" :jitter 0}})
(defforeign once "Done at most once." [label] {:at-most-once true})
"""


def _saga(out: Written, term: Term) -> tuple[str, frozenset[World]]:
    """Some undoable calls, and then a term: what was called is undone when anything of it fails."""
    *steps, tail = term.parts
    calls = [_leaf(out, step) for step in steps]
    labels = [call.split('"')[1] for call, _ in calls]
    mark = out.label("mark")
    out.sagas.append((mark, labels))
    undoable = " ".join(f'(undoable {call} (fn [r] (work "undo {label}")))' for (call, _), label in zip(calls, labels, strict=True))
    source, last = _form(out, tail)
    worlds = set()
    for world in _in_order([*(each for _, each in calls), last], lambda values: values[-1]):
        begun = [label for label in labels if dict(world.must).get(label)]
        after = ((mark, 1),) if world.error is None else tuple((f"undo {label}", 1) for label in begun)
        worlds.add(World(world.value, world.error, _sum(world.must, after), _sum(world.may, after)))
    return f'(let [v (saga {undoable} {source})] (log "{mark}") v)', frozenset(worlds)


def _sources(out: Written, term: Term, parts: list[str]) -> str:
    first = parts[0]
    if term.form in ("call", "start", "queued"):
        child = f"{out.name}-{out.children}"
        out.children += 1
        out.source.append(f"(defflow {child} [] {first})")
        return {"call": f"({child})", "start": f"@(start {child})", "queued": f"@(start-with {{:queue :narrow}} {child})"}[term.form]
    return {
        "vector": f"[{' '.join(parts)}]",
        "all": f"(all [{' '.join(f'(async {part})' for part in parts)}])",
        "let": f"(let [p (async {first}) v {parts[-1]}] [@p v])",
        "finally": f"(try {first} (finally {parts[-1]}))",
        "catch": f'(try {first} (catch :{ERROR} e "{CAUGHT}"))',
        "pmap": f"(pmap (fn [x] {first}) [1 2] {{:max {term.info}}})",
        "times": f"(loop [n 0 vs []] (if (< n {term.info}) (recur (inc n) (conj vs {first})) vs))",
        "race": f"(race {' '.join(parts)})",
        "timeout": f'(try (with-timeout #dur "{term.info}" {first}) (catch :flow/timeout e "{LATE}"))',
    }[term.form]


# Worlds


def _sum(*counts: Counts) -> Counts:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(dict(each))
    return tuple(sorted(total.items()))


def _most(worlds: Iterable[World]) -> Counts:
    """What may be asked for at most, whichever of these worlds it is."""
    most: Counter[str] = Counter()
    for world in worlds:
        most |= Counter(dict(world.may))
    return tuple(sorted(most.items()))


def _in_order(parts: list[frozenset[World]], value: Any = list) -> Iterator[World]:
    """One after the other; the first error ends it."""
    if not parts:
        yield World(value([]))
    for combined in _prefixes(parts):
        end = combined[-1] if combined else World()
        must, may = _sum(*(w.must for w in combined)), _sum(*(w.may for w in combined))
        if end.error is not None:
            yield World(None, end.error, must, may)
        elif len(combined) == len(parts):
            yield World(_frozen(value([w.value for w in combined])), None, must, may)


def _prefixes(parts: list[frozenset[World]]) -> Iterator[list[World]]:
    if not parts:
        return
    for world in parts[0]:
        if world.error is not None or len(parts) == 1:
            yield [world]
        else:
            yield from ([world, *rest] for rest in _prefixes(parts[1:]))


def _together(parts: list[frozenset[World]], value: Any = list) -> Iterator[World]:
    """At the same time: the first error cancels the others, of which any part may have been done."""
    for combined in itertools.product(*parts):
        failed = [w for w in combined if w.error is not None]
        may = _sum(*(w.may for w in combined))
        if not failed:
            yield World(_frozen(value([w.value for w in combined])), None, _sum(*(w.must for w in combined)), may)
        for w in failed:
            yield World(None, w.error, w.must, may)


def undone(may: Counts) -> Counts:
    """Of what is cancelled in the middle what was done may be undone."""
    return _sum(may, tuple((f"undo {label}", n) for label, n in may if not label.startswith("undo ")))


def _cancellable(worlds: frozenset[World]) -> Counts:
    return undone(_most(worlds))


def _race(term: Term, parts: list[frozenset[World]]) -> Iterator[World]:
    lost = [_cancellable(each) for each in parts]
    for n, each in enumerate(parts):
        others = lost[:n] + lost[n + 1 :]
        for world in each:
            yield World(world.value, world.error, world.must, _sum(world.may, *others))


def _all_of(term: Term, parts: list[frozenset[World]]) -> Iterator[World]:
    whole = _sum(*(_cancellable(each) for each in parts))
    for world in _together(parts):
        yield world if world.error is None else World(None, world.error, world.must, whole)


def _let(term: Term, parts: list[frozenset[World]]) -> Iterator[World]:
    first, second = parts
    for a, b in itertools.product(first, second):
        if b.error is not None:
            yield World(None, b.error, b.must, _sum(b.may, _cancellable(first)))
        elif a.error is not None:
            yield World(None, a.error, _sum(a.must, b.must), _sum(a.may, b.may))
        else:
            yield World((a.value, b.value), None, _sum(a.must, b.must), _sum(a.may, b.may))


def _finally(term: Term, parts: list[frozenset[World]]) -> Iterator[World]:
    for a, b in itertools.product(*parts):
        both = _sum(a.must, b.must), _sum(a.may, b.may)
        yield World(None, b.error, *both) if b.error is not None else World(a.value, a.error, *both)


def _catch(term: Term, parts: list[frozenset[World]]) -> Iterator[World]:
    return (w if w.error is None else World(CAUGHT, None, w.must, w.may) for w in parts[0])


def _timeout(term: Term, parts: list[frozenset[World]]) -> Iterator[World]:
    yield from parts[0]
    yield World(LATE, None, (), _cancellable(parts[0]))


def _runs(worlds: frozenset[World], times: int) -> frozenset[World]:
    return frozenset(_in_order([worlds] * times))


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


_WORLDS: dict[str, Any] = {
    "vector": lambda term, parts: _in_order(parts),
    "all": _all_of,
    "let": _let,
    "finally": _finally,
    "catch": _catch,
    "pmap": lambda term, parts: _all_of(term, [parts[0], parts[0]]),
    "times": lambda term, parts: _in_order([parts[0]] * term.info),
    "race": _race,
    "timeout": _timeout,
    "call": lambda term, parts: parts[0],
    "start": lambda term, parts: parts[0],
    "queued": lambda term, parts: parts[0],
}  # fmt: skip


# Strategies


_NOTHING: st.SearchStrategy[Any] = st.none()


def _term(form: str, *parts: st.SearchStrategy[Term], info: st.SearchStrategy[Any] = _NOTHING) -> st.SearchStrategy[Term]:
    return st.builds(Term, st.just(form), st.tuples(*parts), info)


def _leaves(*kinds: str) -> st.SearchStrategy[Term]:
    return _term("leaf", info=st.sampled_from(kinds))


_quiet = st.one_of(_term("number", info=st.integers(0, 9)), _term("sleep", info=st.sampled_from(["0s", "1s", "10s", "1h"])), _term("throw"))
_of_children = st.one_of(_leaves(*(kind for kind in KINDS if kind != "receive")), _quiet)
"""A mailbox is known by its flow's id, and a child's is not known outside."""
_durations = st.sampled_from(["0s", "1s", "10s"])


def _forms(inner: st.SearchStrategy[Term]) -> st.SearchStrategy[Term]:
    return st.one_of(
        st.builds(Term, st.sampled_from(["vector", "all", "race"]), st.lists(inner, min_size=2, max_size=3).map(tuple)),
        _term("let", inner, inner),
        _term("finally", inner, inner),
        _term("catch", inner),
        _term("pmap", inner, info=st.integers(1, 2)),
        _term("times", inner, info=st.just(2)),
        _term("timeout", inner, info=_durations),
    )


def _with_sagas(inner: st.SearchStrategy[Term]) -> st.SearchStrategy[Term]:
    calls = st.lists(_leaves("work", "work", "bad"), min_size=1, max_size=2)
    return st.builds(lambda steps, tail: Term("saga", (*steps, tail)), calls, inner)


_child_bodies = st.recursive(_of_children, _forms, max_leaves=3)
_children = st.one_of(
    _term("call", st.one_of(_child_bodies, _with_sagas(_child_bodies))),
    _term("start", _child_bodies),
    _term("queued", st.one_of(_of_children, _term("vector", _of_children, _of_children))),
)
_bodies = st.recursive(st.one_of(_leaves(*KINDS), _leaves(*KINDS), _quiet, _children), _forms, max_leaves=4)
_sagas = _with_sagas(_bodies)
_bounded = st.one_of(_bodies, _sagas, st.recursive(st.one_of(_leaves(*KINDS), _sagas), _forms, max_leaves=3))
terms = st.one_of(_bounded, _term("runs", _bodies, info=st.integers(1, 3))).filter(lambda term: size(term) <= 12 and len(written("f", term).worlds) <= LIMIT)


def size(term: Term) -> int:
    """How many leaves a term has, each as often as it is done."""
    times = {"pmap": 2, "times": 2, "runs": term.info or 1}.get(term.form, 1)
    return times * (sum(size(part) for part in term.parts) or 1)

"""The machine's speed, as ratios to CPython running the same algorithm in the same run.

    python benchmarks/language.py [NAME…] [--quick]

Each pair runs five times, the two in turn; what is printed is the median of each in CPU time, and their ratio.
The Python side uses what a Python programmer would write: loops, lists, dicts, f-strings.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import reduce
from typing import Any

from flowmetal.lang.session import Session

REPEATS = 5


def fib(n: int) -> int:
    """Doubly recursive Fibonacci."""
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def nested(n: int) -> int:
    """Two nested loops with a sum."""
    total = 0
    i = 0
    while i < n:
        j = 0
        while j < n:
            total = total + i * j
            j = j + 1
        i = i + 1
    return total


def pipeline(n: int) -> int:
    """map, filter, reduce."""
    return reduce(lambda a, b: a + b, filter(lambda x: x % 2 == 0, (x * 3 + 1 for x in range(n))))


def strings(n: int) -> int:
    """A string of n parts, one by one, then joined."""
    parts: list[str] = []
    for i in range(n):
        parts.append("item-" + str(i))
    return len(",".join(parts))


def maps(n: int) -> int:
    """A map of n keys, built and read."""
    m: dict[str, int] = {}
    for i in range(n):
        m["k" + str(i % 5000)] = m.get("k" + str(i % 5000), 0) + i
    return sum(m.values())


def records(n: int) -> int:
    """Small maps, as glue code makes them: build, update, pick."""
    total = 0
    for i in range(n):
        order = {"id": i, "total": i * 2, "state": "new"}
        order = {**order, "state": "paid"}
        total += order["total"]
    return total


PROGRAMS: dict[str, tuple[str, int, Callable[[int], Any]]] = {
    "fib": ("(defn run [n] (if (< n 2) n (+ (run (- n 1)) (run (- n 2)))))", 20, fib),
    "nested loops": (
        """(defn run [n]
             (loop [i 0 total 0]
               (if (< i n)
                 (recur (inc i) (loop [j 0 total total] (if (< j n) (recur (inc j) (+ total (* i j))) total)))
                 total)))""",
        300,
        nested,
    ),
    "map filter reduce": ("(defn run [n] (reduce + (filter even? (map (fn [x] (+ (* x 3) 1)) (range n)))))", 100_000, pipeline),
    "strings": ('(defn run [n] (count (str/join "," (map (fn [i] (str "item-" i)) (range n)))))', 50_000, strings),
    "persistent map": (
        """(defn run [n]
             (reduce + (vals (reduce (fn [m i] (let [k (str "k" (mod i 5000))] (assoc m k (+ (get m k 0) i)))) {} (range n)))))""",
        20_000,
        maps,
    ),
    "records": (
        """(defn run [n]
             (loop [i 0 total 0]
               (if (< i n)
                 (let [order (assoc {:id i :total (* i 2) :state "new"} :state "paid")]
                   (recur (inc i) (+ total (:total order))))
                 total)))""",
        20_000,
        records,
    ),
}


def timed(f: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of CPU, and the value."""
    begun = time.process_time()
    value = f()
    return time.process_time() - begun, value


def compare(name: str, repeats: int = REPEATS, scale: float = 1.0) -> tuple[float, float]:
    """Median CPU seconds of Flowmetal and of CPython; raises ValueError when their answers differ."""
    source, size, python = PROGRAMS[name]
    n = size if name == "fib" and scale == 1 else max(int(size * scale), 1)
    session = Session()
    session.eval(source)
    session.eval("(run 2)")
    ours, theirs = [], []
    for _ in range(repeats):
        seconds, value = timed(lambda: session.eval(f"(run {n})"))
        ours.append(seconds)
        seconds, expected = timed(lambda: python(n))
        theirs.append(seconds)
        if value != expected:
            raise ValueError(f"{name}: {value} is not {expected}")
    return statistics.median(ours), statistics.median(theirs)


def main(arguments: list[str]) -> None:
    """Prints the table."""
    quick = "--quick" in arguments
    print(f"{'program':<20}{'flowmetal ms':>14}{'cpython ms':>12}{'ratio':>8}")
    for name in [a for a in arguments if a != "--quick"] or PROGRAMS:
        ours, theirs = compare(name, 1, 0.05) if quick else compare(name)
        print(f"{name:<20}{ours * 1e3:>14.1f}{theirs * 1e3:>12.2f}{ours / max(theirs, 1e-9):>8.1f}")


if __name__ == "__main__":
    main(sys.argv[1:])

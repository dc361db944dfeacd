"""The leaf primitives of the library; importing this fills `registry.TABLE`."""

from flowmetal.lang.primitives import (
    collections,
    format,
    json_edn,
    mathematics,
    names,
    numbers,
    predicates,
    reducibles,
    regex,
    sequences,
    sets,
    sorted_collections,
    strings,
    time,
    transients,
    unchecked,
    walks,
)
from flowmetal.lang.primitives.numbers import BINARY

__all__ = [
    "BINARY",
    "collections",
    "format",
    "json_edn",
    "mathematics",
    "names",
    "numbers",
    "predicates",
    "reducibles",
    "regex",
    "sequences",
    "sets",
    "sorted_collections",
    "strings",
    "time",
    "transients",
    "unchecked",
    "walks",
]

"""Which store is meant: `--store`, else `FLOWMETAL_STORE`, else the nearest `flowmetal.duckdb`, else one made
here.

In: what the user wrote (or nothing), the environment, the working directory. Out: a `StoreUrl`. The one rule: a
path comes out absolute, so that two processes that mean the same file say the same name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flowmetal.errors import StoreError

DEFAULT_NAME = "flowmetal.duckdb"

Kind = Literal["duckdb", "memory", "http", "postgresql"]


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """A resolved store: what kind it is, how it is written, and the file where there is one."""

    kind: Kind
    url: str
    path: Path | None = None

    @property
    def file(self) -> Path:
        """The DuckDB file; only a `duckdb` store has one."""
        if self.path is None:
            raise StoreError(f"{self.url} is not a file")
        return self.path

    def beside(self, suffix: str) -> Path:
        """A file that stands beside the store's own: `flowmetal.duckdb` + `.host`."""
        return self.file.with_name(self.file.name + suffix)

    @property
    def is_hosted(self) -> bool:
        """Whether one process at a time hosts it, to which the others attach."""
        return self.kind in ("duckdb", "postgresql")

    def __str__(self) -> str:
        """How it is shown: without a password."""
        if self.kind != "postgresql":
            return self.url
        from flowmetal.store.postgres_url import without_password

        return without_password(self.url)


def resolve(
    text: str | os.PathLike[str] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> StoreUrl:
    """The store that is meant by `text`, or where that is empty, by the environment and the working directory."""
    environ = os.environ if environ is None else environ
    cwd = Path.cwd() if cwd is None else cwd
    written = os.fspath(text) if text is not None else ""
    written = written or environ.get("FLOWMETAL_STORE", "")
    return parse(written, cwd) if written else _file(nearest(cwd))


def nearest(cwd: Path) -> Path:
    """`flowmetal.duckdb` in `cwd` or the nearest folder above it that has one; else the one to be made in `cwd`."""
    for folder in (cwd, *cwd.parents):
        candidate = folder / DEFAULT_NAME
        if candidate.is_file():
            return candidate
    return cwd / DEFAULT_NAME


def parse(written: str, cwd: Path) -> StoreUrl:
    """A store as the user wrote it."""
    if written == ":memory:":
        return StoreUrl("memory", written)
    scheme, separator, rest = written.partition("://")
    if not separator:
        return _file(_checked(cwd / Path(written).expanduser(), written))
    scheme = scheme.lower()
    if scheme in ("http", "https"):
        if not rest.strip("/"):
            raise StoreError(f"{written} names no host", hint="write http://HOST:PORT")
        return StoreUrl("http", f"{scheme}://{rest.rstrip('/')}")
    if scheme in ("postgresql", "postgres"):
        return StoreUrl("postgresql", written)
    raise StoreError(
        f"{written} is not a store that Flowmetal knows",
        hint="a store is PATH.duckdb, :memory:, postgresql://… or http://host:port",
    )


def _file(path: Path) -> StoreUrl:
    absolute = Path(os.path.realpath(path))
    return StoreUrl("duckdb", str(absolute), absolute)


def _checked(path: Path, written: str) -> Path:
    if path.is_dir():
        raise StoreError(f"{written} is a folder, not a store", hint=f"name a file in it: {path / DEFAULT_NAME}")
    if not path.parent.is_dir():
        raise StoreError(f"{written}: the folder {path.parent} does not exist", hint="make it first, or name another")
    return path

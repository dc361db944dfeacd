"""Flows that are over, in Parquet files beside the store: they answer as before, and the store's own file stays small.

In: the rows of flows that are over. Out: files in the folder `PATH.archive`, and rows read from them. The one rule: which files count
is said in the store, in the same commit that takes the rows out of the log; a file that is not named there is as if it were not.

A file has the columns of the log, large values in place, sorted by flow. Small files are made one when there are many.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import duckdb

from flowmetal.store import kinds, schema, views
from flowmetal.store.backup import archive_of
from flowmetal.store.disk import quoted, sync
from flowmetal.store.duckdb_log import LogTable
from flowmetal.store.guard import tidy
from flowmetal.store.positions import Positions
from flowmetal.store.protocol import Row, StoreError

FILES: Final = 16
"""When there are so many files, the small ones become one."""
SMALL: Final = 64 * 1024 * 1024
"""Bytes of a file that is small."""
META: Final = "archive"
"""The setting of the store that names the files."""

_HOT: Final = f"""SELECT l.pos, l.flow_id, l.seq, l.at_us, l.kind, l.step, l.fiber,
    CASE WHEN starts_with(l.data, '{schema.REFERENCE}') THEN decode(d.body) ELSE l.data END AS data,
    CASE WHEN starts_with(l.exact, '{schema.REFERENCE}') THEN decode(x.body) ELSE l.exact END AS exact, l.key
    FROM fm.log l LEFT JOIN fm.blobs d ON starts_with(l.data, '{schema.REFERENCE}') AND d.digest = substr(l.data, 2)
    LEFT JOIN fm.blobs x ON starts_with(l.exact, '{schema.REFERENCE}') AND x.digest = substr(l.exact, 2)"""
_NAMES: Final = """SELECT flow_id, NULL, min(pos) FROM {0} GROUP BY flow_id
    UNION ALL SELECT kind, key, pos FROM {0} WHERE key IS NOT NULL"""
ENDED_BEFORE: Final = f"""SELECT flow_id FROM (SELECT flow_id, min(pos) FILTER (kind = '{kinds.FLOW_STARTED}') AS start_pos,
    arg_max(kind, pos) AS status_kind, max(at_us) AS at_us FROM fm.log WHERE kind IN ({kinds.listed(kinds.STATUS)}) GROUP BY flow_id)
    WHERE start_pos IS NOT NULL AND status_kind IN ({kinds.listed(kinds.ENDING)}) AND at_us < $1 ORDER BY start_pos LIMIT $2"""
"""Flows in the log that ended before a time, the oldest first."""
ENDED_RUNS: Final = f"""SELECT c.flow_id, c.seq - 1 FROM (SELECT flow_id, max(seq) AS seq, max(at_us) AS at_us FROM fm.log
    WHERE kind = '{kinds.FLOW_CONTINUED}' GROUP BY flow_id) c WHERE c.at_us < $1
    AND EXISTS (FROM fm.log l WHERE l.flow_id = c.flow_id AND l.seq BETWEEN 2 AND c.seq - 1) LIMIT $2"""
"""Flows with ended runs in the log, each with the last row of those."""

Statement = tuple[str, Sequence[Any]]


class Archive:
    """The files of one store. Used on the writer's thread."""

    def __init__(self, path: Path | None, log: LogTable, files: Sequence[str]) -> None:
        self.folder = None if path is None else archive_of(path)
        self.files = list(files)
        self._log = log
        self._first = Positions()
        self._loaded = False

    def __bool__(self) -> bool:
        return bool(self.files)

    # Reading

    def may_have(self, name: str | tuple[str, str]) -> bool:
        """Whether there may be a flow of that id, or a row of that kind and key. No answer but yes costs a look at the files."""
        if not self.files:
            return False
        if not self._loaded:
            self._first.load(self._names("fm.cold"))
            self._loaded = True
        return self._first.get(name) is not None

    def rows(self, flow_id: str, after_seq: int = 0, limit: int | None = None, of: frozenset[str] | None = None) -> list[Row]:
        """See `Store.rows`."""
        if not self.may_have(flow_id):
            return []
        wanted = "" if of is None else f" AND kind IN ({', '.join(repr(kind) for kind in sorted(of))})"
        sql = f"SELECT {schema.ROW} FROM fm.cold WHERE flow_id = $1 AND seq > $2{wanted} ORDER BY seq"
        with self._told():
            return self._log.read(sql if limit is None else f"{sql} LIMIT {int(limit)}", [flow_id, after_seq])

    def last_seq(self, flow_id: str) -> int:
        """See `Store.last_seq`."""
        if not self.may_have(flow_id):
            return 0
        with self._told():
            return int(self._log.select("SELECT coalesce(max(seq), 0) FROM fm.cold WHERE flow_id = $1", [flow_id])[0][0])

    def find(self, kind: str, key: str) -> Row | None:
        """See `Store.find`."""
        if not self.may_have((kind, key)):
            return None
        with self._told():
            found = self._log.read(f"SELECT {schema.ROW} FROM fm.cold WHERE kind = $1 AND key = $2 ORDER BY pos LIMIT 1", [kind, key])
        return found[0] if found else None

    def _names(self, source: str) -> list[tuple[str | tuple[str, str], int]]:
        """What `may_have` knows of files: their flows, and the keys of their rows."""
        with self._told():
            return [(first if key is None else (first, key), pos) for first, key, pos in self._log.stream(_NAMES.format(source))]

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """An error of the database is one of the archive."""
        try:
            yield
        except duckdb.Error as error:
            hint = f"put the folder {self.folder} back in its place, as it was"
            raise StoreError(f"the archive cannot be read: {tidy(error)}", hint=hint) from error

    # Writing

    def with_rows(self, flows: Mapping[str, int], first: int = 1) -> list[str]:
        """A new file has the rows that the log has of these flows, from `first` up to a `seq` each: the files that count then."""
        merged = [name for name in self.files if len(self.files) >= FILES and self._size(name) < SMALL]
        wanted = ", ".join(f"({_texts([flow_id])}, {int(seq)})" for flow_id, seq in flows.items())
        chosen = f"{_HOT} JOIN (VALUES {wanted}) w(flow_id, upto) ON w.flow_id = l.flow_id AND l.seq BETWEEN {int(first)} AND w.upto"
        parts = [chosen, *([f"SELECT {schema.COLUMNS} FROM read_parquet({self._paths(merged)})"] if merged else [])]
        return [name for name in self.files if name not in merged] + [self._write(" UNION ALL ".join(parts))]

    def without(self, flows: Iterable[str]) -> list[str] | None:
        """Files without these flows, for those that have some of them: the files that count then; None where none has any."""
        gone = [flow_id for flow_id in flows if self.may_have(flow_id)]
        if not gone:
            return None
        kept = []
        for name in self.files:
            source = f"read_parquet({self._paths([name])})"
            if not self._log.select(f"SELECT 1 FROM {source} WHERE flow_id IN ({_texts(gone)}) LIMIT 1"):
                kept.append(name)
            elif self._log.select(f"SELECT 1 FROM {source} WHERE flow_id NOT IN ({_texts(gone)}) LIMIT 1"):
                kept.append(self._write(f"SELECT {schema.COLUMNS} FROM {source} WHERE flow_id NOT IN ({_texts(gone)})"))
        return kept

    def statements(self, files: Sequence[str]) -> list[Statement]:
        """What makes these the files that count, within a transaction."""
        assert self.folder is not None
        return [(views.create_cold(self.folder, files), ()), (schema.INSERT_META, (META, json.dumps(list(files))))]

    def adopt(self, files: Sequence[str]) -> None:
        """These are the files that count now. Others stay until the next time: somebody may be reading them."""
        new = [name for name in files if name not in self.files]
        self.files = list(files)
        try:
            for name, pos in self._names(f"read_parquet({self._paths(new)})") if self._loaded and new else ():
                self._first.add(name, pos)
        except StoreError:  # it is committed: who asks next reads all of them, and is told
            self._loaded = False

    def sweep(self) -> None:
        """Takes away files that do not count."""
        if self.folder is not None and self.folder.is_dir():
            for path in self.folder.glob("*.parquet*"):
                if path.name not in self.files:
                    path.unlink(missing_ok=True)

    def _write(self, select: str) -> str:
        assert self.folder is not None
        self.folder.mkdir(mode=0o700, exist_ok=True)
        name = f"{uuid.uuid4().hex}.parquet"
        partial, path = self.folder / f"{name}.partial", self.folder / name
        self._log.select(f"COPY ({select} ORDER BY flow_id, seq) TO '{quoted(partial)}' (FORMAT parquet, COMPRESSION zstd)")
        partial.chmod(0o600)
        sync(partial)
        partial.rename(path)
        sync(self.folder)
        return name

    def _paths(self, names: Sequence[str]) -> str:
        assert self.folder is not None
        return "[" + ", ".join(f"'{quoted(self.folder / name)}'" for name in names) + "]"

    def _size(self, name: str) -> int:
        assert self.folder is not None
        return (self.folder / name).stat().st_size


def _texts(values: Iterable[str]) -> str:
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)

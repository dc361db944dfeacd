"""`flowmetal sql`: one SELECT over the store's views.

In: SQL. Out: a table, JSON lines, CSV or Parquet. The one rule: it reads, and never writes.
"""

from __future__ import annotations

import csv
import io
import sys
from typing import Any

import click

from flowmetal.cli.options import common_json, with_client
from flowmetal.cli.output import cell, one_line, print_rows, print_table, remark, to_json_text
from flowmetal.client.relation import Relation


@click.command()
@click.argument("query", metavar="SQL")
@click.option("--format", "style", type=click.Choice(["table", "json", "csv", "parquet"]), default="table", show_default=True)
@common_json
def sql(query: str, style: str, store: str | None, as_json: bool) -> None:
    """Ask the store: one SELECT over flows, events, effects, messages, timers, definitions."""
    text = sys.stdin.read() if query == "-" else query
    if style == "parquet" and sys.stdout.isatty():
        raise click.UsageError("Parquet is no text: send it into a file, as in `… --format parquet > rows.parquet`")
    relation = with_client(store, lambda client: client.sql(text))
    {"json": _json, "csv": _csv, "parquet": _parquet, "table": _table}["json" if as_json else style](relation)


def _table(relation: Relation) -> None:
    print_table(relation.columns, [[one_line(cell(value), 200) for value in row] for row in relation])
    remark(f"{len(relation)} row{'' if len(relation) == 1 else 's'}")


def _json(relation: Relation) -> None:
    print_rows(relation.dicts())


def _csv(relation: Relation) -> None:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(relation.columns)
    writer.writerows([[_csv_cell(value) for value in row] for row in relation])
    click.echo(out.getvalue(), nl=False)


def _csv_cell(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    return to_json_text(value).strip('"')


def _parquet(relation: Relation) -> None:
    """Parquet is written by DuckDB, in memory, from the rows as they came."""
    import tempfile
    from pathlib import Path

    import duckdb

    columns = ", ".join(f'CAST(c{i} AS {kind}) AS "{_quoted(name)}"' for i, (name, kind) in enumerate(_typed(relation)))
    with tempfile.TemporaryDirectory() as folder, duckdb.connect(":memory:") as connection:
        path = Path(folder) / "rows.parquet"
        names = ", ".join(f"c{i} VARCHAR" for i in range(len(relation.columns)))
        connection.execute(f"CREATE TABLE rows ({names})")
        rows = [[None if v is None else cell_text(v) for v in row] for row in relation]
        if rows:
            connection.executemany(f"INSERT INTO rows VALUES ({', '.join('?' * len(relation.columns))})", rows)
        connection.execute(f"COPY (SELECT {columns} FROM rows) TO '{path}' (FORMAT parquet)")
        sys.stdout.buffer.write(path.read_bytes())
        sys.stdout.buffer.flush()


def cell_text(value: Any) -> str:
    """A value as the text from which DuckDB makes its type again."""
    return value if isinstance(value, str) else to_json_text(value).strip('"')


def _typed(relation: Relation) -> list[tuple[str, str]]:
    kinds = relation.types or ["VARCHAR"] * len(relation.columns)
    return list(zip(relation.columns, kinds, strict=True))


def _quoted(name: str) -> str:
    return name.replace('"', '""')

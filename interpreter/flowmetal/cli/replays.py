"""`flowmetal test --replay`: recorded histories against new code.

In: files of definitions, files of flows. Out: a line a flow, and the first difference of each that would go another way. The one rule:
exit 0 says that at least one flow was done again and all agree.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import click

from flowmetal.cli.exits import DONE, FAILED, USAGE
from flowmetal.cli.output import clean, print_json, remark


def replay_files(paths: Sequence[str], recorded: Sequence[str], only: str, *, as_json: bool) -> int:
    """Does the flows of files again, those with `only` in their name, and reports."""
    from flowmetal.testing import find_files, replay

    files = find_files(paths, programs=True)
    if not files:
        remark("there are no definitions: name the .flow files of the new code")
        return USAGE
    done = [(path, each) for path in recorded for each in replay(files, path) if only in each.name]
    for path, each in done:
        if as_json:
            print_json({"path": path, **dataclasses.asdict(each), "ok": each.ok})
            continue
        mark = click.style("✓", fg="green") if each.ok else click.style("✗", fg="red")
        click.echo(f"{mark} {clean(each.name)} {each.flow_id}  {click.style(f'{each.steps} steps, {each.status}', dim=True)}")
        if each.difference is not None:
            click.echo("\n".join(f"    {line}" for line in clean(each.difference).splitlines()))
    different = sum(not each.ok for _, each in done)
    if not done:
        remark("there is no flow to do again in the file")
        return USAGE
    if not as_json:
        summary = f"\n{len(done)} flow{'' if len(done) == 1 else 's'} done again: {f'{different} would go another way' if different else 'all agree'}"
        click.secho(summary, fg="red" if different else "green", bold=True)
    return FAILED if different else DONE

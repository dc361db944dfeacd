"""States of flows, and their differences, for a terminal: what `flowmetal show` prints below a flow's row.

In: states and differences as an engine gives them. Out: text. The one rule: the innermost frame comes first, each with
its place, its source and its locals; what came from a program is made safe for the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click

from flowmetal.cli.output import clean, one_line
from flowmetal.client.client import Row

STYLES = {"+": "green", "-": "red", "~": "yellow"}


def show_state(state: Row) -> None:
    """What is waited for, and the stack; of a flow that has failed, the error first."""
    if state.get("error"):
        _show_error(state["error"])
    for waited in state.get("waiting_for") or []:
        click.echo(f"{'waiting for':>20}  {clean(one_line(waited))}")
    click.echo(f"\n{_title(state)}:")
    _show_frames(state.get("stack") or [])
    for fiber in (state.get("fibers") or [])[1:]:
        click.echo(f"fiber {fiber['fiber']}:")
        _show_frames(fiber["stack"])


def _title(state: Row) -> str:
    if state.get("error"):
        return "stack where it failed"
    if "transition" in state:
        return f"stack {state['transition']} of {state['transitions']} transitions after it asked for step {state['step']}"
    return f"stack at step {state.get('step')}"


def _show_error(error: Mapping[str, Any]) -> None:
    lines = str(error.get("rendered") or error.get("message")).split("\n")
    click.echo(f"{'failed of':>20}  :{error.get('type')}")
    for line in lines:
        click.echo(f"{'':>20}  {clean(line)}")


def _show_frames(frames: Iterable[Mapping[str, Any]]) -> None:
    for frame in frames:
        click.echo(f"  {clean(str(frame.get('function')))}  {_place(frame)}".rstrip())
        if frame.get("source"):
            click.echo(f"      {clean(one_line(str(frame['source']).strip()))}")
        for name, value in (frame.get("locals") or {}).items():
            click.echo(f"      {clean(str(name))} = {clean(one_line(value))}")


def _place(frame: Mapping[str, Any]) -> str:
    return f"line {frame['line']}:{frame['column']}" if frame.get("line") else ""


def show_diff(diff: Row) -> None:
    """One line a change: + what came, - what went, ~ what is different."""
    old, new = (f"step {place['step']}" if place["status"] not in ("completed", "cancelled") else place["status"] for place in (diff["from"], diff["to"]))
    click.echo(f"from {old} to {new}:")
    for fiber in diff["fibers"]:
        click.echo(f"fiber {fiber['fiber']} {fiber['what']}")
        for frame in reversed(fiber["left"]):
            _line("-", f"{frame['function']}  {_place(frame)}")
        for change in fiber["changed"]:
            moved = "" if change["old"] == change["new"] else f"  {_place(change['old'])} → {_place(change['new'])}"
            _line("~", f"{change['function']}{moved}")
            for local in change["locals"]:
                _show_local(local)
        for frame in fiber["entered"]:
            _line("+", f"{frame['function']}  {_place(frame)}")
            for name, value in frame["locals"].items():
                _line("+", f"    {name} = {one_line(value)}")
    for sign, promises in (("+", diff["opened"]), ("-", diff["settled"])):
        for promise in promises:
            _line(sign, f"promise {promise['promise']} ({promise['op']}) {'opened' if sign == '+' else 'settled'}")
    if not (diff["fibers"] or diff["opened"] or diff["settled"]):
        click.echo("nothing has changed")


def _show_local(local: Mapping[str, Any]) -> None:
    name = local["name"]
    if "old" not in local:
        _line("+", f"    {name} = {one_line(local['new'])}")
    elif "new" not in local:
        _line("-", f"    {name} = {one_line(local['old'])}")
    else:
        _line("~", f"    {name} = {one_line(local['old'], 60)} → {one_line(local['new'], 60)}")


def _line(sign: str, text: str) -> None:
    click.echo(click.style(f"  {sign} {clean(text)}".rstrip(), fg=STYLES[sign]))

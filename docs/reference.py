"""Writes the pages that are made from the code: `cli.md` from the commands themselves, `library.md` from the library.

    python docs/reference.py

A test fails when a page is not what this would write.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from flowmetal.cli.main import COMMANDS, cli
from flowmetal.lang import describe
from flowmetal.lang.describe import Description
from flowmetal.lang.effect_examples import PROGRAMS, WORLD
from flowmetal.lang.library import library
from flowmetal.lang.special_docs import SPECIAL_DOCS

HERE = Path(__file__).parent
COMMON = ("store", "as_json", "debug", "help")

CLI = """\
# The command line

<!-- Made by docs/reference.py from the commands themselves; change them, not this page. -->

`flowmetal COMMAND --help` says the same. Every command takes these:

| option | |
| --- | --- |
| `--store STORE` | which store: see below |
| `--json` | where the command prints data: JSON lines, one object a row, and nothing else on stdout |
| `--debug` | Python's traceback for an error |

A store is `PATH.duckdb`, `:memory:`, or `http://host:port` of a running interpreter
(its token in `FLOWMETAL_TOKEN`). Without `--store` it is `FLOWMETAL_STORE`,
else the nearest `flowmetal.duckdb` in this folder or one above it, else one made here.

A flow may be named by an unambiguous prefix of its id. Results go to stdout; remarks and errors to stderr: what is wrong, where
(file:line:column and a caret for source), what to do.

| exit code | |
| --- | --- |
| 0 | done |
| 1 | the flow failed or was cancelled |
| 2 | bad usage or input |
| 3 | no such flow, or the store cannot be reached |
| 4 | not ended within `--timeout` |
| 130 | interrupted |

Commands attach to the interpreter that hosts the store, and start one in the background (`flowmetal serve --background`) where there is none. It ends
by itself five minutes after its last client has gone, if no flow is open; `flowmetal stop` ends it at once. `flowmetal doctor` says who hosts what.

## Commands
"""

LIBRARY = f"""\
# The library

<!-- Made by docs/reference.py from the library itself; change its docstrings, not this page. -->

All names, by namespace. Those of `core` and `flow` need no prefix; the others are written with theirs: `str/join`. `;=>` says what a form gives; the test
suite runs every example. How the language works: [language.md](language.md).

Examples that wait run in a flow on [virtual time](testing.md), and may use these programs:

```clojure
{PROGRAMS}```

The outside world answers them so:

<!-- not run: the frame around an example -->
```clojure
{WORLD.replace("%s", "…")}```
"""


def cli_page() -> str:
    """The page of the command line."""
    return CLI + "".join(f"\n{part}" for name in COMMANDS for part in _commands(name, _command(name)))


def _command(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


def _commands(name: str, command: click.Command) -> Iterator[str]:
    if isinstance(command, click.Group):
        for part, inner in command.commands.items():
            yield from _commands(f"{name} {part}", inner)
        return
    usage = " ".join([name, *(_argument(p) for p in command.params if isinstance(p, click.Argument))])
    yield f"### `flowmetal {usage}`\n\n{_prose(command.help or '')}{_options(command)}"


def _argument(param: click.Argument) -> str:
    return param.metavar or str(param.name).upper()


def _prose(text: str) -> str:
    paragraphs = [" ".join(part.split()) for part in text.strip().split("\n\n")]
    return "\n\n".join(paragraphs) + "\n"


def _options(command: click.Command) -> str:
    rows = [_option(p) for p in command.params if isinstance(p, click.Option) and p.name not in COMMON]
    return "\n| option | |\n| --- | --- |\n" + "\n".join(rows) + "\n" if rows else ""


def _option(param: click.Option) -> str:
    kind = param.metavar
    if kind is None and not param.is_flag:
        kind = "\\|".join(map(str, param.type.choices)) if isinstance(param.type, click.Choice) else param.type.name.split()[0].upper()
    names = ", ".join(sorted(param.opts, key=len, reverse=True))
    default = f" Default: `{param.default}`." if param.show_default and param.default is not None else ""
    return f"| `{names}{f' {kind}' if kind else ''}` | {(param.help or '').replace('|', chr(92) + '|')}{default} |"


def library_page() -> str:
    """The page of the library."""
    definitions = library()
    spaces: dict[str, list[Description]] = defaultdict(list)
    spaces["special forms"] = [describe.special(name) for name in SPECIAL_DOCS]
    for ns, name in describe.public_names(definitions, definitions.version):
        found = describe.describe(definitions, f"{ns}/{name}", "user", definitions.version)
        if found is not None:
            spaces[ns].append(found)
    first = ["special forms", "core", "flow"]
    order = [*first, *sorted(set(spaces) - set(first))]
    contents = " · ".join(f"[{ns}](#{ns.replace(' ', '-')})" for ns in order)
    return LIBRARY + f"\n{contents}\n" + "".join(f"\n## {ns}\n\n" + "".join(map(_entry, sorted(spaces[ns], key=_by_name))) for ns in order)


def _by_name(d: Description) -> tuple[bool, str]:
    return not d.name[0].isalpha(), d.name


def _entry(d: Description) -> str:
    calls = " ".join(d.calls()) or d.shown_name
    macro = " *(macro)*" if d.kind == "macro" else ""
    example = f"<br>{_code(d.example)}" if d.example else ""
    return f"- {_code(calls)}{macro} — {' '.join((d.doc or '').split())}{example}\n"


def _code(text: str) -> str:
    """Text as code on one line, whatever backquotes are in it."""
    line = " ".join(text.split())
    return f"`` {line} ``" if "`" in line else f"`{line}`"


PAGES: dict[str, Callable[[], str]] = {"cli.md": cli_page, "library.md": library_page}


def main() -> None:
    """Writes the pages."""
    for name, make in PAGES.items():
        (HERE / name).write_text(make(), encoding="utf-8")
        print(f"wrote {HERE / name}", file=sys.stderr)


if __name__ == "__main__":
    main()

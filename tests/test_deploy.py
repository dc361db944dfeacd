"""The files of `deploy/` say what this program knows: its options, its variables, its folders. Nothing here builds or starts them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from flowmetal.cli.main import cli

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
CONTAINERFILE = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
UNIT = (DEPLOY / "flowmetal.service").read_text(encoding="utf-8")
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "interpreter").rglob("*.py"))


def commands() -> dict[str, list[str]]:
    """How each file starts the interpreter: the arguments after `flowmetal`."""
    image = re.search(r"^CMD (\[.*\])$", CONTAINERFILE, re.MULTILINE)
    unit = re.search(r"^ExecStart=\S+/flowmetal (.*)$", UNIT, re.MULTILINE)
    assert image and unit and 'ENTRYPOINT ["flowmetal"]' in CONTAINERFILE
    return {"Containerfile": yaml.safe_load(image[1]), "compose.yaml": COMPOSE["services"]["flowmetal"]["command"], "flowmetal.service": shlex.split(unit[1])}


@pytest.mark.parametrize("file", commands())
def test_the_interpreter_is_started_with_options_that_it_has(file: str) -> None:
    name, *arguments = commands()[file]
    command = cli.get_command(click.Context(cli), name)
    assert name == "serve" and command is not None
    given = command.make_context(name, arguments).params
    assert given["port"] == 8421 and not given["background"]
    assert given["address"] == ("127.0.0.1" if file == "flowmetal.service" else "0.0.0.0")


@pytest.mark.parametrize("file", ["Containerfile", "compose.yaml", "flowmetal.service", "flowmetal.env.example"])
def test_every_variable_is_one_that_is_read(file: str) -> None:
    text = (DEPLOY / file).read_text(encoding="utf-8")
    named = set(re.findall(r"FLOWMETAL_[A-Z_]+", text))
    assert named
    for name in named:
        assert f'"{name}"' in SOURCE or name.startswith("FLOWMETAL_SECRET_") or name == "FLOWMETAL_TOKEN", name


def test_no_file_holds_a_secret() -> None:
    services = COMPOSE["services"]
    assert services["flowmetal"]["environment"]["PGPASSWORD"].startswith("${PGPASSWORD:?")
    assert services["postgres"]["environment"]["POSTGRES_PASSWORD"].startswith("${PGPASSWORD:?")
    assert re.search(r"^PGPASSWORD=$", (DEPLOY / "flowmetal.env.example").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"/deploy/.env", "/deploy/flowmetal.env"} <= set((ROOT / ".gitignore").read_text(encoding="utf-8").splitlines())


def test_what_is_copied_into_the_image_is_what_a_wheel_is_made_of() -> None:
    copied = {source for line in re.findall(r"^COPY (?!--from)(.*)$", CONTAINERFILE, re.MULTILINE) for source in line.split()[:-1]}
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = [*build["packages"], *build["shared-data"], "pyproject.toml", "README.md", "LICENSE.md"]
    assert all((ROOT / source).exists() for source in copied)
    assert not [path for path in needed if not any(path == source or path.startswith(f"{source}/") for source in copied)]


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    """Its sections and settings; with `systemd-analyze`, where that is installed, all of it."""
    said = dict(re.findall(r"^(\w+)=(.*)$", UNIT, re.MULTILINE))
    assert said["Restart"] == "always" and said["KillSignal"] == "SIGTERM" and int(said["TimeoutStopSec"]) >= 30
    assert said["StartLimitIntervalSec"] == "0" and said["User"] == "flowmetal" and said["EnvironmentFile"].startswith("/etc/")
    if analyze := shutil.which("systemd-analyze"):
        unit = tmp_path / "flowmetal.service"
        unit.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={shutil.which('true')}", UNIT, flags=re.MULTILINE))
        done = subprocess.run([analyze, "verify", "--man=no", unit], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")

"""What the README says exists: its commands parse, its recipes load, its files are there."""

import re
import shlex
from pathlib import Path

import click
import pytest

from ray_asd import cli, config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = sorted(set(re.findall(r"^ray-asd .*$", README, flags=re.MULTILINE)))


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_parse(line: str) -> None:
    name, *arguments = shlex.split(line, comments=True)[1:]
    command = cli.cli.commands[name]
    with click.Context(command, resilient_parsing=False) as context:
        assert command.parse_args(context, arguments) == []  # nothing left over


def test_every_command_stands_in_the_table() -> None:
    rows = re.findall(r"^\| `.*?\|", README, flags=re.MULTILINE)
    named = {name.split()[0] for row in rows for name in re.findall(r"`(.*?)`", row)}
    assert set(cli.cli.commands) <= named


def test_settings_of_the_commands_are_known() -> None:
    overrides = [found for found in re.findall(r"--set ([\w.]+=[\w.]+)", README) if found != "key=value"]
    assert overrides
    for override in overrides:
        config.load("paper", (override,))


def test_the_token_is_neither_committed_nor_uploaded() -> None:
    """Ray leaves out of a working directory what git ignores."""
    (token,) = re.findall(r"openssl rand -hex 32 > (\S+)", README)
    assert f"/{token}" in (ROOT / ".gitignore").read_text().splitlines()


def test_files_are_there() -> None:
    named = re.findall(r"`((?:ray_asd|cluster|jobs|tests|\.ci)/[\w./]*|constraints\.txt)`", README)
    assert named
    assert [name for name in named if "NAME" not in name and not (ROOT / name).exists()] == []


def test_the_ci_runs_what_the_readme_says() -> None:
    said = re.search(r"^python3 -m venv .*\bpytest$", README, flags=re.MULTILINE)
    assert said is not None
    ran = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line.startswith(("python3", ".venv"))]
    plain = " && ".join(ran).replace(" --quiet", "")
    for long, short in (("--upgrade", "-U"), ("--constraint", "-c"), ("--editable", "-e")):
        plain = plain.replace(long, short)
    assert plain == said.group()

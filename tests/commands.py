"""The command line and other programs, called in the process of the tests."""

import importlib.util
import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ray_asd import cli


@dataclass(frozen=True)
class Run:
    """How one call of the command line ended."""

    code: int
    out: str
    err: str

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return found

    @property
    def complaint(self) -> str:
        """The one line of an error, which is all there is on stderr."""
        assert self.err.startswith("ray-asd: ")
        assert self.err.count("\n") == 1
        return self.err.strip()


def run(*arguments: str) -> Run:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    assert isinstance(ended.value.code, int)
    return Run(ended.value.code, out.getvalue(), err.getvalue())


def module_at(path: Path) -> Any:
    """What a program that is no package's defines."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

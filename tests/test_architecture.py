"""The floors hold: imports only go down, and what must answer fast imports nothing slow."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
CHEAP = ["build", "build.archive", "config", "store", "store.lease", "tables"]


def test_import_contracts_are_kept() -> None:
    program = Path(sys.executable).parent / "lint-imports"
    result = subprocess.run([program, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    assert ", 0 broken." in result.stdout


@pytest.mark.parametrize("module", CHEAP)
def test_looking_something_up_imports_neither_torch_nor_ray(module: str) -> None:
    slow = "{'torch', 'ray', 'transformers', 'faiss', 'scipy', 'sklearn', 's3fs'}"
    program = f"import sys, ray_asd.{module}; print(sorted({slow} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"

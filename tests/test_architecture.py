"""The floors hold: imports only go down, and what must answer fast imports nothing slow."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SLOW = {"torch", "ray", "ray.train", "transformers", "faiss", "sklearn", "pandas", "s3fs"}
SLOW |= {"scipy", "scipy.signal", "scipy.stats"}
CHEAP = ["build", "build.archive", "config", "store", "store.lease", "tables"]


def test_import_contracts_are_kept() -> None:
    program = Path(sys.executable).parent / "lint-imports"
    result = subprocess.run([program, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    assert ", 0 broken." in result.stdout


@pytest.mark.parametrize(
    ("module", "needed"),
    [
        *((module, set[str]()) for module in CHEAP),
        ("cli", {"scipy"}),  # whose parts are loaded when they are used
        ("engine.shards", {"ray", "pandas"}),  # Ray Data's own
        ("stages.detection.stream", {"ray", "pandas", "faiss", "scipy"}),
    ],
)
def test_a_process_loads_only_what_it_needs(module: str, needed: set[str]) -> None:
    """Commands at their start, and workers: each of these packages takes a good part of a second of a processor."""
    program = f"import sys, ray_asd.{module}; print(sorted({SLOW} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(ast.literal_eval(result.stdout)) == needed


def test_files_can_be_read_in_a_sitting_and_functions_fit_a_screen() -> None:
    files = [path for room in ("ray_asd", "jobs") for path in (REPOSITORY / room).rglob("*.py")]
    assert len(files) > 100
    assert [path.name for path in files if len(path.read_text().splitlines()) > 300] == []
    functions = [
        (path.name, node.name, (node.end_lineno or 0) - node.lineno + 1)
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    ]
    assert [function for function in functions if function[2] > 50] == []


def test_each_room_says_in_few_lines_what_it_is_for() -> None:
    package = REPOSITORY / "ray_asd"
    rooms = {path.parent for path in package.glob("*/__init__.py")} - {package / "config"}
    lengths = {room.name: len((room / "README.md").read_text().splitlines()) for room in rooms}
    del lengths["benchmarks"]  # its figures stand there
    assert max(lengths.values()) <= 60
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 250


def test_no_two_test_modules_share_a_name() -> None:
    """Pytest imports them by it."""
    names = [path.name for path in (REPOSITORY / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))

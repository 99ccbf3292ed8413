"""How files are given to three processes: on a test session of its own, whose tests say where they ran."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WHERE = """\
import json, os, pathlib, time
def test_it():
    time.sleep(0.1)
    name = pathlib.Path(__file__).parent.name + "/" + pathlib.Path(__file__).stem
    told = {"file": name, "process": os.environ["PYTEST_XDIST_WORKER"], "nice": os.nice(0)}
    with open(os.environ["TOLD"], "a") as file:
        file.write(json.dumps(told) + "\\n")
"""
CONFTEST = """\
from spare import SpareProcess, give_way as pytest_configure
def pytest_xdist_make_scheduler(config, log):
    return SpareProcess(config, log)
"""


@pytest.mark.parametrize(("heavy", "light"), [(6, 3), (3, 0), (1, 1)])
def test_the_spare_process_has_light_files_alone(tmp_path: Path, heavy: int, light: int) -> None:
    rooms = {"stages": heavy, "data": light}
    for room, count in rooms.items():
        for number in range(count):
            place = tmp_path / "tests" / room / f"test_{room}_{number}.py"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(WHERE)
    (tmp_path / "tests" / "conftest.py").write_text(CONFTEST)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "3", "--dist", "loadfile", "--no-loadscope-reorder", "tests"]
    told = tmp_path / "told"
    environment = {"PATH": "", "PYTHONPATH": str(Path(__file__).parent), "TOLD": str(told)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ran = [json.loads(line) for line in told.read_text().splitlines()]
    assert len(ran) == heavy + light
    if heavy + light > 2:  # else two of the processes are enough, whichever they are
        spare = [line for line in ran if line["process"] == "gw2"]
        assert [line["file"] for line in spare if line["file"].startswith("stages/")] == []
        assert bool(spare) == bool(light), ran
        assert {line["nice"] for line in spare} <= {19}
        assert {line["nice"] for line in ran if line not in spare} == {os.nice(0)}

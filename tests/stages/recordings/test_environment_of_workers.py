"""What the environment does wrong is no reject: nothing is committed, and the same command goes on once it is over."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ray_asd import build, tables
from ray_asd.data import audio
from ray_asd.tables import Folder

CLIPS = 40  # two shards
OF_THE_ENVIRONMENT = ["EIO", "ESTALE@workers"]  # of all that there are; tests/store has the others
OF_A_NODE = ["EACCES@workers", "ENOENT@workers"]  # not mounted there, or mounted for another user
RUNS = """\
import contextlib, io, json, os, sys
from pathlib import Path
from ray_asd.cli import main
from ray_asd.engine import connection
source, root, *faults = sys.argv[1:]
with connection.connected(1):
    for fault in faults:
        switch = Path(os.environ["FAULTS_ON"], fault)
        switch.touch()
        told = io.StringIO()
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
            try:
                main(["ingest", source, "--out", root])
            except SystemExit as end:
                code = end.code or 0
        switch.unlink()
        receipts = len(list(Path(root).glob("ingest/*/parts/receipts/*.json")))
        markers = len(list(Path(root).glob("ingest/*/marker.json")))
        print(json.dumps([fault, code, told.getvalue(), receipts, markers]))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One command after the other below one root, each with another fault, on a Ray that is made to fail: by fault."""
    folder = tmp_path_factory.mktemp("faults")
    (folder / "on").mkdir()
    recordings = folder / "fans" / "fan" / "train"
    recordings.mkdir(parents=True)
    for number in range(CLIPS):
        noise = np.random.default_rng(number).uniform(-0.5, 0.5, 2_000)
        name = f"section_00_source_train_normal_{number:04d}_m-n_W.wav"
        (recordings / name).write_bytes(audio.encode_wav(noise, 16_000, "PCM_16"))
    search = os.pathsep.join([str(Path(__file__).parents[1] / "faults"), os.environ.get("PYTHONPATH", "")])
    faults = [f"open {fault} _00(05|39)_m-n_W.wav$" for fault in (*OF_THE_ENVIRONMENT, *OF_A_NODE)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_A")}
    environment |= {"FAULTS": "\n".join(faults), "FAULTS_ON": str(folder / "on"), "PYTHONPATH": search}
    arguments = [str(folder / "fans"), str(folder / "root"), *OF_THE_ENVIRONMENT, *OF_A_NODE, "none"]
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "-c", RUNS, *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, env=environment, timeout=400)
    assert done.returncode == 0, (folder / "log").read_text()
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"[")]
    return {fault: outcome for fault, *outcome in told} | {"root": folder / "root"}


def last_line(stderr: str) -> str:
    """The complaint, the others being progress."""
    *progress, last = stderr.splitlines()
    assert all(line.startswith("ingest: ") for line in progress), stderr
    return last


@pytest.mark.parametrize("fault", OF_THE_ENVIRONMENT)
def test_a_failing_disk_or_machine_is_tried_again_later(runs: dict[str, Any], fault: str) -> None:
    code, stderr, _, markers = runs[fault]
    assert (code, markers) == (75, 0), stderr
    name = fault.partition("@")[0]
    assert last_line(stderr).startswith("ray-asd: /")
    assert last_line(stderr).endswith(f"({name})")
    assert "_m-n_W.wav: " in last_line(stderr)


@pytest.mark.parametrize(
    ("fault", "reason"), zip(OF_A_NODE, ["unreadable: [Errno 13]", "missing: [Errno 2]"], strict=True)
)
def test_what_the_driver_can_read_is_no_reject(runs: dict[str, Any], fault: str, reason: str) -> None:
    code, stderr, receipts, markers = runs[fault]
    assert (code, receipts, markers) == (75, 0, 0), stderr  # each shard had one
    last = last_line(stderr)
    assert last.startswith("ray-asd: 2 recordings can be read here, but not on their workers, first /")
    assert f"_0005_m-n_W.wav ({reason}" in last
    assert "mounted on every node" in last


def test_the_same_command_ends_with_all_clips(runs: dict[str, Any]) -> None:
    code, stderr, _, markers = runs["none"]
    assert (code, markers) == (0, 1), stderr
    (folder,) = (runs["root"] / "ingest").iterdir()
    output = build.find(str(folder))
    assert output
    assert (output.marker.counts["clips"], output.marker.counts["rejects"]) == (CLIPS, 0)
    assert output.table(Folder.REJECTS, tables.REJECTS).num_rows == 0
    assert output.table(Folder.CLIPS, tables.CLIPS).num_rows == CLIPS

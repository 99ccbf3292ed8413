"""The whole chain by two processes at once: one result. With ``CLUSTER_JOBS`` (environment): tests/build and the nights
have what it rests on, and are always run.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray

from ray_asd import build, store
from ray_asd.config import Worker
from ray_asd.data.source import Source
from ray_asd.engine.progress import silent
from ray_asd.stages.recordings import ingest
from stages import chain

_COMMANDS = """
import contextlib, json, sys
from ray_asd.cli import main
from ray_asd.engine import connection
with connection.connected():
    for arguments in json.loads(sys.argv[1]):
        with contextlib.suppress(SystemExit):
            main([*arguments, "--json"])
"""


def at_once(*commands: list[str]) -> list[list[dict[str, Any]]]:
    """What each command said last in two processes that run them at the same time, on the Ray of these tests."""
    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", _COMMANDS, json.dumps(commands)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(2)
    ]
    ended = [(*run.communicate(timeout=400), run.returncode) for run in runs]
    assert [code for _, _, code in ended] == [0, 0], [stderr for _, stderr, _ in ended]
    said = [[json.loads(line) for line in stdout.splitlines() if line.startswith("{")] for stdout, _, _ in ended]
    assert [[summary["status"] for summary in summaries] for summaries in said] == [["done"] * len(commands)] * 2
    return said


def attempts(folder: str) -> list[str]:
    return [name for name in store.folders(folder) if name.startswith("attempt-")]


@pytest.mark.skipif("CLUSTER_JOBS" not in os.environ, reason="a chain more, for CLUSTER_JOBS")
def test_two_processes_at_once_end_with_one_result(ray_session: None, fleet: str, tmp_path: Path) -> None:
    root = str(tmp_path / "root")
    clips = ingest.step(Source(fleet), Worker(), silent).key(root).folder(root)
    first, second = at_once(
        ["ingest", fleet, "--out", root],
        ["enroll", "--model", "spectral", "--clips", clips, "--out", root, "--set", chain.ONE_WORKER],
    )
    assert [summary["outputs"] for summary in first] == [summary["outputs"] for summary in second]
    assert first[0]["outputs"]["clips"] == clips
    output = build.resolve(clips, "ingest")
    written = {entry.path for entry in store.listing(store.join(clips, build.PARTS))}
    assert written == {file.path for file in output.marker.files}  # both wrote the same files
    assert sorted([first[1]["reused"], second[1]["reused"]]) == [False, True]  # the lease let only one enrol
    assert len(attempts(first[1]["outputs"]["detector"])) == 1

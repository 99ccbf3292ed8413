"""The whole chain by two processes at once: one result."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ray_asd import build, store
from stages import chain

_COMMAND = [sys.executable, "-c", "from ray_asd.cli import main; main()"]


def at_once(*arguments: str) -> list[dict[str, Any]]:
    """The summaries of two processes that run the same command at the same time."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    runs = [
        subprocess.Popen(
            [*_COMMAND, *arguments, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(2)
    ]
    ended = [(*run.communicate(timeout=400), run.returncode) for run in runs]
    assert [code for _, _, code in ended] == [0, 0], [stderr for _, stderr, _ in ended]
    return [json.loads(stdout.splitlines()[-1]) for stdout, _, _ in ended]


def attempts(folder: str) -> list[str]:
    return [name for name in store.folders(folder) if name.startswith("attempt-")]


def test_two_processes_at_once_end_with_one_result(system: chain.Chain, tmp_path: Path) -> None:
    root = str(tmp_path / "root")
    one, other = at_once("ingest", system.recordings, "--out", root)
    assert one["outputs"] == other["outputs"]
    clips = one["outputs"]["clips"]
    output = build.resolve(clips, "ingest")
    written = {entry.path for entry in store.listing(store.join(clips, build.PARTS))}
    assert written == {file.path for file in output.marker.files}  # both wrote the same files

    changes = ["augmentation=null", "transformer_pooling=null", "embedding.dim=16", "training.steps=3"]
    changes += ["training.batch_size=4", "training.workers=1"]
    settings = [argument for change in changes for argument in ("--set", change)]
    one, other = at_once("train", "--recipe", "tiny", "--clips", clips, "--out", root, *settings)
    assert one["outputs"] == other["outputs"]
    assert sorted([one["reused"], other["reused"]]) == [False, True]  # the lease let only one train
    assert len(attempts(one["outputs"]["model"])) == 1

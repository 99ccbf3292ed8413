"""The whole chain: the same tables on disk and in an object store, and one result of two runs at once."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ray_asd import build, storage
from stages import chain

_COMMAND = [sys.executable, "-c", "from ray_asd.cli import main; main()"]


def test_disk_and_object_store_give_the_same_tables(system: chain.Chain, bucket: str) -> None:
    recordings, root = storage.join(bucket, "fleet"), storage.join(bucket, "root")
    for entry in storage.listing(system.recordings):
        storage.upload(Path(system.recordings, entry.path), storage.join(recordings, entry.path))
    remote = chain.built(recordings, root)
    for (name, ours, folder), (_, theirs, _) in zip(system.tables(), remote.tables(), strict=True):
        one, other = ours.table(folder), theirs.table(folder)
        assert one.schema.equals(other.schema), name
        if "uri" in one.column_names:
            moved = [uri.replace(system.recordings, recordings, 1) for uri in one["uri"].to_pylist()]
            assert moved == other["uri"].to_pylist()
            one, other = one.drop_columns("uri"), other.drop_columns("uri")
        assert one.num_rows
        assert one.equals(other), name
        assert ours.source.digest == theirs.source.digest, name
    for ours, theirs in ((system.base, remote.base), (system.model, remote.model)):
        assert ours.marker.digest == theirs.marker.digest
        assert ours.read("weights.safetensors") == theirs.read("weights.safetensors")
        assert ours.read("curve/curve.parquet") == theirs.read("curve/curve.parquet")
    assert [file.sha256 for file in system.originals.files("waves")] == [
        file.sha256 for file in remote.originals.files("waves")
    ]


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
    return [name for name in storage.folders(folder) if name.startswith("attempt-")]


def test_two_processes_at_once_end_with_one_result(system: chain.Chain, tmp_path: Path) -> None:
    root = str(tmp_path / "root")
    one, other = at_once("ingest", system.recordings, "--out", root)
    assert one["outputs"] == other["outputs"]
    clips = one["outputs"]["clips"]
    output = build.resolve(clips, "ingest")
    written = {entry.path for entry in storage.listing(storage.join(clips, build.PARTS))}
    assert written == {file.path for file in output.marker.files}  # both wrote the same files

    changes = ["augmentation=null", "transformer_pooling=null", "embedding.dim=16", "training.steps=3"]
    changes += ["training.batch_size=4", "training.workers=1"]
    settings = [argument for change in changes for argument in ("--set", change)]
    one, other = at_once("train", "--recipe", "tiny", "--clips", clips, "--out", root, *settings)
    assert one["outputs"] == other["outputs"]
    assert sorted([one["reused"], other["reused"]]) == [False, True]  # the lease let only one train
    assert len(attempts(one["outputs"]["model"])) == 1

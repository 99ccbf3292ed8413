"""The whole chain on an object store where one request in ten fails: the same tables and weights as on disk.

``FAULT_SEEDS`` (environment, default 1) is the number of runs, each with other faults.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fault_proxy
from ray_asd import build, store
from ray_asd.build import Output
from stages import chain

pytestmark = pytest.mark.slow

SEEDS = int(os.environ.get("FAULT_SEEDS", "1"))
RATE = 0.1
BUILD = """\
import json, sys
from ray_asd.engine import connection
from stages import chain
with connection.connected():
    built = chain.built(*sys.argv[1:])
print(json.dumps({name: getattr(built, name).uri for name in ("clips", "model", "detector", "scores", "metrics")}))
"""
STAGES = {"clips": "ingest", "model": "tfp", "detector": "enroll", "scores": "score", "metrics": "evaluate"}


def built_through(proxy: fault_proxy.Proxy, recordings: str, root: str, log: Path) -> chain.Chain:
    """The chain that a process of its own, with a Ray of its own, built with ``proxy`` as its object store."""
    search = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"AWS_ENDPOINT_URL": proxy.url, "PYTHONPATH": search}
    with log.open("wb") as stderr:
        command = [sys.executable, "-c", BUILD, recordings, root]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, env=environment, timeout=500)
    assert done.returncode == 0, log.read_text()
    uris = json.loads(done.stdout.splitlines()[-1])
    return chain.Chain(root, recordings, **{name: build.resolve(uris[name], stage) for name, stage in STAGES.items()})


def same_tables(clean: chain.Chain, faulty: chain.Chain) -> None:
    for (name, ours, folder), (_, theirs, _) in zip(clean.tables(), faulty.tables(), strict=True):
        one, other = ours.table(folder), theirs.table(folder)
        assert ours.source.digest == theirs.source.digest, name
        assert one.schema.equals(other.schema), name
        assert one.num_rows, name
        if "uri" in one.column_names:
            moved = [uri.replace(clean.recordings, faulty.recordings, 1) for uri in one["uri"].to_pylist()]
            assert moved == other["uri"].to_pylist(), name
            one, other = one.drop_columns("uri"), other.drop_columns("uri")
        assert one.equals(other), name


def learned(output: Output) -> dict[str, bytes]:
    """All files of a model but its card, which names places."""
    return {path: content for path, content in chain.contents(output).items() if path != "model.json"}


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_stage_completes_with_the_same_tables(
    system: chain.Chain, bucket: str, tmp_path: Path, seed: int
) -> None:
    recordings, root = store.join(bucket, "fleet"), store.join(bucket, "root")
    for entry in store.listing(system.recordings):
        store.upload(Path(system.recordings, entry.path), store.join(recordings, entry.path))
    upstream = os.environ["AWS_ENDPOINT_URL"]
    with fault_proxy.running(upstream, "--seed", str(seed), "--rate", str(RATE)) as proxy:
        faulty = built_through(proxy, recordings, root, tmp_path / "log")
        requests, faults = proxy.statistics()
        kinds = proxy.faults()
    assert set(kinds) == set(fault_proxy.KINDS)
    assert kinds.total() > RATE * requests / 2
    for method in ("GET", "PUT"):  # which kinds a method meets is up to the seed; tests/test_storage_faults.py has all
        assert sum(count for what, count in faults.items() if what.startswith(method)), faults
    same_tables(system, faulty)
    for ours, theirs in ((system.base, faulty.base), (system.model, faulty.model)):
        assert ours.marker.digest == theirs.marker.digest
        assert learned(ours) == learned(theirs)
    assert [file.sha256 for file in system.originals.files("waves")] == [
        file.sha256 for file in faulty.originals.files("waves")
    ]

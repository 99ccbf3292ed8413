"""The whole chain and a sweep where all that can be is missing: the same tables and weights as on disk.

The cluster has no node for work until an autoscaler brings two, the object store fails one request in ten.
``FAULT_SEEDS`` (environment, default 1) is the number of runs, each with other faults.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import clusters
import fault_proxy
from ray_asd import build, grid, store
from ray_asd.build import Output
from ray_asd.tables import Folder
from stages import chain

pytestmark = pytest.mark.slow

SEEDS = int(os.environ.get("FAULT_SEEDS", "1"))
RATE = 0.1
BUILD = """\
import json, sys
import ray
from ray_asd import grid
from ray_asd.engine import connection
from stages import chain
recordings, root, cells = sys.argv[1:]
with connection.connected():
    cpus = ray.cluster_resources().get("CPU", 0)
    built = chain.built(recordings, root)
    sweep = chain.swept(grid.load(cells, "tiny", chain.SETTINGS), built.clips, root)
uris = {name: getattr(built, name).uri for name in ("clips", "model", "detector", "scores", "metrics")}
failed, figures = [error for _, error in sweep.failed], [output.uri for output in sweep.metrics]
print(json.dumps({"cpus": cpus, "uris": uris, "failed": failed, "figures": figures}))
"""
GRID = """\
- {backbone: hubert, WS: true, SA: true, TFP: [false, true]}
- {backbone: hubert, WS: true, SA: true, TFP: [false, true], set: {scoring.backend: {whiten: 0.5}}}
"""
STAGES = {"clips": "ingest", "model": "tfp", "detector": "enroll", "scores": "score", "metrics": "evaluate"}


@dataclass(frozen=True)
class Grown:
    """What a process built on a cluster that grew; ``cpus`` are those it found, ``nodes`` the raylets it left."""

    cpus: float
    nodes: int
    chain: chain.Chain
    failed: list[str]
    figures: list[Output]


def grown(proxy: fault_proxy.Proxy, recordings: str, root: str, cells: Path) -> Grown:
    """The chain and a sweep of a process of its own, with ``proxy`` as the object store of all nodes."""
    search = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    variables = {"AWS_ENDPOINT_URL": proxy.url, "PYTHONPATH": search}
    with clusters.cluster(cells.parent, most=2, variables=variables) as cluster:
        command = [sys.executable, "-c", BUILD, recordings, root, str(cells)]
        done = subprocess.run(command, capture_output=True, text=True, env=cluster.environment, timeout=550)
        nodes = cluster.nodes()
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    outputs = {name: build.resolve(told["uris"][name], stage) for name, stage in STAGES.items()}
    figures = [build.resolve(uri, "evaluate") for uri in told["figures"]]
    return Grown(told["cpus"], nodes, chain.Chain(root, recordings, **outputs), told["failed"], figures)


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


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_stage_completes_with_the_same_tables(
    system: chain.Chain, bucket: str, tmp_path: Path, seed: int
) -> None:
    recordings, root = store.join(bucket, "fleet"), store.join(bucket, "root")
    for entry in store.listing(system.recordings):
        store.upload(Path(system.recordings, entry.path), store.join(recordings, entry.path))
    cells = tmp_path / "grid.yaml"
    cells.write_text(GRID)
    upstream = os.environ["AWS_ENDPOINT_URL"]
    with fault_proxy.running(upstream, "--seed", str(seed), "--rate", str(RATE)) as proxy:
        made = grown(proxy, recordings, root, cells)
        requests, faults = proxy.statistics()
        kinds = proxy.faults()
    assert (made.cpus, made.nodes) == (0, 3), "it began with a head alone"
    assert set(kinds) == set(fault_proxy.KINDS)
    assert kinds.total() > RATE * requests / 2
    for method in ("GET", "PUT"):  # which kinds a method meets is up to the seed; tests/store has all
        assert sum(count for what, count in faults.items() if what.startswith(method)), faults
    faulty = made.chain
    same_tables(system, faulty)
    for ours, theirs in ((system.base, faulty.base), (system.model, faulty.model)):
        assert ours.marker.digest == theirs.marker.digest
        assert learned(ours) == learned(theirs)
    assert [file.sha256 for file in system.originals.files("waves")] == [
        file.sha256 for file in faulty.originals.files("waves")
    ]
    root = chain.copied(system.root, str(tmp_path / "fixed"), system.metrics)
    fixed = chain.swept(grid.load(str(cells), "tiny", chain.SETTINGS), system.clips, root)
    assert made.failed == []
    assert fixed.failed == []
    assert len(made.figures) == 4
    for ours, theirs in zip(fixed.metrics, made.figures, strict=True):
        assert ours.table(Folder.METRICS).equals(theirs.table(Folder.METRICS))

"""The whole chain and a sweep where all that can be is missing: the same tables and weights as on disk.

The cluster has no node for work until an autoscaler brings one or two, the object store fails one request in ten, and
head, nodes and driver are lost on the way. ``FAULT_SEEDS`` (environment, default 1) is the number of runs, each with
other faults, ``SWEEP_KILLS`` (default 0) how often each loses its cluster.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import clusters
import fault_proxy
from ray_asd import build, grid, store
from ray_asd.build import Output
from ray_asd.tables import Folder
from stages import chain

pytestmark = pytest.mark.slow

SEEDS, KILLS = int(os.environ.get("FAULT_SEEDS", "1")), int(os.environ.get("SWEEP_KILLS", "0"))
RATE = 0.1
SWEEP = """\
import json, sys
import ray
from ray_asd import grid
from ray_asd.engine import connection
from stages import chain
recordings, root, cells = sys.argv[1:]
with connection.connected():
    cpus = ray.cluster_resources().get("CPU", 0)
    clips = chain.ingested(recordings, root, dataset="fleet")
    sweep = chain.swept(grid.load(cells, "tiny", chain.BASELINE_SETTINGS), clips, root)
figures, failed = [output.uri for output in sweep.metrics], [error for _, error in sweep.failed]
print(json.dumps({"cpus": cpus, "clips": clips.uri, "figures": figures, "failed": failed}))
"""
GRID = """\
- {backbone: hubert, WS: true, SA: true, TFP: true}
- {backbone: hubert, WS: true, SA: true, TFP: true, set: {scoring.backend: {whiten: 0.5}}}
"""
BEFORE_A_KILL = range(2, 12)  # so many stages are done, of some fourteen
STAGES = {"model": "tfp", "detector": "enroll", "scores": "score", "metrics": "evaluate"}


@dataclass(frozen=True)
class Sweeping:
    """One and the same ingest and sweep, by a process of its own as often as a test likes, each on another cluster."""

    recordings: str
    root: str
    folder: Path
    proxy: fault_proxy.Proxy  # the object store of all nodes

    def killed(self, done: int, seconds: float) -> None:
        """Lose the driver, the head and the only node so long after so many stages are done."""
        with self._cluster(most=1) as cluster, self._driver(cluster) as driver:
            while driver.poll() is None and len(self.attempts()) < done:
                time.sleep(1.0)
            time.sleep(seconds)
            driver.send_signal(signal.SIGKILL)
            cluster.kill()
        assert driver.returncode == -signal.SIGKILL, self._log.read_text()

    def ended(self) -> dict[str, Any]:
        """What it told at its end, and how many ``nodes`` it left."""
        with self._cluster(most=2) as cluster, self._driver(cluster) as driver:
            said, _ = driver.communicate(timeout=500)
            nodes = cluster.nodes()
        assert driver.returncode == 0, self._log.read_text()
        told: dict[str, Any] = json.loads(said.splitlines()[-1])
        return told | {"nodes": nodes}

    def attempts(self) -> dict[str, str]:
        """The attempt that each finished stage was made by."""
        stages = [store.join(self.root, stage) for stage in store.folders(self.root)]
        folders = [store.join(stage, name) for stage in stages for name in store.folders(stage)]
        return {folder: output.marker.attempt for folder in folders if (output := build.find(folder))}

    def _cluster(self, most: int) -> "contextlib.AbstractContextManager[clusters.Cluster]":
        search = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        variables = {"AWS_ENDPOINT_URL": self.proxy.url, "PYTHONPATH": search}
        return clusters.cluster(self.folder, most=most, variables=variables)

    def _driver(self, cluster: clusters.Cluster) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", SWEEP, self.recordings, self.root, str(self.folder / "grid.yaml")]
        with self._log.open("w") as stderr:
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=cluster.environment)

    @property
    def _log(self) -> Path:
        return self.folder / "log"


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


@pytest.mark.timeout(900 + 300 * KILLS)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_lost_on_the_way_it_ends_with_the_same_tables(
    system: chain.Chain, bucket: str, tmp_path: Path, seed: int
) -> None:
    """What was finished is not made again. On a single CPU its trainings and pipelines wait for each other."""
    recordings, root = store.join(bucket, "fleet"), store.join(bucket, "root")
    for entry in store.listing(system.recordings):
        store.upload(Path(system.recordings, entry.path), store.join(recordings, entry.path))
    cells = tmp_path / "grid.yaml"
    cells.write_text(GRID)
    draw = random.Random(seed)
    with fault_proxy.running(os.environ["AWS_ENDPOINT_URL"], "--seed", str(seed), "--rate", str(RATE)) as proxy:
        sweeping = Sweeping(recordings, root, tmp_path, proxy)
        finished: dict[str, str] = {}
        for done in sorted(draw.sample(BEFORE_A_KILL, KILLS)):
            sweeping.killed(done, draw.uniform(0, 2))
            assert sweeping.attempts().items() >= finished.items()
            finished = sweeping.attempts()
            assert len(finished) >= done
        told = sweeping.ended()
        assert told["failed"] == [], told["failed"]
        requests, faults = proxy.statistics()
        kinds = proxy.faults()
    assert sweeping.attempts().items() > finished.items()
    assert (told["cpus"], told["nodes"]) == (0, 3), "it began with a head alone"
    assert set(kinds) == set(fault_proxy.KINDS)
    assert kinds.total() > RATE * requests / 2
    for method in ("GET", "PUT"):  # which kinds a method meets is up to the seed; tests/store has all
        assert sum(count for what, count in faults.items() if what.startswith(method)), faults
    made = {name: getattr(system, name).uri.replace(system.root, root, 1) for name in STAGES} | {"clips": told["clips"]}
    found = {name: build.resolve(uri, STAGES.get(name, "ingest")) for name, uri in made.items()}
    same_as_on_disk(system, chain.Chain(root, recordings, **found))
    fixed_root = chain.copied(system.root, str(tmp_path / "fixed"), system.metrics)
    fixed = chain.swept(grid.load(str(cells), "tiny", chain.BASELINE_SETTINGS), system.clips, fixed_root)
    assert fixed.failed == []
    assert len(told["figures"]) == 2
    for output, uri in zip(fixed.metrics, told["figures"], strict=True):
        assert output.table(Folder.METRICS).equals(build.resolve(uri, "evaluate").table(Folder.METRICS))


def same_as_on_disk(clean: chain.Chain, faulty: chain.Chain) -> None:
    same_tables(clean, faulty)
    for ours, theirs in ((clean.base, faulty.base), (clean.model, faulty.model)):
        assert ours.marker.digest == theirs.marker.digest
        assert learned(ours) == learned(theirs)
    waves, same_waves = (chained.originals.files("waves") for chained in (clean, faulty))
    assert [file.sha256 for file in waves] == [file.sha256 for file in same_waves]

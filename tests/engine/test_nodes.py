"""Which nodes hold which work, on a real cluster of several raylets; and work that waits for one of them."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ray_asd.engine import nodes, patience
from ray_asd.engine.nodes import Node
from ray_asd.errors import UserError

NODES = [Node({"CPU": 4.0, "GPU": 1.0}, {"gpu": "h100", "zone": "a"}), Node({"CPU": 8.0}, {"zone": "b"})]


@pytest.mark.parametrize(
    ("needs", "labels", "rooms"),
    [
        ({"CPU": 1.0}, {}, [4, 8]),
        ({"CPU": 3.0}, {}, [1, 2]),
        ({"CPU": 0.1}, {}, [40, 80]),
        ({"CPU": 1.0, "GPU": 0.5}, {}, [2, 0]),
        ({"CPU": 1.0}, {"gpu": "h100"}, [4, 0]),
        ({"CPU": 1.0}, {"gpu": "!h100"}, [0, 8]),
        ({"CPU": 1.0}, {"zone": "in(b, c)"}, [0, 8]),
        ({"CPU": 1.0}, {"zone": "!in(b, c)"}, [4, 0]),
        ({"CPU": 1.0}, {"zone": "a", "gpu": "a100"}, [0, 0]),
        ({}, {}, [float("inf")] * 2),
    ],
)
def test_rooms_are_counted_node_by_node(needs: dict[str, float], labels: dict[str, str], rooms: list[float]) -> None:
    assert [node.room(needs, labels) for node in NODES] == rooms


def test_sizes_are_told_in_one_line() -> None:
    told = nodes.described([*NODES, NODES[1]], ["CPU", "GPU"])
    assert told == "1 node of 4 CPU, 1 GPU and 2 nodes of 8 CPU, 0 GPU"


@pytest.mark.parametrize("given", ["", "soon", "0", "-1"])
def test_patience_is_minutes(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv(patience.WAIT_VARIABLE, given)
    with pytest.raises(UserError, match=f"^RAY_ASD_WAIT_MINUTES='{given}'; allowed: minutes, a number above 0$"):
        patience.minutes()
    monkeypatch.setenv(patience.WAIT_VARIABLE, "0.5")
    assert patience.minutes() == 0.5


_WORK = """
import sys, time
import pyarrow as pa
import ray
from ray_asd.build import Attempt
from ray_asd.config import Worker
from ray_asd.engine import connection, cutting, placement, shards, waiting
from ray_asd.engine.shards import Done

waiting._SAID_SECONDS = 3.0

class Note:
    def __call__(self, rows, attempt, name):
        return Done([attempt.put(name, ray.get_runtime_context().get_node_id().encode())], {"rows": len(rows)})

def work(place):
    table = pa.table({"number": range(8)})
    tell = lambda what, done, total: print(what, done, flush=True)
    return shards.run("note", Note, cutting.rows(table, 1), Attempt(place), worker=Worker(cpus=2), progress=tell)

def refused(**worker):
    begun = time.monotonic()
    try:
        placement.check_fits("train", Worker(**worker), 2)
    except Exception as error:
        print(type(error).__name__, error, flush=True)
    assert time.monotonic() - begun < 5

class Holder:
    def ready(self):
        return True

with connection.connected():
    if sys.argv[1] == "refused":
        refused(cpus=3)
        refused(cpus=1, labels={"kind": "quick"})
        refused(cpus=1, labels={"kind": "slow"})
    else:
        hold = ray.remote(num_cpus=2)(Holder)
        held = [hold.remote() for _ in range(2)]
        ray.get([actor.ready.remote() for actor in held])
        print("held", flush=True)
        if sys.argv[1] == "freed":
            import threading
            threading.Timer(8, lambda: [ray.kill(actor) for actor in held]).start()
        try:
            print(work(sys.argv[2]).counts, flush=True)
        except Exception as error:
            print(type(error).__name__, error, flush=True)
"""


class Cluster:
    """A head without CPUs and two nodes of two, as raylets of their own on loopback."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._started = folder, list[subprocess.Popen[bytes]]()
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        gone = ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH")
        own = {name: value for name, value in os.environ.items() if name not in gone}
        self.environment = own | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        port = 20_300 + os.getpid() % 5_000
        self._start("--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false")
        self.environment["RAY_ADDRESS"] = f"127.0.0.1:{port}"
        for kind in ("slow", "slow"):
            self._start(f"--address=127.0.0.1:{port}", "--num-cpus=2", f"--labels=kind={kind}")

    def _start(self, *arguments: str) -> None:
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--node-ip-address=127.0.0.1"]
        command += ["--disable-usage-stats", *arguments]
        with (self._folder / "log").open("ab") as log:
            process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)
        self._started.append(process)

    def run(self, *arguments: str, **environment: str) -> list[str]:
        command = [sys.executable, "-c", _WORK, *arguments]
        done = subprocess.run(
            command, env=self.environment | environment, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def up(self) -> None:
        code = (
            "import ray, sys, time\\nray.init(log_to_driver=False, logging_level='ERROR')\\n"
            "while sum(node['Alive'] for node in ray.nodes()) < 3: time.sleep(0.2)"
        ).replace("\\n", "\n")
        deadline = time.monotonic() + 120
        while subprocess.run([sys.executable, "-c", code], env=self.environment, capture_output=True).returncode:
            assert time.monotonic() < deadline, (self._folder / "log").read_text()[-2000:]

    def end(self) -> None:
        for process in reversed(self._started):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("nodes"))
    try:
        made.up()
        yield made
    finally:
        made.end()


def test_what_no_node_holds_is_refused_with_their_sizes(cluster: Cluster) -> None:
    too_large, elsewhere, *rest = cluster.run("refused")
    sizes = "the cluster has 1 node of 0 CPU and 2 nodes of 2 CPU"
    assert too_large == f"UserError train needs 2 x (3 CPU); {sizes}"
    assert elsewhere == f"UserError train needs 2 x (1 CPU) on nodes with kind=quick; {sizes}"
    assert rest == []


def test_a_busy_cluster_is_waited_for_and_that_is_told(cluster: Cluster, tmp_path: Path) -> None:
    held, *told, counts = cluster.run("freed", str(tmp_path / "parts"))
    assert held == "held"
    assert "note  waits for 1 x (2 CPU), free are 0 CPU 0" in told
    assert counts == "{'rows': 8}"
    nodes_used = {path.read_text() for path in (tmp_path / "parts").iterdir() if path.is_file()}
    assert len(nodes_used) == 2, "both nodes worked"


def test_a_wait_has_an_end(cluster: Cluster, tmp_path: Path) -> None:
    *_, last = cluster.run("held", str(tmp_path / "parts"), **{patience.WAIT_VARIABLE: "0.1"})
    assert last == "Retryable note: waited 0.1 minutes for 1 x (2 CPU); free are 0 CPU"

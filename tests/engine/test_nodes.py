"""Which nodes hold which work, on a real cluster of several raylets; and work that waits for one of them."""

import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from ray_asd import build
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
import os, sys, threading, time
import pyarrow as pa
import ray
from ray.cluster_utils import Cluster
from ray_asd.build import Attempt
from ray_asd.config import Worker
from ray_asd.engine import connection, cutting, placement, shards, waiting
from ray_asd.engine.receipts import Done

waiting._SAID_SECONDS = 3.0
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
for _ in range(2):
    cluster.add_node(num_cpus=2, labels={"kind": "slow"})

class Note:
    def __call__(self, rows, attempt, name):
        time.sleep(0.5)
        return Done([attempt.put(name, ray.get_runtime_context().get_node_id().encode())], {"rows": len(rows)})

class Holder:
    def ready(self):
        return True

def refused(**worker):
    begun = time.monotonic()
    try:
        placement.check_fits("train", Worker(**worker), 2)
    except Exception as error:
        print(type(error).__name__, error)
    assert time.monotonic() - begun < 5

def work(place):
    table = pa.table({"number": range(8)})
    tell = lambda what, done, total: print(what, done)
    try:
        done = shards.run(
            "note", Note, cutting.rows(table, 1), Attempt(place), worker=Worker(cpus=2), progress=tell
        )
        print(done.counts)
    except Exception as error:
        print(type(error).__name__, error)

os.environ["RAY_ADDRESS"] = cluster.address
with connection.connected():
    refused(cpus=3)
    refused(cpus=1, labels={"kind": "quick"})
    refused(cpus=1, labels={"kind": "slow"})
    hold = ray.remote(num_cpus=2)(Holder)
    held = [hold.remote() for _ in range(2)]
    ray.get([actor.ready.remote() for actor in held])
    os.environ["RAY_ASD_WAIT_MINUTES"] = "0.1"
    work(sys.argv[1])
    del os.environ["RAY_ASD_WAIT_MINUTES"]
    print("once more")
    threading.Timer(8, lambda: [ray.kill(actor) for actor in held]).start()
    work(sys.argv[2])
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """What such work says on a head without CPUs and two nodes of two, and where its last run wrote."""
    folder = tmp_path_factory.mktemp("nodes")
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_A")}
    environment = own | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    places = [str(folder / name / build.PARTS) for name in ("held", "freed")]
    command = [sys.executable, "-c", _WORK, *places]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), Path(places[1])


def test_what_no_node_holds_is_refused_with_their_sizes(told: tuple[list[str], Path]) -> None:
    too_large, elsewhere = told[0][:2]
    sizes = "the cluster has 1 node of 0 CPU and 2 nodes of 2 CPU"
    assert too_large == f"UserError train needs 2 x (3 CPU); {sizes}"
    assert elsewhere == f"UserError train needs 2 x (1 CPU) on nodes with kind=quick; {sizes}"
    assert told[0][2].startswith("note"), "the third one fits"


def test_a_wait_has_an_end(told: tuple[list[str], Path]) -> None:
    last = told[0][told[0].index("once more") - 1]
    assert last == "Retryable note: waited 0.1 minutes for 1 x (2 CPU); free are 0 CPU"


def test_a_busy_cluster_is_waited_for_and_that_is_told(told: tuple[list[str], Path]) -> None:
    lines = told[0][told[0].index("once more") :]
    assert "note  waits for 1 x (2 CPU), free are 0 CPU 0" in lines
    assert lines[-1] == "{'rows': 8}"
    worked_on = {path.read_text() for path in told[1].iterdir() if path.is_file()}
    assert len(worked_on) == 2, "both nodes"

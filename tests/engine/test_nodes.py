"""Which nodes hold which work, on a real cluster of several raylets; and work that waits for one of them."""

import subprocess
import sys
from pathlib import Path

import pytest

import clusters
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
import os, signal, sys, threading, time
import pyarrow as pa
import ray
import torch
from ray.util import placement_group_table
from ray_asd.build import Attempt, Outcome
from ray_asd.config import Optimisation, Worker
from ray_asd.engine import connection, cutting, placement, shards, waiting, worker_group
from ray_asd.engine.receipts import Done
from ray_asd.store.lease import Fence

waiting._SAID_SECONDS = 1.0

class Note:
    def __call__(self, rows, attempt, name):
        time.sleep(0.5)
        return Done([attempt.put(name, ray.get_runtime_context().get_node_id().encode())], {"rows": len(rows)})

class Square:
    num_items, module = 8, torch.nn.Linear(1, 1)
    def batch(self, draws, step): return (torch.ones(len(draws), 1),)
    def finish(self): pass
    def save(self, attempt): return Outcome([], {})

class Objective:
    seed, settings = 0, Optimisation(steps=4, batch_size=4, workers=2)
    def prepare(self): return Square()

class Holder:
    def ready(self): return True

def tell(what, done, total):
    print(what, done)

def said(act):
    begun = time.monotonic()
    try:
        print(act())
    except Exception as error:
        print(type(error).__name__, error)
    return time.monotonic() - begun

def refused(**worker):
    assert said(lambda: placement.check_fits("train", Worker(**worker), 2)) < 5

def work(place):
    rows, attempt = cutting.rows(pa.table({"number": range(8)}), 1), Attempt(sys.argv[1] + place)
    said(lambda: shards.run("note", Note, rows, attempt, worker=Worker(cpus=2), progress=tell).counts)

def train(place):
    folder = sys.argv[1] + "/" + place
    attempt = Attempt(folder + "/attempt", Fence(folder, 1))
    said(lambda: worker_group.fit("train", Objective(), Worker(cpus=2), attempt, tell))
    deadline = time.monotonic() + 5
    while any(group["state"] != "REMOVED" for group in placement_group_table().values()):
        assert time.monotonic() < deadline, placement_group_table()
        time.sleep(0.2)

with connection.connected():
    refused(cpus=3)
    refused(cpus=1, labels={"kind": "quick"})
    refused(cpus=1, labels={"kind": "slow"})
    hold = ray.remote(num_cpus=2)(Holder)
    held = [hold.remote() for _ in range(2)]
    ray.get([actor.ready.remote() for actor in held])
    os.environ["RAY_ASD_WAIT_MINUTES"] = "0.05"
    work("/held/parts")
    train("unplaced")
    del os.environ["RAY_ASD_WAIT_MINUTES"]
    print("once more")
    threading.Timer(4, lambda: [ray.kill(actor) for actor in held]).start()
    work("/freed/parts")
    print("stopped")
    held = [hold.remote() for _ in range(2)]
    ray.get([actor.ready.remote() for actor in held])
    threading.Timer(2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    train("stopped")
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """What such work says on a head without CPUs and two nodes of two, and where it wrote."""
    folder = tmp_path_factory.mktemp("nodes")
    nodes = [{"num_cpus": 2, "labels": {"kind": "slow"}}] * 2
    with clusters.cluster(folder, nodes) as cluster:
        command = [sys.executable, "-c", _WORK, str(folder)]
        done = subprocess.run(
            command, env=cluster.environment, capture_output=True, text=True, timeout=240, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines(), folder


def test_what_no_node_holds_is_refused_with_their_sizes(told: tuple[list[str], Path]) -> None:
    too_large, elsewhere = told[0][:2]
    sizes = "the cluster has 1 node of 0 CPU and 2 nodes of 2 CPU"
    assert too_large == f"UserError train needs 2 x (3 CPU); {sizes}"
    assert elsewhere == f"UserError train needs 2 x (1 CPU) on nodes with kind=quick; {sizes}"
    assert told[0][2] == "None", "the third one fits"


def test_a_wait_has_an_end(told: tuple[list[str], Path]) -> None:
    """Of shards and of a training; nothing of it waits on inside Ray."""
    lines = told[0][: told[0].index("once more")]
    ends = [line for line in lines if line.startswith("Unplaced")]
    assert ends == [
        "Unplaced note: waited 0.05 minutes for 1 x (2 CPU); free are 0 CPU",
        "Unplaced train: waited 0.05 minutes for 2 x (2 CPU); free are 0 CPU",
    ]
    assert "train  waits for 2 x (2 CPU), free are 0 CPU 0" in lines


def test_a_busy_cluster_is_waited_for_and_that_is_told(told: tuple[list[str], Path]) -> None:
    lines = told[0][told[0].index("once more") : told[0].index("stopped")]
    assert "note  waits for 1 x (2 CPU), free are 0 CPU 0" in lines
    assert lines[-1] == "{'rows': 8}"
    worked_on = {path.read_text() for path in (told[1] / "freed/parts").iterdir() if path.is_file()}
    assert len(worked_on) == 2, "both nodes"


def test_sigterm_ends_a_training_that_waits(told: tuple[list[str], Path]) -> None:
    assert told[0][-1] == "Retryable stopped by SIGTERM; the same command goes on where it was"

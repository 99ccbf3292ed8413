"""The cluster on one machine: three nodes behind a token, jobs through it, and nothing of it left.

``CLUSTER_JOBS`` (environment) has more of the work done by jobs.
"""

import ipaddress
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

import processes
from commands import module_at, run
from ray_asd import build
from ray_asd.build import Output
from ray_asd.data import simulate
from ray_asd.data.simulate import Fleet
from ray_asd.engine import telemetry
from ray_asd.tables import Folder

ROOT = Path(__file__).parents[2]
MORE_JOBS = "CLUSTER_JOBS" in os.environ
LOCAL = [sys.executable, str(ROOT / "cluster/local.py")]


@pytest.fixture
def clean() -> dict[str, str]:
    """The environment without what these tests have set for a Ray of their own."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}


@pytest.fixture
def cluster(clean: dict[str, str]) -> Iterator[tuple["subprocess.Popen[str]", dict[str, str], int]]:
    """Its process, what it says to export, and the head's port."""
    port, dashboard = processes.free_ports(2)
    command = [*LOCAL, "--port", str(port), "--dashboard-port", str(dashboard)]
    settings = {"RAY_metrics_report_interval_ms": "200", "RAY_worker_niceness": "0"}
    with subprocess.Popen(command, env=clean | settings, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout
            said = [program.stdout.readline().partition("#")[0].split()[1:] for _ in range(2)]
            exported = dict(word.split("=", 1) for line in said for word in line)
            exported["METRICS"] = program.stdout.readline().partition("reads ")[2]
            yield program, exported, port
        finally:
            program.terminate()
            program.wait()


@dataclass(frozen=True)
class Submitter:
    """Jobs to a running cluster, as its user submits them."""

    exported: dict[str, str]
    clean: dict[str, str]

    def __call__(self, *arguments: str, options: Sequence[str] = ()) -> "subprocess.Popen[str]":
        command = [sys.executable, str(ROOT / "jobs/submit.py"), *options, "--", *arguments]
        environment = self.clean | self.exported
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ended(self, *arguments: str) -> dict[str, Any]:
        """The summary of a job that ended well."""
        out, err = self(*arguments, "--json").communicate(timeout=300)
        assert out, err
        summary: dict[str, Any] = json.loads(out.splitlines()[-1])
        assert summary["status"] == "done", out + err
        return summary

    def asked(self, path: str, **headers: str) -> requests.Response:
        return requests.get(f"{self.exported['RAY_API_SERVER_ADDRESS']}{path}", headers=headers, timeout=60)

    @property
    def token(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {Path(self.exported['RAY_AUTH_TOKEN_PATH']).read_text()}"}


@pytest.mark.usefixtures("ray_session")
def test_from_recordings_to_a_night_by_jobs_and_strangers_are_turned_away(
    cluster: tuple["subprocess.Popen[str]", dict[str, str], int], clean: dict[str, str], tmp_path: Path
) -> None:
    """At last the head is lost while a job is followed, and nothing of the cluster is left."""
    program, exported, port = cluster
    submit = Submitter(exported, clean)
    assert Path(exported["RAY_AUTH_TOKEN_PATH"]).stat().st_mode & 0o077 == 0
    check_walls(submit, port)
    tables = from_recordings_to_a_night(submit, tmp_path)
    assert tables["night"].table(Folder.SCORES).num_rows == 4
    check_no_secret_reaches_a_job(submit)
    nodes = processes.below(program.pid, b"")
    assert sum(b"raylet/raylet" in line.split(b"\0")[0] for line in nodes.values()) == 3
    assert_as_the_guide_says(nodes)

    recordings = ["--machines", "fan", "--train", "9000", "--test", "1"]
    job = submit("simulate", str(tmp_path / "long"), *recordings, options=["--patience", "3"])
    assert job.stderr
    assert next(job.stderr).startswith("job ")
    processes.kill(pid for pid, line in nodes.items() if b"gcs_server" in line or b"dashboard.py" in line)
    assert job.wait(120) == 75
    assert "the dashboard has not answered for 3 s; the job may still run" in job.stderr.read()
    assert program.wait(60) == 1
    processes.wait_for(lambda: not any(map(processes.is_alive, nodes)))
    assert not Path(exported["RAY_AUTH_TOKEN_PATH"]).exists()


def check_walls(submit: Submitter, port: int) -> None:
    dashboard = submit.exported["RAY_API_SERVER_ADDRESS"]
    assert requests.post(f"{dashboard}/api/jobs/", json={"entrypoint": "true"}, timeout=60).status_code == 401
    own = socket.gethostbyname(socket.gethostname())
    if own != "127.0.0.1":
        assert not processes.is_open(own, int(dashboard.rpartition(":")[2])), "the dashboard is on loopback"
        assert processes.is_open(own, port), "the GCS is on all interfaces: what the guide warns of"


def from_recordings_to_a_night(submit: Submitter, folder: Path) -> dict[str, Output]:
    """What the jobs made, by name; with ``MORE_JOBS`` one enrols, too, and others score and sweep."""
    healthy, root, registry = str(folder / "healthy"), str(folder / "runs"), str(folder / "registry")
    simulate.write(Fleet(("fan",), train_source=22, train_target=2, test=1, seconds=1.0), healthy)
    with ThreadPoolExecutor(1) as pool:
        ingest = pool.submit(submit.ended, "ingest", healthy, "--out", root)
        seen = scraped(submit.exported["METRICS"].split(), ingest)
    assert seen.keys() >= {("asd_clips", "ingest"), ("asd_left", "ingest"), ("asd_cache_bytes", None)}
    assert {name for name, _ in seen} <= telemetry.FIGURES.keys()
    clips = ingest.result()["outputs"]["clips"]
    assert seen["asd_clips", "ingest"] == ingest.result()["counts"]["clips"] == 28
    enrol = ("enroll", "--model", "spectral", "--clips", clips, "--out", root, "--json")
    detector = (submit.ended(*enrol) if MORE_JOBS else run(*enrol).summary)["outputs"]["detector"]
    assert run("release", "--detector", detector, "--to", registry).code == 0
    (folder / "in").mkdir()
    for number, path in enumerate(sorted(Path(healthy).glob("fan/test/*"))):
        (folder / "in" / f"fan_7_20261125T0{number}0000.wav").write_bytes(path.read_bytes())
    pattern = "{machine_type}_{machine_id}_{recorded_at:%Y%m%dT%H%M%S}.wav"
    night = ["--registry", registry, "--source", str(folder / "in"), "--pattern", pattern, "--night", "2026-11-25"]
    made = {"night": submit.ended("nightly", *night, "--out", str(folder / "fleet"))["outputs"]["night"]}
    if MORE_JOBS:
        made["scores"] = submit.ended("score", "--detector", detector, "--clips", clips, "--out", root)["outputs"][
            "scores"
        ]
        (folder / "grid.yaml").write_text("- {backbone: hubert, WS: false, SA: false, TFP: false}\n")
        sweep = ["sweep", "--recipe", "tiny", "--grid", str(folder / "grid.yaml"), "--set", "training=null"]
        submit.ended(*sweep, "--clips", clips, "--out", root)
    found = {name: build.find(uri) for name, uri in made.items()}
    return {name: output for name, output in found.items() if output}


def check_no_secret_reaches_a_job(submit: Submitter) -> None:
    refused = submit("ingest", "s3://AKIA:Sentinel@plant/in", "--out", "x")
    said = "".join(refused.communicate(timeout=60))
    assert (refused.returncode, "Sentinel" in said) == (2, False)
    jobs = submit.asked("/api/jobs/", **submit.token)
    ran = {str(job["entrypoint"]).split()[1] for job in jobs.json()}
    assert {f"jobs/{name}.py" for name in ("ingest", "nightly", *["enroll"] * MORE_JOBS)} <= ran
    assert "Sentinel" not in jobs.text


KINDS = {
    b"gcs_server": "gcs_server",
    b"raylet/raylet": "raylet",
    b"ray::DashboardAgent": "agent",
    b"ray::RuntimeEnvAgent": "runtime environment agent",
    b"dashboard/dashboard.py": "dashboard",
    b"_private/monitor.py": "autoscaler",
    b"ray.util.client.server": "Ray Client",
    b"ray::": "worker",
}
"""Part of a command line, first match, and what the guide calls the process."""


def assert_as_the_guide_says(nodes: dict[int, bytes]) -> None:
    """Which interfaces each kind of process listens on."""
    guide = (ROOT / "cluster/README.md").read_text()
    section = guide.partition("**What Ray leaves open.**")[2].partition("**What stays.**")[0]
    rows = re.findall(
        r"^\| `?([^|`]+?)`? \| ([^|]+) \| [^|]+ \|$", section.partition("**What stays.**")[0], re.MULTILINE
    )
    words = {"all interfaces": "all", "the node's address": "node", "loopback": "loopback"}
    told = {kind: {short for long, short in words.items() if long in where} for kind, where in rows}
    assert told.keys() >= set(KINDS.values())
    for process, line in nodes.items():
        kind = next((KINDS[part] for part in KINDS if part in line), None)
        for address, _ in processes.listening(process):
            ip = ipaddress.ip_address(address)
            ip = getattr(ip, "ipv4_mapped", None) or ip
            where = "all" if ip.is_unspecified else "loopback" if ip.is_loopback else "node"
            assert kind is not None, line
            assert where in told[kind] or (where == "loopback" and "node" in told[kind]), (kind, address)


def scraped(endpoints: list[str], job: "Future[dict[str, Any]]") -> dict[tuple[str, str | None], float]:
    """The last value of each of our figures, by name and stage, read as Prometheus does until a job has ended well."""
    seen: dict[tuple[str, str | None], float] = {}
    ended = False
    while not ended:
        time.sleep(0.5)
        ended = job.done()  # asked before the last look: what a process counts is told by its end at the latest
        for endpoint in endpoints:
            try:
                said = requests.get(endpoint, timeout=60).text
            except requests.ConnectionError:  # the node's agent is not up yet
                continue
            for family in text_string_to_metric_families(said):
                if family.name.startswith("ray_asd_"):
                    name = family.name.removeprefix("ray_").removesuffix("_total")
                    seen.update({(name, sample.labels.get("stage")): sample.value for sample in family.samples})
    job.result()
    return seen


@pytest.mark.parametrize(("said", "starts"), [("Exception: The current node timed out during startup.", 3), ("no", 1)])
def test_a_node_that_was_too_slow_is_started_anew(tmp_path: Path, said: str, starts: int) -> None:
    """Twice; what is wrong in another way is told at once. Its end leaves the nodes before it as they are."""
    local = module_at(ROOT / "cluster/local.py")
    begun: list[Any] = []

    def node(command: str) -> Any:
        log = tmp_path / str(len(begun))
        with log.open("wb") as output:
            process = subprocess.Popen(["sh", "-c", command], stdout=output, start_new_session=True)
        begun.append(local.Node(f"node-{len(begun)}", process, log, ""))
        return begun[-1]

    nodes: list[Any] = []
    local._add(nodes, lambda: node("sleep 600"), lambda: True)
    try:
        with pytest.raises(click.ClickException, match=f"^node-{starts} has ended with 7: {said}$"):
            local._add(nodes, lambda: node(f"echo '{said}'; exit 7"), lambda: False)
        assert len(begun) == 1 + starts
        assert nodes == [begun[0], begun[-1]]
        assert begun[0].process.poll() is None
    finally:
        local._end(nodes)
    assert begun[0].process.poll() is not None


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run([*LOCAL, "--port", port], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"Error: port {port} is taken: is a cluster running already? else choose another one"
    ]

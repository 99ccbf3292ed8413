"""The cluster on one machine: three nodes behind a token, a job through it, and nothing of it left."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

import processes
from ray_asd.engine import telemetry

ROOT = Path(__file__).parents[2]
LOCAL = [sys.executable, str(ROOT / "cluster/local.py")]


@pytest.fixture
def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("RAY_A", "AWS_"))}


@pytest.fixture
def cluster(clean: dict[str, str]) -> Iterator[tuple["subprocess.Popen[str]", dict[str, str], int]]:
    """Its process, what it says to export, and the head's port."""
    port, dashboard = processes.free_ports(2)
    command = [*LOCAL, "--port", str(port), "--dashboard-port", str(dashboard)]
    often = {"RAY_metrics_report_interval_ms": "200"}
    with subprocess.Popen(command, env=clean | often, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout
            said = [program.stdout.readline().partition("#")[0].split()[1:] for _ in range(2)]
            exported = dict(word.split("=", 1) for line in said for word in line)
            exported["METRICS"] = program.stdout.readline().partition("reads ")[2]
            yield program, exported, port
        finally:
            program.terminate()
            program.wait()


def test_a_job_runs_on_its_workers_and_strangers_are_turned_away(
    cluster: tuple["subprocess.Popen[str]", dict[str, str], int], clean: dict[str, str], tmp_path: Path
) -> None:
    program, exported, port = cluster
    dashboard = exported["RAY_API_SERVER_ADDRESS"]
    assert Path(exported["RAY_AUTH_TOKEN_PATH"]).stat().st_mode & 0o077 == 0
    assert requests.post(f"{dashboard}/api/jobs/", json={"entrypoint": "true"}, timeout=60).status_code == 401
    own = socket.gethostbyname(socket.gethostname())
    if own != "127.0.0.1":
        assert not is_open(own, int(dashboard.rpartition(":")[2])), "the dashboard is on loopback"
        assert is_open(own, port), "the GCS is on all interfaces: what the README warns of"

    def job(*arguments: str) -> dict[str, object]:
        command = [sys.executable, str(ROOT / "jobs/submit.py"), "--", *arguments, "--json"]
        done = subprocess.run(command, env=clean | exported, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        summary: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
        return summary

    fleet = ["--machines", "fan", "--train", "2", "--train-target", "1", "--test", "1", "--seconds", "1"]
    job("simulate", str(tmp_path / "fleet"), *fleet)
    with ThreadPoolExecutor(1) as pool:
        ingest = pool.submit(job, "ingest", str(tmp_path / "fleet"), "--out", str(tmp_path / "runs"))
        seen = scraped(exported["METRICS"].split(), lambda seen: ("asd_clips", "ingest") in seen and ingest.done())
    assert seen.keys() >= {("asd_left", "ingest"), ("asd_cache_bytes", None)}
    counts = ingest.result()["counts"]
    assert isinstance(counts, dict)
    assert counts["clips"] == seen["asd_clips", "ingest"] > 0
    assert {name for name, _ in seen} <= telemetry.FIGURES.keys()

    wrong = [sys.executable, str(ROOT / "jobs/submit.py"), "--", "ingest", "s3://AKIA:Sentinel@plant/in", "--out", "x"]
    refused = subprocess.run(wrong, env=clean | exported, capture_output=True, text=True, check=False)
    assert (refused.returncode, "Sentinel" in refused.stdout + refused.stderr) == (2, False)
    token = {"Authorization": f"Bearer {Path(exported['RAY_AUTH_TOKEN_PATH']).read_text()}"}
    jobs = requests.get(f"{dashboard}/api/jobs/", headers=token, timeout=60)
    assert sorted(str(job["entrypoint"]).split()[1] for job in jobs.json()) == ["jobs/ingest.py", "jobs/simulate.py"]
    assert "Sentinel" not in jobs.text

    nodes = processes.below(program.pid, b"raylet/raylet")
    assert len(nodes) >= 3
    program.terminate()
    assert program.wait(60) == 0
    assert not any(map(processes.is_alive, nodes))
    assert not Path(exported["RAY_AUTH_TOKEN_PATH"]).exists()


def scraped(
    endpoints: list[str], is_enough: Callable[[dict[tuple[str, str | None], float]], bool]
) -> dict[tuple[str, str | None], float]:
    """The last value of each of our figures, by name and stage, read as Prometheus does while a job runs."""
    seen: dict[tuple[str, str | None], float] = {}

    def look() -> bool:
        for endpoint in endpoints:
            for family in text_string_to_metric_families(requests.get(endpoint, timeout=60).text):
                if family.name.startswith("ray_asd_"):
                    name = family.name.removeprefix("ray_").removesuffix("_total")
                    seen.update({(name, sample.labels.get("stage")): sample.value for sample in family.samples})
        return is_enough(seen)

    processes.wait_for(look)
    return seen


def is_open(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(10)
        return probe.connect_ex((host, port)) == 0


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run([*LOCAL, "--port", port], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"Error: port {port} is taken: is a cluster running already? else choose another one"
    ]

"""What ``ray job submit`` starts, and ``jobs/submit.py`` against a Ray head of its own, with dashboard and token.

``CUT_SECONDS`` (environment, default 3) is how long the network is cut while a job is followed.
"""

import contextlib
import json
import os
import runpy
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from ray.job_submission import JobDetails

import fault_proxy
import processes
from commands import module_at
from ray_asd import cli, store
from ray_asd.cli import console
from ray_asd.data import simulate
from ray_asd.errors import Retryable

JOBS = Path(__file__).parents[1] / "jobs"
NAMES = sorted(path.stem for path in JOBS.glob("*.py") if path.stem not in {"submit", "benchmark"})
AWS = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")


@dataclass(frozen=True)
class Head:
    """A running Ray head: its dashboard, its token and the environment of its clients."""

    address: str
    token: str
    environment: dict[str, str]

    def submit(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(JOBS / "submit.py"), *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=300, check=False)

    def job(self, submission_id: str) -> dict[str, Any]:
        """What the cluster itself says of a job."""
        asked = requests.get(f"{self.address}/api/jobs/{submission_id}", headers=self.bearer, timeout=60)
        asked.raise_for_status()
        found: dict[str, Any] = asked.json()
        return found

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@pytest.fixture(scope="module")
def head(s3: str) -> Iterator[Head]:
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: sockets below it allow 107 characters
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", *AWS))}
    clean |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "OMP_NUM_THREADS": "1",
        "RAY_worker_niceness": "0",
    }
    port, dashboard, agent, client = map(str, processes.free_ports(4))
    options = {"port": port, "dashboard-port": dashboard, "dashboard-agent-listen-port": agent}
    options |= {"ray-client-server-port": client, "dashboard-host": "127.0.0.1", "temp-dir": str(folder / "ray")}
    options |= {"num-cpus": "2", "object-store-memory": "200000000"}
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--disable-usage-stats"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *(f"--{name}={value}" for name, value in options.items())],
            env=clean, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        aws = {name: os.environ[name] for name in AWS}
        started = Head(f"http://127.0.0.1:{dashboard}", token.read_text(), clean | aws)
        try:
            _wait_for(process, started, agent)
            yield started
        finally:
            process.terminate()
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            shutil.rmtree(folder, ignore_errors=True)


def _wait_for(process: subprocess.Popen[bytes], head: Head, agent: str) -> None:
    """Jobs can be submitted once the dashboard answers and the node's agent listens."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.2)
        try:
            asked = requests.get(f"{head.address}/api/jobs/", headers=head.bearer, timeout=60)
        except requests.ConnectionError:
            continue
        if asked.ok and any(processes.is_open(host, int(agent)) for host in ("127.0.0.1", socket.gethostname())):
            return
    raise RuntimeError("the Ray head did not start")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Eight recordings and one file that is none."""
    folder = tmp_path_factory.mktemp("source") / "fleet"
    fleet = simulate.Fleet(machines=("fan",), train_source=3, train_target=1, test=1, seconds=2.0)
    simulate.write(fleet, str(folder), 1, lambda done, total: None)
    (folder / "fan" / "train" / "section_00_source_train_normal_9999_x_1.wav").write_bytes(b"RIFF")
    return str(folder)


def test_there_is_a_job_for_every_command_that_works_on_data() -> None:
    at_the_desk = {"alerts", "ls", "show", "gc", "fetch-weights", "rollback"}
    assert set(NAMES) == set(cli.cli.commands) - at_the_desk


def run_here(name: str, *arguments: str) -> int | str | None:
    """``jobs/NAME.py`` in this process; returns its exit code."""
    path = JOBS / f"{name}.py"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(path), *arguments])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(path), run_name="__main__")
    return ended.value.code


@pytest.mark.parametrize("name", NAMES)
def test_a_job_is_the_command_of_its_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(name, "--help") == 0
    assert f"Usage: ray-asd {name}" in capsys.readouterr().out
    assert f"jobs/{name}.py " in (JOBS / f"{name}.py").read_text()


def test_the_benchmark_job_runs_one_and_refuses_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here("benchmark", "knn", "--bank", "100", "--dim", "8", "--queries", "4", "--repetitions", "1") == 0
    assert "| scikit-learn |" in capsys.readouterr().out
    assert run_here("benchmark", "speed") == 2
    assert "speed" in capsys.readouterr().err


def test_a_job_passes_its_arguments_and_exit_code_on() -> None:
    command = [sys.executable, str(JOBS / "train.py"), "--recipe", "nonsense", "--clips", "c", "--out", "o"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unknown recipe 'nonsense'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--address", "http://127.0.0.1:1", "--", "ls"], "unknown job 'ls'; allowed: benchmark, demo, embed"),
        (["--python", "python", "--", "demo"], "--python 'python': an absolute path is needed"),
        (["--env", "NOT_SET_ANYWHERE", "demo"], "--env NOT_SET_ANYWHERE: no such environment variable"),
        (["--address", "http://127.0.0.1:1", "demo"], "no Ray dashboard answers at http://127.0.0.1:1"),
        (
            ["--working-dir", "/nonexistent", "demo"],
            "Invalid value for '--working-dir': Directory '/nonexistent' does not exist.",
        ),
        (["--addres", "x", "demo"], "No such option"),
        ([], "Missing argument 'NAME'"),
    ],
)
def test_a_wrong_submission_is_one_line_and_exit_code_2(
    submit: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")  # which it changes
    with pytest.raises(SystemExit) as ended:
        console.run(submit.submit, "submit.py", arguments)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert out == ""


def test_the_real_exit_code_comes_back(head: Head, recordings: str, bucket: str) -> None:
    forwarded = [argument for name in AWS for argument in ("--env", name)]
    ingest = ["ingest", recordings, "--out", bucket, "--json"]
    gated = head.submit(
        "--address", head.address, "--submission-id", "gated", *forwarded, "--", *ingest, "--max-rejects", "0"
    )
    assert gated.returncode == 3, gated.stderr
    summary = json.loads(gated.stdout.splitlines()[-1])
    assert summary["status"] == "gate"  # stdout and stderr are one log there, and the summary still its last line
    assert summary["counts"]["clips"] == 8
    assert summary["counts"]["rejects"] == 1
    assert store.exists(f"{summary['outputs']['clips']}/marker.json")
    job = head.job("gated")
    assert job["driver_exit_code"] == 3
    assert job["job_id"], "its driver has joined this cluster, not started a Ray of its own"
    assert sorted(job["runtime_env"]["env_vars"]) == sorted(AWS)

    twice = head.submit("--address", head.address, "--submission-id", "gated", "demo")
    assert twice.returncode == 2
    assert twice.stderr.splitlines()[-1] == "ray-asd: --submission-id 'gated': the cluster has had a job of that name"


def test_sigterm_stops_the_job(head: Head, tmp_path: Path) -> None:
    endless = ["simulate", str(tmp_path / "fleet")]  # thousands of clips
    command = [sys.executable, str(JOBS / "submit.py"), "--address", head.address, "--submission-id", "endless"]
    with subprocess.Popen([*command, *endless], env=head.environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("simulate:" in line for line in process.stdout)
        process.terminate()
        assert process.wait(240) == 1
    assert head.job("endless")["status"] == "STOPPED"


def test_a_dashboard_that_is_away_for_a_while_is_asked_again(head: Head) -> None:
    """A job without a name, by the address of RAY_ADDRESS; no credentials go with it."""
    (port,) = map(str, processes.free_ports(1))
    command = [sys.executable, str(JOBS / "submit.py")]
    command += ["train", "--recipe", "nonsense", "--clips", "c", "--out", "o"]
    environment = head.environment | {"RAY_ADDRESS": f"http://127.0.0.1:{port}"}
    with contextlib.ExitStack() as proxied:
        proxied.enter_context(fault_proxy.running(head.address, "--port", port))
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            name = next(line.split()[1].rstrip(":") for line in process.stderr if line.startswith("job "))
            assert any("waiting for its end" in line for line in process.stderr), "the proxy knows no web sockets"
            proxied.close()
            time.sleep(float(os.environ.get("CUT_SECONDS", "3")))  # for more polls than one
            with fault_proxy.running(head.address, "--port", port):
                assert process.wait(240) == 2
    job = head.job(name)
    assert job["driver_exit_code"] == 2
    assert not job["runtime_env"].get("env_vars")


@pytest.fixture
def submit() -> Any:
    """The module ``jobs/submit.py``."""
    return module_at(JOBS / "submit.py")


def test_a_job_that_did_all_ends_with_0(submit: Any) -> None:
    assert submit._exit_code(JobDetails(type="SUBMISSION", status="SUCCEEDED", entrypoint="true")) == 0


def test_a_dashboard_that_stays_away_is_given_up_for_now(submit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "POLL_SECONDS", 0.01)
    asked = []

    def ask() -> None:
        asked.append(1)
        requests.get("http://127.0.0.1:9")

    with pytest.raises(Retryable, match=r"^job a: the dashboard has not answered for 0.1 s; the job may still run: .*"):
        submit._answer("a", ask, 0.1)
    assert len(asked) > 1


def test_a_wrong_token_is_one_line(head: Head, tmp_path: Path) -> None:
    wrong = tmp_path / "token"
    wrong.write_text(secrets.token_hex(32))
    stranger = Head(head.address, head.token, head.environment | {"RAY_AUTH_TOKEN_PATH": str(wrong)})
    done = stranger.submit("--address", head.address, "demo")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"{head.address} refuses the token" in done.stderr

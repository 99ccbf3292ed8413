"""The CronJob's program against a server that keeps objects as Kubernetes does."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from commands import module_at
from manifests import CLUSTER, built, check

PATH = "/apis/ray.io/v1/namespaces/ray-asd"


def load() -> Any:
    return module_at(CLUSTER / "kubernetes/overlays/nightly-cronjob/start.py")


class Server(ThreadingHTTPServer):
    """Objects by path; ``states`` are what a RayJob says of itself, one at each question, the last for ever."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        (described,) = [found for found in built("nightly-cronjob") if found["kind"] == "RayCronJob"]
        self.objects: dict[str, Any] = {f"{PATH}/raycronjobs/nightly": described}
        self.states: list[tuple[str, str]] = [("Initializing", ""), ("Running", "RUNNING"), ("Complete", "SUCCEEDED")]
        self.refuse: list[int] = []
        self.created = 0


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        found = self.server.objects.get(self.path)
        if found and found["kind"] == "RayJob":
            deployment, job = self.server.states[0]
            self.server.states = self.server.states[1:] or self.server.states
            found = found | {"status": {"jobDeploymentStatus": deployment, "jobStatus": job}}
        self._answer(200 if found else 404, found)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path = f"{self.path}/{body['metadata']['name']}"
        if path in self.server.objects:
            self._answer(409, {})
            return
        check(body)
        self.server.objects[path] = body
        self.server.created += 1
        self._answer(201, body)

    def _answer(self, code: int, body: Any) -> None:
        if self.headers["Authorization"] != "Bearer of-this-pod":
            code, body = 401, {}
        elif self.server.refuse:
            code, body = self.server.refuse.pop(0), {}
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Any:
    module = load()
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.2)
    return module


@pytest.fixture
def kubernetes(start: Any, server: Server, tmp_path: Path) -> Any:
    (tmp_path / "token").write_text("of-this-pod")
    (tmp_path / "ca.crt").touch()
    return start.Kubernetes(f"http://127.0.0.1:{server.server_port}", "ray-asd", tmp_path)


def test_the_night_is_what_the_raycronjob_describes(
    start: Any, kubernetes: Any, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert start.run(kubernetes, "nightly", "nightly-1") == 0
    (described,) = [found for found in built("nightly") if found["kind"] == "RayCronJob"]
    assert server.objects[f"{PATH}/rayjobs/nightly-1"]["spec"] == described["spec"]["jobTemplate"]
    assert caplog.messages == [
        "nightly-1: Initializing, -",
        "nightly-1: Running, RUNNING",
        "nightly-1: Complete, SUCCEEDED",
    ]


@pytest.mark.parametrize(
    "end",
    [("Failed", "FAILED"), ("Failed", ""), ("Complete", "FAILED"), ("Complete", "STOPPED"), ("ValidationFailed", "")],
)
def test_a_night_that_failed_fails(start: Any, kubernetes: Any, server: Server, end: tuple[str, str]) -> None:
    server.states = [("Running", "RUNNING"), ("Retrying", "FAILED"), end]
    assert start.run(kubernetes, "nightly", "nightly-1") == 1


def test_a_second_pod_follows_the_night_of_the_first(start: Any, kubernetes: Any, server: Server) -> None:
    assert start.run(kubernetes, "nightly", "nightly-1") == 0
    assert start.run(kubernetes, "nightly", "nightly-1") == 0
    assert start.run(kubernetes, "nightly", "nightly-2") == 0
    assert server.created == 2


def test_a_server_that_cannot_just_now_is_asked_again(start: Any, kubernetes: Any, server: Server) -> None:
    server.refuse = [503, 500, 503]
    assert start.run(kubernetes, "nightly", "nightly-1") == 0
    server.refuse = [503] * 1000
    with pytest.raises(requests.HTTPError, match="503"):
        start.run(kubernetes, "nightly", "nightly-2")


def test_a_refusal_is_told_at_once(start: Any, kubernetes: Any, server: Server) -> None:
    server.refuse = [403]
    with pytest.raises(requests.HTTPError, match="403"):
        start.run(kubernetes, "nightly", "nightly-1")
    with pytest.raises(requests.HTTPError, match="404"):
        start.run(kubernetes, "no-such-night", "nightly-1")


@pytest.mark.parametrize(("status", "code"), [(None, 75), (503, 75), (403, 1)])
def test_exit_codes(start: Any, monkeypatch: pytest.MonkeyPatch, status: int | None, code: int) -> None:
    def ended(*arguments: object) -> int:
        response = None
        if status:
            response = requests.Response()
            response.status_code = status
        raise requests.RequestException("no", response=response)

    monkeypatch.setenv("NAMESPACE", "ray-asd")
    monkeypatch.setattr(start, "run", ended)
    assert start.main(["nightly", "nightly-1"]) == code


def test_one_night_at_a_time() -> None:
    (cron,) = [found["spec"] for found in built("nightly-cronjob") if found["kind"] == "CronJob"]
    (suspended,) = [found["spec"] for found in built("nightly-cronjob") if found["kind"] == "RayCronJob"]
    (active,) = [found["spec"] for found in built("nightly") if found["kind"] == "RayCronJob"]
    assert (suspended["suspend"], active["suspend"]) == (True, False)
    assert (cron["schedule"], cron["timeZone"]) == (active["schedule"], active["timeZone"])
    assert cron["concurrencyPolicy"] == "Forbid"
    job, day = active["jobTemplate"], 86_400
    tries = (job["backoffLimit"] + 1) * (job["activeDeadlineSeconds"] + job["preRunningDeadlineSeconds"])
    assert tries <= cron["jobTemplate"]["spec"]["activeDeadlineSeconds"] < day
    assert 0 < cron["startingDeadlineSeconds"] < day
    (fail, ignore) = cron["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert fail["onExitCodes"] == {"operator": "In", "values": [load().FAILED]}
    assert ignore["action"] == "Ignore"

"""Events of alerts to a receiver that answers, errs, is slow or down: a real one, by HTTP."""

import base64
import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ray_asd import store
from ray_asd.errors import UserError
from ray_asd.scoring import alerts
from ray_asd.scoring.alerts import Alert
from ray_asd.stages.fleet import alerting, webhook
from ray_asd.stages.fleet.webhook import Delivered
from stages.fleet.test_alerting import EACH, by, decided

SECRET = b"not to be shown"
Answer = Callable[[BaseHTTPRequestHandler, str], int]


class Receiver(ThreadingHTTPServer):
    """Keeps the requests that it got, and answers each as ``answer`` says, by its event id."""

    def __init__(self, answer: Answer) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.answer = answer
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hooks/hidden"

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.requests]


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
        status = self.server.answer(self, self.headers["webhook-id"])
        if status:
            self.send_response(status)
            self.send_header("content-length", "0")
            self.send_header("location", "/elsewhere")
            self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Nowhere."""


@contextmanager
def receiving(answer: Answer = lambda handler, event: 204) -> Iterator[Receiver]:
    with Receiver(answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def opened(fleet: str, *machines: str) -> list[Alert]:
    return alerting.follow_night(fleet, [decided(0, **dict.fromkeys(machines, 5.0))], EACH)


def sent(fleet: str, server: Receiver, patience: float = 5, page: str | None = None) -> Delivered:
    return webhook.deliver(fleet, server.url, SECRET, alerting.current(fleet), page, patience)


def receipts(fleet: str) -> list[str]:
    return [name for name in store.files(store.join(fleet, webhook.DELIVERIES)) if name != webhook.SINCE]


def test_each_event_is_told_once(root: str) -> None:
    first, second = opened(root, "fan", "pump")
    with receiving() as server:
        assert sent(root, server, page="s3://plant/page.html") == Delivered(sent=2)
        assert server.ids == [f"{first.alert_id}.opened", f"{second.alert_id}.opened"]
        headers, body = server.requests[0]
        told = json.loads(body)
        assert (told["type"], told["data"]["page"]) == ("alert.opened", "s3://plant/page.html")
        assert told["data"]["alert"] == alerting.rows([first])[0]
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"
        assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
        assert headers["content-type"] == "application/json"

        assert sent(root, server) == Delivered()
        alerting.change(root, [first.alert_id], lambda one: alerts.resolve(one, "real", by(1)), "resolve")
        alerting.follow_night(root, [decided(1, valve=9.0)], EACH)
        assert sent(root, server) == Delivered(sent=2)
        assert sent(root, server) == Delivered()
        third = alerting.current(root)[0]
        assert server.ids[2:] == [f"{third.alert_id}.opened", f"{first.alert_id}.resolved"]
        assert json.loads(server.requests[3][1])["data"]["alert"]["verdict"] == "real"
    assert receipts(root) == sorted(f"{event}.json" for event in server.ids)


def test_without_a_secret_nothing_is_signed_and_what_was_over_before_is_not_told(tmp_path) -> None:
    fleet = str(tmp_path)
    first, second = opened(fleet, "fan", "pump")
    alerting.change(fleet, [first.alert_id], lambda one: alerts.resolve(one, "real", by(1)), "resolve")
    with receiving() as server:
        assert webhook.deliver(fleet, server.url, None, alerting.current(fleet), None) == Delivered(sent=1)
        assert server.ids == [f"{second.alert_id}.opened"]
        assert "webhook-signature" not in server.requests[0][0]


@pytest.mark.parametrize("status", [500, 503, 429])
def test_an_error_that_passes(tmp_path, status: int) -> None:
    fleet = str(tmp_path)
    first, second = opened(fleet, "fan", "pump")
    tries: list[str] = []

    def answer(handler: BaseHTTPRequestHandler, event: str) -> int:
        tries.append(event)
        return status if tries.count(event) == 1 and event.startswith(first.alert_id) else 200

    with receiving(answer) as server:
        done = sent(fleet, server)
        assert (done.sent, done.failed, done.waiting) == (2, 0, 0)
        assert server.ids == [f"{alert.alert_id}.opened" for alert in (first, second, first)]


def test_errors_for_good_wait_for_the_next_run_and_change_nothing(tmp_path) -> None:
    fleet = str(tmp_path)
    first, second = opened(fleet, "fan", "pump")
    before = alerting.newest(fleet)
    with receiving(lambda handler, event: 410 if event.startswith(first.alert_id) else 200) as server:
        done = sent(fleet, server)
        host = f"http://127.0.0.1:{server.server_port}"
        assert done == Delivered(sent=1, failed=1, why=f"{host}: status 410 to {first.alert_id}.opened")
        alerting.change(fleet, [first.alert_id], lambda one: alerts.resolve(one, "false", by(1)), "resolve")
        done = sent(fleet, server)
        assert (done.failed, done.waiting) == (1, 1), "that it is over is not told before that it was"
        assert server.ids.count(f"{first.alert_id}.resolved") == 0
    with receiving(lambda handler, event: 302) as server:
        assert sent(fleet, server).failed == 1, "a redirect, which would make a GET of it"
        assert len(server.requests) == 1
    with receiving(lambda handler, event: 500) as server:
        done = sent(fleet, server, patience=1)
        assert (done.sent, done.failed, done.waiting) == (0, 0, 2)
    with receiving() as server:
        assert sent(fleet, server) == Delivered(sent=2)
        assert server.ids == [f"{first.alert_id}.{what}" for what in ("opened", "resolved")]
    assert before is not None
    assert [alert.alert_id for alert in before.alerts] == [first.alert_id, second.alert_id]


def test_nobody_answers(tmp_path) -> None:
    fleet = str(tmp_path)
    opened(fleet, "fan", "pump")
    with receiving() as server:
        url = server.url
    done = webhook.deliver(fleet, url, SECRET, alerting.current(fleet), None, patience=0.8)
    assert (done.sent, done.failed, done.waiting) == (0, 0, 2)
    assert done.why is not None
    assert "no connection to " in done.why
    assert "hidden" not in done.why
    assert receipts(fleet) == []


@pytest.mark.parametrize("drips", [False, True])
def test_a_receiver_that_takes_too_long_holds_nobody_up(tmp_path, drips: bool) -> None:
    """Neither one that says nothing nor one that sends a header every moment, for which no socket's timeout is."""
    fleet = str(tmp_path)
    opened(fleet, "fan", "pump")
    over = threading.Event()

    def answer(handler: BaseHTTPRequestHandler, event: str) -> int:
        if drips:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not over.wait(0.05):
            if drips:
                handler.wfile.write(b"x-more: yes\r\n")
        return 0

    with receiving(answer) as server:
        done: list[Delivered] = []
        thread = threading.Thread(target=lambda: done.append(sent(fleet, server, patience=1)))
        thread.start()
        thread.join(30)
        assert done, "it was held up"
        assert (done[0].sent, done[0].waiting) == (0, 2)
        over.set()


KILLED = """
import sys
from ray_asd.stages.fleet import alerting, webhook
webhook.deliver(sys.argv[1], sys.argv[2], b"secret", alerting.current(sys.argv[1]), None)
"""


def test_killed_between_answer_and_receipt_the_next_run_repeats_the_id(tmp_path) -> None:
    fleet = str(tmp_path)
    (alert,) = opened(fleet, "fan")
    children: list[subprocess.Popen[bytes]] = []

    def answer(handler: BaseHTTPRequestHandler, event: str) -> int:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        os.kill(children[0].pid, signal.SIGKILL)
        children[0].wait()
        return 0

    with receiving(answer) as server:
        with server_paused(server):
            children.append(subprocess.Popen([sys.executable, "-c", KILLED, fleet, server.url]))
        assert children[0].wait(60) == -signal.SIGKILL
        first = list(server.ids)
    assert receipts(fleet) == []
    with receiving() as server:
        assert sent(fleet, server) == Delivered(sent=1)
        assert server.ids == first == [f"{alert.alert_id}.opened"]


@contextmanager
def server_paused(server: Receiver) -> Iterator[None]:
    """Answers wait until the block is over."""
    ready, answer = threading.Event(), server.answer
    server.answer = lambda handler, event: answer(handler, event) if ready.wait(60) else 0
    yield
    ready.set()


def test_two_runs_at_once_send_each_event_once(tmp_path) -> None:
    fleet = str(tmp_path)
    opened(fleet, *(f"fan{number}" for number in range(8)))

    def answer(handler: BaseHTTPRequestHandler, event: str) -> int:
        time.sleep(0.02)
        return 200

    with receiving(answer) as server:
        threads = [threading.Thread(target=sent, args=(fleet, server, 30)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.ids) == len(set(server.ids)) == 8


@pytest.mark.parametrize("url", ["", "ftp://host/x", "https://", "host/path", "http://host:port/", "http://[::1"])
def test_places_that_are_no_receivers(tmp_path, url: str) -> None:
    with pytest.raises(UserError, match=r"^webhook: no URL that events could be sent to; allowed: https://HOST/PATH"):
        webhook.deliver(str(tmp_path), url, None, [], None)


def test_the_secret_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, key in (("", None), ("plain", b"plain"), ("whsec_MDEyMw==", b"0123")):
        monkeypatch.setenv(webhook.SECRET_VARIABLE, text)
        assert webhook.secret() == key
    monkeypatch.delenv(webhook.SECRET_VARIABLE)
    assert webhook.secret() is None
    monkeypatch.setenv(webhook.SECRET_VARIABLE, "whsec_?!")
    with pytest.raises(UserError, match=r"^RAY_ASD_WEBHOOK_SECRET begins with whsec_; allowed: ") as refusal:
        webhook.secret()
    assert "?!" not in str(refusal.value)
    assert "0123" not in repr(webhook.receiver("https://host/x", b"0123"))
    msg = "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}'
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert webhook.signature(key, *msg) == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", "the standard's example"

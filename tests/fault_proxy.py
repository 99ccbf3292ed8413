"""A proxy in front of an HTTP server that fails on purpose, the same way whenever it is started with the same seed.

    python tests/fault_proxy.py --upstream http://127.0.0.1:5000 --seed 1 --rate 0.1

prints its address. The kinds of fault:

unavailable  an answer with status 503; the server never sees the request
cut          the connection ends instead of an answer; the server never sees the request
lost         the server has answered, hence applied what was asked; the connection ends all the same
torn         the connection ends in the middle of the answer: of its body, or of its head where it has no body
slow         the answer comes after ``--delay`` seconds, in pieces

``--without`` takes headers from all requests, as if the server did not know them.
``GET /-/faults`` tells what happened so far: the number of requests, and of faults by method and kind.
"""

import argparse
import hashlib
import http.client
import http.server
import json
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

KINDS = ("unavailable", "cut", "lost", "torn", "slow")
METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE")
STATISTICS = "/-/faults"
_RANDOM_NAME = re.compile(
    r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}|(?<=uploadId=)[^&]+|(?<=continuation-token=)[^&]+"
)  # UUIDs and what the store made up: they differ in every run
_PER_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}
_UNAVAILABLE = b"<?xml version='1.0'?><Error><Code>ServiceUnavailable</Code><Message>on purpose</Message></Error>"


@dataclass
class Plan:
    """Which requests fail, and how. Decisions depend on the seed, the request and how often it was made before."""

    seed: int = 0
    rate: float = 0.0
    kinds: Sequence[str] = KINDS
    first: int = 0  # of each request this many attempts fail in any case
    methods: Sequence[str] = METHODS
    without: Sequence[str] = ()  # headers that the server never sees, in lower case
    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, method: str, target: str) -> str | None:
        """The kind of fault that this request meets, if any."""
        request = f"{method} {_RANDOM_NAME.sub('*', target)}"
        with self.lock:
            attempt = self.counts[request]
            self.counts[request] += 1
            number = hashlib.sha256(f"{self.seed} {attempt} {request}".encode()).digest()
            share, choice = int.from_bytes(number[:8]) / 2**64, int.from_bytes(number[8:16])
            if method not in self.methods or (attempt >= self.first and share >= self.rate):
                return None
            kind = self.kinds[choice % len(self.kinds)]
            self.faults[f"{method} {kind}"] += 1
            return kind

    def statistics(self) -> dict[str, object]:
        with self.lock:
            return {"requests": self.counts.total(), "faults": dict(sorted(self.faults.items()))}


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection: keep-alive, chunked requests and ``Expect: 100-continue`` included."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    upstream: str
    plan: Plan
    delay: float

    def handle_any(self) -> None:
        body = self._body()
        if self.path == STATISTICS:
            self._answer(200, [], json.dumps(self.plan.statistics()).encode())
            return
        fault = self.plan.next(self.command, f"{self.path} {self.headers.get('Range', '')}".rstrip())
        if fault == "unavailable":
            self._answer(503, [("Content-Type", "application/xml")], _UNAVAILABLE)
        elif fault == "cut":
            self._hang_up()
        else:
            status, headers, answer = self._ask(body)
            if fault == "lost":
                self._hang_up()
            else:
                self._answer(status, headers, answer, fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers, which name checksums
            pass
        return b"".join(pieces)

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.upstream)
        dropped = _PER_CONNECTION.union(self.plan.without)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
        try:
            connection.request(self.command, self.path, body, headers | {"Content-Length": str(len(body))})
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        kept = [(name, value) for name, value in response.getheaders() if name.lower() not in _PER_CONNECTION]
        length = response.getheader("Content-Length") if self.command == "HEAD" else str(len(answer))
        if length is not None and response.status != 204:
            kept.append(("Content-Length", length))
        return response.status, kept, answer

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, fault: str | None = None) -> None:
        if all(name != "Content-Length" for name, _ in headers) and status != 204:
            headers = [*headers, ("Content-Length", str(len(body)))]
        lines = [f"HTTP/1.1 {status} {http.client.responses.get(status, '')}"]
        head = "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers), "", ""]).encode("latin-1")
        if self.command == "HEAD":
            body = b""
        if fault == "torn":
            whole = head + body
            self.wfile.write(whole[: len(head) + len(body) // 2 if body else len(head) // 2])
            self._hang_up()
        elif fault == "slow":
            time.sleep(self.delay)
            for start in range(0, len(head + body), step := len(head + body) // 4 + 1):
                self.wfile.write((head + body)[start : start + step])
                time.sleep(self.delay / 10)
        else:
            self.wfile.write(head + body)

    def _hang_up(self) -> None:
        """End the connection; every other one by a reset, which is what a client meets when a machine dies."""
        self.close_connection = True
        if self.plan.faults.total() % 2:
            self.wfile.flush()
            time.sleep(0.01)  # a reset overtakes what was sent before it
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def finish(self) -> None:
        with suppress(OSError):  # it was reset
            super().finish()

    def log_message(self, format: str, *values: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """A thread per connection; a client that hangs up is no news."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def serve(upstream: str, plan: Plan, delay: float, port: int = 0) -> Server:
    """A server on loopback in front of ``upstream``, not running yet."""
    fields = {"upstream": upstream.removeprefix("http://"), "plan": plan, "delay": delay}
    return Server(("127.0.0.1", port), type("FaultyHandler", (Handler,), fields))


@dataclass(frozen=True)
class Proxy:
    """A proxy that runs in a process of its own."""

    url: str

    def statistics(self) -> tuple[int, Counter[str]]:
        """Requests so far, and faults by "METHOD kind"."""
        with urllib.request.urlopen(self.url + STATISTICS) as answer:
            told = json.load(answer)
        return told["requests"], Counter(told["faults"])

    def faults(self) -> Counter[str]:
        """Faults by kind."""
        total: Counter[str] = Counter()
        for what, count in self.statistics()[1].items():
            total[what.split()[1]] += count
        return total


@contextmanager
def running(upstream: str, *options: str) -> Iterator[Proxy]:
    """A proxy in front of ``upstream`` with the options of the command line."""
    command = [sys.executable, __file__, "--upstream", upstream, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            url = process.stdout.readline().strip()
            assert url, f"{command} did not start"
            yield Proxy(url)
        finally:
            process.terminate()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", required=True, help="http://host:port")
    parser.add_argument("--port", type=int, default=0, help="0: one that is free")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.0, help="share of requests that fail")
    parser.add_argument("--first", type=int, default=0, help="of each request this many attempts fail in any case")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="others never fail")
    parser.add_argument("--without", nargs="+", type=str.lower, default=(), help="headers that are not passed on")
    parser.add_argument("--delay", type=float, default=0.3, help="seconds that a slow answer takes")
    given = parser.parse_args()
    plan = Plan(given.seed, given.rate, given.kinds, given.first, given.methods, given.without)
    with serve(given.upstream, plan, given.delay, given.port) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)  # noqa: T201
        server.serve_forever()


if __name__ == "__main__":
    main()

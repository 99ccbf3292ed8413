"""The proxy does what its options say, and the same again when started again."""

import http.client
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import fault_proxy
from fault_proxy import KINDS, Plan, running

BODY = bytes(range(256)) * 40


class Origin(http.server.BaseHTTPRequestHandler):
    """Remembers what was asked and answers with ``BODY``; what it is sent comes back, a condition is never met."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str, bytes]]

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen.append((self.command, self.path, body))
        self.send_response_only(412 if "If-None-Match" in self.headers else 200)
        answer = body or BODY
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    do_GET = do_HEAD = do_PUT = handle_any  # noqa: N815


@pytest.fixture
def origin() -> Iterator[tuple[str, list[tuple[str, str, bytes]]]]:
    """Address of a server and the list of what it was asked."""
    seen: list[tuple[str, str, bytes]] = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Seeing", (Origin,), {"seen": seen})) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()


@contextmanager
def connected(proxy: fault_proxy.Proxy) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(proxy.url.removeprefix("http://"), timeout=20)
    yield connection
    connection.close()


def asked(
    connection: http.client.HTTPConnection, method: str = "GET", target: str = "/a", **arguments: object
) -> bytes:
    connection.request(method, target, **arguments)  # type: ignore[arg-type]
    return connection.getresponse().read()


def test_without_faults_everything_passes_over_one_connection(origin: tuple[str, list]) -> None:
    upstream, seen = origin
    with running(upstream) as proxy, connected(proxy) as connection:
        assert asked(connection) == BODY
        used = connection.sock
        assert asked(connection, "HEAD") == b""
        assert asked(connection, "PUT", "/a?b=%20c", body=b"whole") == b"whole"
        assert asked(connection, "PUT", body=iter([b"in ", b"pieces"]), encode_chunked=True) == b"in pieces"
        assert asked(connection, "PUT", body=b"expected", headers={"Expect": "100-continue"}) == b"expected"
        assert connection.sock is used
        assert proxy.statistics() == (5, {})
    assert seen[2:4] == [("PUT", "/a?b=%20c", b"whole"), ("PUT", "/a", b"in pieces")]


@pytest.mark.parametrize(("kind", "reaches"), [("unavailable", False), ("cut", False), ("lost", True), ("torn", True)])
def test_a_fault_hits_the_first_attempt_only(origin: tuple[str, list], kind: str, reaches: bool) -> None:
    upstream, seen = origin
    with running(upstream, "--first", "1", "--kinds", kind) as proxy:
        for method in ("GET", "PUT", "HEAD"):
            before = len(seen)
            with connected(proxy) as connection:
                if kind == "unavailable":
                    connection.request(method, "/a")
                    assert connection.getresponse().status == 503
                else:
                    with pytest.raises((http.client.HTTPException, ConnectionError)):
                        asked(connection, method)
            assert len(seen) - before == reaches
            with connected(proxy) as connection:
                assert asked(connection, method) == (b"" if method == "HEAD" else BODY)
        assert proxy.faults() == {kind: 3}
        assert proxy.statistics() == (6, {f"GET {kind}": 1, f"HEAD {kind}": 1, f"PUT {kind}": 1})


def test_a_torn_answer_ends_in_its_body(origin: tuple[str, list]) -> None:
    with running(origin[0], "--first", "1", "--kinds", "torn") as proxy, connected(proxy) as connection:
        connection.request("GET", "/a")
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.getheader("Content-Length") == str(len(BODY))
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            answer.read()


def test_a_slow_answer_is_whole(origin: tuple[str, list]) -> None:
    options = ["--first", "1", "--kinds", "slow", "--delay", "0.05"]
    with running(origin[0], *options) as proxy, connected(proxy) as connection:
        assert asked(connection) == BODY
        assert proxy.faults() == {"slow": 1}


@pytest.mark.parametrize(("options", "status"), [([], 412), (["--without", "If-None-Match", "If-Match"], 200)])
def test_headers_can_be_taken_away(origin: tuple[str, list], options: list[str], status: int) -> None:
    with running(origin[0], *options) as proxy, connected(proxy) as connection:
        connection.request("PUT", "/a", b"1", {"If-None-Match": "*"})
        assert connection.getresponse().status == status


def test_the_same_seed_decides_the_same() -> None:
    def decisions(seed: int, place: str) -> list[str | None]:
        plan = Plan(seed=seed, rate=0.1)
        return [plan.next("GET", f"/bucket/{place}/{index % 500}") for index in range(5000)]

    one = decisions(7, "attempt-0123456789abcdef0123456789abcdef")
    assert one == decisions(7, "attempt-fedcba9876543210fedcba9876543210")
    assert one != decisions(8, "attempt-0123456789abcdef0123456789abcdef")
    assert 400 < sum(kind is not None for kind in one) < 600
    assert {kind for kind in one if kind} == set(KINDS)


def test_unknown_kinds_are_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["fault_proxy.py", "--upstream", "http://127.0.0.1:9", "--kinds", "flood"])
    with pytest.raises(SystemExit):
        fault_proxy.main()
    assert "invalid choice: 'flood'" in capsys.readouterr().err

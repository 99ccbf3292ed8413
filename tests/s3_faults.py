"""Clients of an object store that fails on purpose: in ways of S3, or of any server behind ``fault_proxy``."""

import http.client
import http.server
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import pytest

import fault_proxy
from ray_asd.store import s3, uri

FAILED_DELETION = "<DeleteResult><Error><Key>kept</Key><Code>{}</Code></Error></DeleteResult>"
REFUSALS = {
    "ExpiredToken": 400,
    "RequestExpired": 400,
    "TokenRefreshRequired": 400,
    "InvalidToken": 400,
    "InvalidAccessKeyId": 403,
    "SignatureDoesNotMatch": 403,
    "NotImplemented": 501,
}


class Proxy(http.server.BaseHTTPRequestHandler):
    """Hands requests on to the object store; ``failures`` says what happens to the next writes.

    For what ``fault_proxy`` cannot do, since it knows nothing of S3.
    """

    protocol_version = "HTTP/1.1"
    upstream = ""
    failures: ClassVar[list[str]] = []

    def handle_one(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        failure = self.failures.pop(0) if self.failures and self.command in ("PUT", "POST") else None
        if failure == "conflict":
            self._answer(409, {}, b"<Error><Code>ConditionalRequestConflict</Code></Error>")
            return
        if failure == "lost upload":
            self._answer(404, {}, b"<Error><Code>NoSuchUpload</Code></Error>")
            return
        if failure in REFUSALS:
            self._answer(REFUSALS[failure], {}, f"<Error><Code>{failure}</Code><Message>no</Message></Error>".encode())
            return
        if failure in ("InternalError", "AccessDenied"):
            self._answer(200, {}, FAILED_DELETION.format(failure).encode())
            return
        connection = http.client.HTTPConnection(self.upstream)
        connection.request(self.command, self.path, body, dict(self.headers))
        response = connection.getresponse()
        answer = response.read()
        if failure == "forgotten":
            self._answer(404, {}, b"<Error><Code>NoSuchUpload</Code></Error>")
        elif failure == "lost":
            self.close_connection = True
        elif failure == "terse" and response.status == 412:
            self._answer(412, {}, b"<Error><Code>PreconditionFailed</Code></Error>")
        else:
            self._answer(response.status, dict(response.headers), answer)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_one  # noqa: N815

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def new_client() -> Iterator[pytest.MonkeyPatch]:
    """Clients made inside read an environment of their own, and none of them is used afterwards."""
    with pytest.MonkeyPatch.context() as environment:
        _forget_clients()
        try:
            yield environment
        finally:
            _forget_clients()


@contextmanager
def failing(*failures: str) -> Iterator[None]:
    """An object store whose next PUTs fail in the named ways."""
    Proxy.upstream = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
    Proxy.failures = list(failures)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server, new_client() as environment:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        try:
            yield
        finally:
            server.shutdown()
    assert Proxy.failures == []


def _forget_clients() -> None:
    uri._remote.cache_clear()
    s3.Client.clear_instance_cache()


@contextmanager
def through(*options: str, **environment: str) -> Iterator[fault_proxy.Proxy]:
    """Clients inside reach the object store by a proxy that fails as ``options`` say."""
    with fault_proxy.running(os.environ["AWS_ENDPOINT_URL"], *options) as proxy, new_client() as variables:
        for name, value in (environment | {"AWS_ENDPOINT_URL": proxy.url}).items():
            variables.setenv(name, value)
        yield proxy

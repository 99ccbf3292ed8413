"""What the object store's client makes of lost answers, conflicts, wrong settings and a store that is not there."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

import pytest

from ray_asd import store
from ray_asd.errors import Retryable, StageError, UserError
from ray_asd.store import s3
from s3_faults import failing, new_client


@pytest.mark.parametrize(
    "failures", [["lost"], ["lost", "lost"], ["lost", "terse"], ["conflict"], ["conflict", "lost"]]
)
def test_create_survives_lost_answers_and_conflicts(bucket: str, failures: list[str]) -> None:
    with failing(*failures):
        assert store.create(f"{bucket}/marker", b"mine")
    assert store.read(f"{bucket}/marker") == b"mine"


@pytest.mark.parametrize("failure", ["none", "terse", "lost", "conflict"])
def test_create_of_another_is_refused_whatever_happens(bucket: str, failure: str) -> None:
    store.write(f"{bucket}/marker", b"theirs")
    with failing(failure):
        assert not store.create(f"{bucket}/marker", b"mine")
    assert store.read(f"{bucket}/marker") == b"theirs"


@pytest.mark.usefixtures("s3")
def test_a_missing_bucket_is_never_an_empty_folder() -> None:
    calls: list[Callable[[str], object]] = [
        store.read,
        store.exists,
        store.is_folder,
        store.files,
        store.folders,
        store.last_write,
        store.sha256,
        lambda uri: list(store.listing(uri)),
        lambda uri: store.write(uri, b"1"),
        lambda uri: store.create(uri, b"1"),
    ]
    for call in calls:
        with pytest.raises(UserError, match=r"^s3://no-such-bucket: no such bucket$"):
            call("s3://no-such-bucket/key")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None},
            "s3://bucket: no credentials .* set AWS_ACCESS_KEY_ID",
        ),
        ({"AWS_SECRET_ACCESS_KEY": None}, "s3://bucket: no credentials .*missing: AWS_SECRET_ACCESS_KEY"),
        ({"AWS_PROFILE": "night"}, r"s3://bucket: no credentials .*\(night\)"),
        ({"AWS_ENDPOINT_URL": "minio"}, "s3://bucket: Invalid endpoint: minio"),
    ],
)
@pytest.mark.usefixtures("s3")
def test_wrong_settings_are_the_users(variables: dict[str, str | None], message: str) -> None:
    with new_client() as environment:
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for variable, value in variables.items():
            if value is None:
                environment.delenv(variable)
            else:
                environment.setenv(variable, value)
        with pytest.raises(UserError, match=message) as caught:
            store.read("s3://bucket/key")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("s3")
def test_a_store_that_cannot_be_reached() -> None:
    with new_client() as environment:
        environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        environment.setenv("AWS_MAX_ATTEMPTS", "1")
        with pytest.raises(Retryable, match=r"cannot reach object storage: .*http://127.0.0.1:9") as caught:
            store.read("s3://bucket/key")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("s3")
def test_a_bucket_name_that_cannot_be() -> None:
    with pytest.raises(UserError, match="Invalid bucket name"):
        store.read("s3://my bucket/key")


def test_conflicts_without_end_are_a_failure(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    with failing(*["conflict"] * 3), pytest.raises(Retryable, match=r"put_object \(attempt 3\).*Conflict") as caught:
        store.create(f"{bucket}/marker", b"mine")
    assert "\n" not in str(caught.value)


def test_keys_that_a_deletion_left_are_deleted_again(bucket: str) -> None:
    store.write(f"{bucket}/kept", b"1")
    with failing("InternalError", "InternalError"):
        store.remove(bucket)
    assert store.files(bucket) == []


def test_a_refused_deletion_is_said(bucket: str) -> None:
    store.write(f"{bucket}/kept", b"1")
    with failing("AccessDenied"), pytest.raises(StageError, match=r"kept was not deleted \(AccessDenied\)$"):
        store.remove(bucket)


def test_an_upload_that_the_store_has_ended_and_forgotten(bucket: str) -> None:
    name, _, key = f"{bucket}/a".removeprefix("s3://").partition("/")
    with failing("go on", "go on", "go on", "forgotten"):  # the beginning, two parts, the end
        client, place = s3.client(), {"Bucket": name, "Key": key}
        place["UploadId"] = client.call_s3("create_multipart_upload", **place)["UploadId"]
        sent = [
            client.call_s3("upload_part", **place, PartNumber=number, Body=bytes(5 << 20))["ETag"] for number in (1, 2)
        ]
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(sent, 1)]
        client.call_s3("complete_multipart_upload", **place, MultipartUpload={"Parts": parts})
    assert store.read(f"{bucket}/a") == bytes(10 << 20)


@pytest.mark.parametrize("there", [False, True])
def test_an_upload_that_the_store_lost_is_a_failure(bucket: str, there: bool) -> None:
    name, _, key = f"{bucket}/a".removeprefix("s3://").partition("/")
    if there:
        store.write(f"{bucket}/a", b"another's")
    parts = {"Parts": [{"PartNumber": 1, "ETag": f'"{"0" * 32}"'}]}
    with failing("lost upload"), pytest.raises(StageError, match=r"complete_multipart_upload \(NoSuchUpload\)"):
        s3.client().call_s3("complete_multipart_upload", Bucket=name, Key=key, UploadId="x", MultipartUpload=parts)


@pytest.mark.usefixtures("s3")
def test_files_that_are_written_know_the_same_errors() -> None:
    """Of libraries that write through a pyarrow file system."""
    filesystem, path = store.arrow("s3://no-such-bucket/key")
    with (
        pytest.raises(UserError, match=r"^s3://no-such-bucket: no such bucket$"),
        filesystem.open_output_stream(path) as sink,
    ):
        sink.write(b"1")


@pytest.mark.parametrize("code", ["ExpiredToken", "RequestExpired", "TokenRefreshRequired"])
def test_expired_credentials_are_looked_for_again(bucket: str, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    with failing(code, code):
        store.write(f"{bucket}/a", b"1")
    assert store.read(f"{bucket}/a") == b"1"
    with (
        failing(*[code] * 3),
        pytest.raises(Retryable, match=rf"no credentials \(attempt 3\): {code}: .*no; set AWS_") as caught,
    ):
        store.write(f"{bucket}/a", b"2")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken"])
def test_wrong_credentials_are_the_users(bucket: str, code: str) -> None:
    with failing(code), pytest.raises(UserError, match=rf"^s3://[^/]+: access denied \({code}\): .*no$"):
        store.write(f"{bucket}/a", b"1")


class Refusing(http.server.BaseHTTPRequestHandler):
    """A store whose every client has an expired token; it says so where an answer has a body."""

    protocol_version = "HTTP/1.1"

    def refuse(self) -> None:
        body = b"" if self.command == "HEAD" else b"<Error><Code>ExpiredToken</Code><Message>no</Message></Error>"
        self.send_response_only(400)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_HEAD = refuse  # noqa: N815


class Expired(http.server.BaseHTTPRequestHandler):
    """A store of one object, for which a token has expired until an answer with a body has said so."""

    protocol_version = "HTTP/1.1"
    expired: ClassVar[bool] = True

    def answer(self) -> None:
        status, body = 200, b"<ListBucketResult/>"
        if self.expired:
            status, body = 400, b"<Error><Code>ExpiredToken</Code><Message>no</Message></Error>"
            type(self).expired = self.command == "HEAD"
        self.send_response_only(status)
        self.send_header("Content-Length", "7" if self.command == "HEAD" else str(len(body)))
        self.send_header("ETag", '"1"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_GET = do_HEAD = answer  # noqa: N815


class Metadata(http.server.BaseHTTPRequestHandler):
    """A machine's metadata service: it answers ``busy`` requests with 503, then gives a role's credentials."""

    busy: ClassVar[int] = 0
    credentials: ClassVar[dict[str, str]] = {
        "AccessKeyId": "role",
        "SecretAccessKey": "role",
        "Token": "role",
        "Expiration": "2099-01-01T00:00:00Z",
    }

    def answer(self) -> None:
        status, body = 200, json.dumps(self.credentials)
        if type(self).busy:
            type(self).busy -= 1
            status, body = 503, "busy"
        elif self.command == "PUT":
            body = "token"
        elif self.path.endswith("/security-credentials/"):
            body = "role"
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    do_GET = do_PUT = answer  # noqa: N815


@contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


class Guarded(http.server.BaseHTTPRequestHandler):
    """A store that refuses each object with ``code``, and a listing with ``listing`` unless that is None.

    It tells of objects (HEAD) as long as ``tells``.
    """

    protocol_version = "HTTP/1.1"
    code: ClassVar[tuple[int, str]] = (403, "AccessDenied")
    listing: ClassVar[str | None] = None
    tells: ClassVar[bool] = True

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))  # else it would begin the next request
        status, code = type(self).code
        if "list-type" in self.path:
            status, code = (403, type(self).listing) if type(self).listing else (200, "")
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>" if code else "<ListBucketResult/>"
        if self.command == "HEAD":
            status, body = 200 if type(self).tells else status, ""
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(body.encode())

    do_GET = do_HEAD = do_PUT = answer  # noqa: N815


@pytest.mark.usefixtures("s3")
def test_an_object_that_may_not_be_read_is_told_from_a_store_that_may_not_be_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(Guarded) as address, new_client() as environment:
        environment.setenv("AWS_ENDPOINT_URL", address)
        for code in ((403, "InvalidObjectState"), (403, "AccessDenied"), (400, "KMS.DisabledException")):
            monkeypatch.setattr(Guarded, "code", code)
            said = rf"^s3://bucket/deep/key: access denied \({code[1]}\): .*no"
            with pytest.raises(UserError, match=said) as refused:
                store.read("s3://bucket/deep/key")
            assert isinstance(refused.value, PermissionError)  # one object's own: others can be read
        monkeypatch.setattr(Guarded, "code", (403, "AccessDenied"))
        with pytest.raises(UserError, match=r"^s3://bucket: access denied \(AccessDenied\)") as refused:
            store.write("s3://bucket/deep/key", b"1")
        assert not isinstance(refused.value, OSError)
        monkeypatch.setattr(Guarded, "tells", False)
        with pytest.raises(PermissionError, match=r"^s3://bucket/key: access denied \(403\)"):
            store.stat("s3://bucket/key")
        monkeypatch.setattr(Guarded, "listing", "InvalidAccessKeyId")
        with pytest.raises(UserError, match=r"^s3://bucket: access denied \(InvalidAccessKeyId\)") as refused:
            store.stat("s3://bucket/key")
        assert not isinstance(refused.value, OSError)


@pytest.mark.usefixtures("s3")
def test_an_answer_without_words_is_asked_for_some() -> None:
    with serving(Refusing) as address, new_client() as environment:
        environment.setenv("AWS_ENDPOINT_URL", address)
        environment.setenv("AWS_MAX_ATTEMPTS", "2")
        with pytest.raises(Retryable, match=r"^s3://bucket: no credentials \(attempt 2\): ExpiredToken: no; set AWS_"):
            store.stat("s3://bucket/key")


@pytest.mark.usefixtures("s3")
def test_an_answer_without_words_is_asked_for_again_once_credentials_are_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Expired, "expired", True)
    with serving(Expired) as address, new_client() as environment:
        environment.setenv("AWS_ENDPOINT_URL", address)
        assert store.stat("s3://bucket/key") == store.Entry("s3://bucket/key", 7, "1")


@contextmanager
def role(attempts: int) -> Iterator[pytest.MonkeyPatch]:
    """No credentials but a machine's role."""
    with serving(Metadata) as address, new_client() as environment:
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
            environment.delenv(variable, raising=False)
        environment.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", address)
        environment.setenv("AWS_MAX_ATTEMPTS", str(attempts))
        yield environment


def test_a_role_whose_service_is_busy_is_asked_again(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(f"{bucket}/a", b"1")
    monkeypatch.setattr(Metadata, "busy", 3)
    with role(10):
        assert store.read(f"{bucket}/a") == b"1"
    assert Metadata.busy == 0


@pytest.mark.usefixtures("s3")
def test_a_role_whose_service_stays_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Metadata, "busy", 1000)
    message = (
        r"^s3://bucket: no credentials \(attempt 2\): Unable to locate credentials; set AWS_ACCESS_KEY_ID and .* role$"
    )
    with role(2), pytest.raises(Retryable, match=message):
        store.read("s3://bucket/key")


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9/"}, "Error when retrieving credentials from"),
        ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/no/token", "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/r"}, "/no/token"),
    ],
)
def test_a_containers_role_that_cannot_be_had(variables: dict[str, str], said: str) -> None:
    """A token's file that is not there is no object that is not there."""
    with role(1) as environment:
        for variable, value in variables.items():
            environment.setenv(variable, value)
        with pytest.raises(Retryable, match=rf"^s3://bucket: no credentials \(attempt 1\): .*{said}") as caught:
            store.read("s3://bucket/key")
    assert "\n" not in str(caught.value)


def test_a_key_that_looks_like_another_objects_version_is_a_key(bucket: str) -> None:
    for name, content in (("a.wav", b"one"), ("a.wav?versionId=7", b"two"), ("a?versionId=/b?versionId=", b"three")):
        store.write(f"{bucket}/{name}", content)
    assert store.read(f"{bucket}/a.wav") == b"one"
    assert store.read(f"{bucket}/a.wav?versionId=7") == b"two"
    assert store.read(f"{bucket}/a?versionId=/b?versionId=") == b"three"
    assert len(list(store.listing(bucket))) == 3
    store.remove(f"{bucket}/a.wav?versionId=7")
    assert store.exists(f"{bucket}/a.wav")
    assert not store.exists(f"{bucket}/a.wav?versionId=7")

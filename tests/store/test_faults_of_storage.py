"""Each storage function through a proxy that lets the first attempt of every request fail, in each way."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fault_proxy
from ray_asd import store
from ray_asd.errors import Retryable
from s3_faults import through

DATA = os.urandom(300_000)
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(scope="module", params=fault_proxy.KINDS)
def proxy(s3: str, request: pytest.FixtureRequest) -> Iterator[fault_proxy.Proxy]:
    with through("--first", "1", "--delay", "0.1", "--kinds", request.param) as running:
        yield running


def write(place: str) -> None:
    store.write(f"{place}/a", b"old")
    store.write(f"{place}/a", DATA)
    assert store.files(place) == ["a"]


def read(place: str) -> None:
    store.write(f"{place}/a", DATA)
    assert store.read(f"{place}/a") == DATA
    with pytest.raises(FileNotFoundError):
        store.read(f"{place}/none")


def create(place: str) -> None:
    assert store.create(f"{place}/a", b"mine")
    assert not store.create(f"{place}/a", b"other")
    assert store.read(f"{place}/a") == b"mine"


def upload(place: str) -> None:
    source = Path(os.environ[store.CACHE_VARIABLE], "source")
    source.parent.mkdir(exist_ok=True)
    source.write_bytes(DATA)
    store.upload(source, f"{place}/a")
    assert store.read(f"{place}/a") == DATA


def fetch(place: str) -> None:
    store.write(f"{place}/a", DATA)
    Path(os.environ[store.CACHE_VARIABLE], DIGEST).unlink(missing_ok=True)
    assert store.fetch(f"{place}/a", DIGEST).read_bytes() == DATA
    for name in "bcd":
        with pytest.raises(FileNotFoundError):
            store.fetch(f"{place}/{name}", "none")


def listing(place: str) -> None:
    for name in ("b/c", "a"):
        store.write(f"{place}/{name}", name.encode())
    assert [(entry.path, entry.size) for entry in store.listing(place)] == [("a", 1), ("b/c", 3)]
    assert list(store.listing(f"{place}/none")) == []


def folders(place: str) -> None:
    store.write(f"{place}/b/c", b"1")
    assert store.folders(place) == ["b"]
    assert store.files(f"{place}/b") == ["c"]
    assert store.is_folder(f"{place}/b")
    assert store.last_write(place) > 0


def remove(place: str) -> None:
    for name in ("run/a", "run/b", "run-2/a"):
        store.write(f"{place}/{name}", b"1")
    store.remove(f"{place}/run")
    store.remove(f"{place}/run")
    assert [entry.path for entry in store.listing(place)] == ["run-2/a"]


def sha256(place: str) -> None:
    store.write(f"{place}/a", DATA)
    assert store.sha256(f"{place}/a") == DIGEST


def stat(place: str) -> None:
    store.write(f"{place}/a", DATA)
    found = store.stat(f"{place}/a")
    assert found is not None
    assert found.size == len(DATA)
    assert store.exists(f"{place}/a")
    assert store.stat(f"{place}/none") is None
    assert not store.exists(f"{place}/none")


def arrow(place: str) -> None:
    table = pa.table({"clip_id": ["a", "b"], "score": [0.5, 1.5]})
    filesystem, path = store.arrow(place)
    with filesystem.open_output_stream(f"{path}/a.parquet") as sink:
        pq.write_table(table, sink)
    assert pq.read_table(f"{path}/a.parquet", filesystem=filesystem).equals(table)


@pytest.mark.parametrize(
    "use",
    [write, read, create, upload, fetch, listing, folders, remove, sha256, stat, arrow],
    ids=lambda use: use.__name__,
)
def test_every_first_attempt_fails(proxy: fault_proxy.Proxy, bucket: str, use: Callable[[str], None]) -> None:
    before = proxy.faults().total()
    use(f"{bucket}/{use.__name__}")
    assert proxy.faults().total() > before


def test_large_objects_go_in_parts_that_fail(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The three parts of an upload, its beginning and end, and the ranges that a large object is fetched in."""
    source = tmp_path / "source"
    source.write_bytes(DATA * (105 * 2**20 // len(DATA) + 1))
    digest = store.sha256(str(source))
    monkeypatch.setenv(store.CACHE_VARIABLE, str(tmp_path / "cache"))
    with through("--first", "2", "--seed", "8", "--kinds", "lost", "torn") as proxy:
        store.upload(source, f"{bucket}/a")
        assert store.fetch(f"{bucket}/a", digest).read_bytes() == source.read_bytes()
        assert store.sha256(f"{bucket}/a") == digest
        faults = proxy.statistics()[1]
    for method, kind in (("PUT", "lost"), ("POST", "lost")):
        assert faults[f"{method} {kind}"], faults
    assert faults["GET torn"] >= 4  # the whole object, which is left unread, and each of its three ranges


@pytest.mark.parametrize("options", [["--kinds", "torn", "--methods", "GET"], ["--kinds", "cut", "lost"]])
def test_a_store_that_never_answers_is_given_up(bucket: str, tmp_path: Path, options: list[str]) -> None:
    store.write(f"{bucket}/a", DATA)
    cache = {store.CACHE_VARIABLE: str(tmp_path / "cache")}
    with through("--rate", "1", *options, AWS_MAX_ATTEMPTS="3", **cache) as proxy:
        for use in (store.read, store.sha256, lambda uri: store.fetch(uri, DIGEST)):
            before = proxy.faults().total()
            with pytest.raises(Retryable, match=r"^s3://[^/ ]+: [^\n]+$"):
                use(f"{bucket}/a")
            assert 3 <= proxy.faults().total() - before <= 6  # aiohttp itself asks twice where a connection ended
    assert not any(entry.is_file() for entry in (tmp_path / "cache").iterdir())

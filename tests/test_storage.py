"""Storage behaves the same on disk and in an object store: each test with ``root`` runs on both."""

import concurrent.futures
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ray_asd import storage
from ray_asd.errors import StageError, UserError

SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1


def test_absolute() -> None:
    assert storage.absolute("s3://bucket/key/") == "s3://bucket/key"
    assert storage.absolute("s3://bucket/") == "s3://bucket"
    assert storage.absolute("runs/a/") == f"{os.getcwd()}/runs/a"
    assert storage.absolute("/runs/../b") == "/b"
    assert storage.absolute("~/runs") == f"{Path.home()}/runs"


@pytest.mark.parametrize("uri", ["gs://bucket/key", "http://host/key", "file:///tmp/key"])
def test_absolute_refuses_other_schemes(uri: str) -> None:
    with pytest.raises(UserError, match=r"unknown scheme '\w+://'; allowed: s3://bucket/key, a local path"):
        storage.absolute(uri)


@pytest.mark.parametrize("uri", ["", "s3://", "s3:///"])
def test_absolute_refuses_what_names_no_place(uri: str) -> None:
    with pytest.raises(UserError, match="names no place; allowed: s3://bucket/key or a local path"):
        storage.absolute(uri)


def test_parts_of_a_uri() -> None:
    assert storage.join("s3://bucket/", "a", "b") == "s3://bucket/a/b"
    assert storage.name("s3://bucket/a/b/") == "b"
    assert storage.parent("s3://bucket/a/b") == "s3://bucket/a"


def test_write_replaces_and_read_returns_the_content(root: str) -> None:
    place = storage.join(root, "a b", "Größe #1?%20.bin")
    for data in (b"first", b"", bytes(range(256)) * 5000):
        storage.write(place, data)
        assert storage.read(place) == data
    assert storage.exists(place)
    assert [entry.path for entry in storage.listing(root)] == ["a b/Größe #1?%20.bin"]


def test_what_is_not_there(root: str) -> None:
    place = storage.join(root, "none")
    with pytest.raises(FileNotFoundError):
        storage.read(place)
    with pytest.raises(FileNotFoundError):
        storage.sha256(place)
    assert not storage.exists(place)
    assert not storage.is_folder(place)
    assert list(storage.listing(place)) == []
    assert storage.files(place) == storage.folders(place) == []
    assert storage.last_write(place) == 0
    storage.remove(place)


def test_listing_is_ordered_and_sized_and_leaves_hidden_files_out(root: str) -> None:
    for path in ("b/2.wav", "b/10.wav", "b-1.wav", "a.wav", ".draft", "b/.hidden/3.wav"):
        storage.write(storage.join(root, path), path.encode())
    entries = list(storage.listing(root))
    assert [(entry.path, entry.size) for entry in entries] == [
        ("a.wav", 5),
        ("b-1.wav", 7),
        ("b/10.wav", 8),
        ("b/2.wav", 7),
    ]
    assert storage.files(root) == ["a.wav", "b-1.wav"]
    assert storage.folders(root) == ["b"]
    assert storage.is_folder(root)
    assert not storage.is_folder(storage.join(root, "a.wav"))
    assert storage.files(storage.join(root, "a.wav", "x")) == []


def test_versions_tell_a_changed_file_of_the_same_size(root: str) -> None:
    for name in ("kept", "changed"):
        storage.write(storage.join(root, name), b"1")
    before = {entry.path: entry.version for entry in storage.listing(root)}
    time.sleep(0.02)
    storage.write(storage.join(root, "changed"), b"2")
    after = {entry.path: entry.version for entry in storage.listing(root)}
    assert after["kept"] == before["kept"]
    assert after["changed"] != before["changed"]


def test_stat_tells_of_files_only(root: str) -> None:
    place = storage.join(root, "a", "b")
    storage.write(place, b"abc")
    (listed,) = storage.listing(root)
    assert storage.stat(place) == storage.Entry(place, 3, listed.version)
    assert storage.stat(storage.join(root, "a")) is None
    assert storage.stat(storage.join(root, "none")) is None


def test_folder_objects_of_a_console_are_not_files(bucket: str) -> None:
    name, _, prefix = bucket.removeprefix("s3://").partition("/")
    boto3.client("s3").put_object(Bucket=name, Key=f"{prefix}/fan/", Body=b"")
    storage.write(storage.join(bucket, "fan", "a.wav"), b"1")
    assert [entry.path for entry in storage.listing(bucket)] == ["fan/a.wav"]
    assert storage.files(storage.join(bucket, "fan")) == ["a.wav"]


def test_remove_takes_a_file_or_a_folder_and_nothing_beside_it(root: str) -> None:
    for path in ("run/a", "run/deep/b", "run-2/a", "run[1]/a", "run1/a", "run*/a"):
        storage.write(storage.join(root, path), b"1")
    storage.remove(storage.join(root, "run", "a"))
    storage.remove(storage.join(root, "run[1]"))
    storage.remove(storage.join(root, "run*"))
    assert [entry.path for entry in storage.listing(root)] == ["run-2/a", "run/deep/b", "run1/a"]
    storage.remove(storage.join(root, "run"))
    assert [entry.path for entry in storage.listing(root)] == ["run-2/a", "run1/a"]


@pytest.mark.parametrize("ending", ["", "/"])
def test_a_whole_bucket_is_never_removed(s3: str, bucket: str, ending: str) -> None:
    storage.write(storage.join(bucket, "a"), b"1")
    with pytest.raises(UserError, match=r"^s3://\S+: a whole bucket is never removed; allowed: s3://bucket/key$"):
        storage.remove(s3 + ending)
    assert storage.read(storage.join(bucket, "a")) == b"1"


def test_last_write_is_the_newest_of_all_files(root: str) -> None:
    begun = time.time()
    storage.write(storage.join(root, "a", "old"), b"1")
    time.sleep(1.1)  # object stores tell whole seconds
    storage.write(storage.join(root, "b", "new"), b"1")
    assert storage.last_write(storage.join(root, "b")) - storage.last_write(storage.join(root, "a")) >= 1
    assert begun - 1 < storage.last_write(root) == storage.last_write(storage.join(root, "b")) <= time.time()


def test_upload_and_sha256(root: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"abc")
    place = storage.join(root, "deep", "copy")
    storage.upload(source, place)
    storage.upload(source, place)
    assert storage.read(place) == b"abc"
    assert storage.sha256(place) == SHA256_OF_ABC
    assert storage.files(storage.join(root, "deep")) == ["copy"]


def test_fetch_keeps_a_checked_copy(bucket: str) -> None:
    place = storage.join(bucket, "weights")
    storage.write(place, b"abc")
    copy = storage.fetch(place, SHA256_OF_ABC)
    assert copy.read_bytes() == b"abc"
    storage.remove(place)
    assert storage.fetch(place, SHA256_OF_ABC) == copy
    assert copy.parent == Path(os.environ[storage.CACHE_VARIABLE])


def test_fetch_refuses_other_content_and_leaves_nothing(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(storage.CACHE_VARIABLE, str(tmp_path / "cache"))
    place = storage.join(bucket, "weights")
    storage.write(place, b"abd")
    with pytest.raises(StageError, match=f"{place}: its content is not the recorded one"):
        storage.fetch(place, SHA256_OF_ABC)
    assert list((tmp_path / "cache").iterdir()) == []


def test_fetch_of_a_local_file_is_the_file(tmp_path: Path) -> None:
    assert storage.fetch(str(tmp_path / "x"), SHA256_OF_ABC) == tmp_path / "x"


def test_arrow_reads_and_writes_parquet(root: str) -> None:
    table = pa.table({"clip_id": ["a", "b"]})
    place = storage.join(root, "table.parquet")
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    storage.write(place, sink.getvalue().to_pybytes())
    filesystem, path = storage.arrow(place)
    assert pq.read_table(path, filesystem=filesystem).equals(table)


def test_create_wins_once_and_knows_its_own(root: str) -> None:
    place = storage.join(root, "marker")
    assert storage.create(place, b"mine")
    assert storage.create(place, b"mine")
    assert not storage.create(place, b"other")
    assert storage.read(place) == b"mine"


def test_of_twenty_threads_one_creates(root: str) -> None:
    place, contents = storage.join(root, "marker"), [f"writer {index}".encode() for index in range(20)]
    start = threading.Barrier(len(contents))

    def race(content: bytes) -> bool:
        start.wait()
        return storage.create(place, content)

    with concurrent.futures.ThreadPoolExecutor(len(contents)) as pool:
        won = list(pool.map(race, contents))
    assert won.count(True) == 1
    assert storage.read(place) == contents[won.index(True)]
    assert leftovers(root) == ["marker"]


def _race(place: str, rounds: int, name: str, start: Barrier, results: "Queue[tuple[str, list[bool]]]") -> None:
    won = []
    for index in range(rounds):
        start.wait()
        won.append(storage.create(f"{place}-{index}", name.encode()))
    results.put((name, won))


def test_of_two_processes_one_creates(root: str) -> None:
    context, rounds, place = multiprocessing.get_context("spawn"), 10, storage.join(root, "marker")
    start, results = context.Barrier(2), context.Queue()
    racers = [context.Process(target=_race, args=(place, rounds, name, start, results)) for name in ("a", "b")]
    for racer in racers:
        racer.start()
    won = dict(results.get(timeout=120) for _ in racers)
    for racer in racers:
        racer.join()
    assert [a + b for a, b in zip(won["a"], won["b"], strict=True)] == [1] * rounds
    contents = [storage.read(f"{place}-{index}") for index in range(rounds)]
    assert contents == [b"a" if first else b"b" for first in won["a"]]


def _read_in_a_fork(place: str, answer: "Queue[bytes]") -> None:
    answer.put(storage.read(place))


def test_a_forked_process_gets_a_client_of_its_own(root: str) -> None:
    place = storage.join(root, "a")
    storage.write(place, b"1")  # the parent's client and its event loop are running now
    context = multiprocessing.get_context("fork")
    answer = context.Queue()
    child = context.Process(target=_read_in_a_fork, args=(place, answer))
    child.start()
    assert answer.get(timeout=60) == b"1"
    child.join()


def test_the_file_system_can_be_sent_to_a_worker(root: str) -> None:
    storage.write(storage.join(root, "a"), b"1")
    client, path = pickle.loads(pickle.dumps(storage.filesystem(root)))
    assert client.cat_file(f"{path}/a") == b"1"


WRITE_FOR_EVER = """
import sys
from ray_asd import storage
while True:
    for letter in (b"a", b"b"):
        storage.write(sys.argv[1], letter * 3_000_000)
        print(flush=True)
"""


def test_a_killed_writer_leaves_a_whole_file(root: str) -> None:
    place = storage.join(root, "file")
    command = [sys.executable, "-c", WRITE_FOR_EVER, place]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout
        for _ in range(10):
            writer.stdout.readline()
            assert storage.read(place) in (b"a" * 3_000_000, b"b" * 3_000_000)
        writer.send_signal(signal.SIGKILL)
    assert storage.read(place) in (b"a" * 3_000_000, b"b" * 3_000_000)
    assert storage.files(root) == ["file"]
    assert [entry.path for entry in storage.listing(root)] == ["file"]


def leftovers(root: str) -> list[str]:
    """Names of everything in the folder, hidden files too."""
    client, path = storage.filesystem(root)
    return sorted(storage.name(found) for found in client.find(path))

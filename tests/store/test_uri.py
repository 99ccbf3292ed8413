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

from ray_asd import store
from ray_asd.errors import UserError

SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1


def test_absolute() -> None:
    assert store.absolute("s3://bucket/key/") == "s3://bucket/key"
    assert store.absolute("s3://bucket/") == "s3://bucket"
    assert store.absolute("runs/a/") == f"{os.getcwd()}/runs/a"
    assert store.absolute("/runs/../b") == "/b"
    assert store.absolute("~/runs") == f"{Path.home()}/runs"


@pytest.mark.parametrize("uri", ["gs://bucket/key", "http://host/key", "file:///tmp/key"])
def test_absolute_refuses_other_schemes(uri: str) -> None:
    with pytest.raises(UserError, match=r"unknown scheme '\w+://'; allowed: s3://bucket/key, a local path"):
        store.absolute(uri)


def test_absolute_refuses_a_bucket_that_may_be_a_secret() -> None:
    with pytest.raises(UserError, match="^an S3 URI has a colon in its bucket's name; allowed: s3://BUCKET/KEY") as no:
        store.absolute("s3://AKIA:Sentinel/1@bucket/key")
    assert "Sentinel" not in str(no.value)
    assert store.absolute("s3://arn:aws:s3:eu-central-1:1:accesspoint/plant/key").endswith("/key")


@pytest.mark.parametrize("uri", ["", "s3://", "s3:///"])
def test_absolute_refuses_what_names_no_place(uri: str) -> None:
    with pytest.raises(UserError, match="names no place; allowed: s3://bucket/key or a local path"):
        store.absolute(uri)


def test_parts_of_a_uri() -> None:
    assert store.join("s3://bucket/", "a", "b") == "s3://bucket/a/b"
    assert store.name("s3://bucket/a/b/") == "b"
    assert store.parent("s3://bucket/a/b") == "s3://bucket/a"


def test_write_replaces_and_read_returns_the_content(root: str) -> None:
    place = store.join(root, "a b", "Größe #1?%20.bin")
    for data in (b"first", b"", bytes(range(256)) * 5000):
        store.write(place, data)
        assert store.read(place) == data
    assert store.exists(place)
    assert [entry.path for entry in store.listing(root)] == ["a b/Größe #1?%20.bin"]


def test_what_is_not_there(root: str) -> None:
    place = store.join(root, "none")
    with pytest.raises(FileNotFoundError):
        store.read(place)
    with pytest.raises(FileNotFoundError):
        store.sha256(place)
    assert not store.exists(place)
    assert not store.is_folder(place)
    assert list(store.listing(place)) == []
    assert store.files(place) == store.folders(place) == []
    assert store.last_write(place) == 0
    store.remove(place)


def test_listing_is_ordered_and_sized_and_leaves_hidden_files_out(root: str) -> None:
    for path in ("b/2.wav", "b/10.wav", "b-1.wav", "a.wav", ".draft", "b/.hidden/3.wav"):
        store.write(store.join(root, path), path.encode())
    entries = list(store.listing(root))
    assert [(entry.path, entry.size) for entry in entries] == [
        ("a.wav", 5),
        ("b-1.wav", 7),
        ("b/10.wav", 8),
        ("b/2.wav", 7),
    ]
    assert store.files(root) == ["a.wav", "b-1.wav"]
    assert store.folders(root) == ["b"]
    assert store.is_folder(root)
    assert not store.is_folder(store.join(root, "a.wav"))
    assert store.files(store.join(root, "a.wav", "x")) == []


def test_a_listing_of_several_pages_is_whole_and_in_order(bucket: str) -> None:
    name, _, prefix = bucket.removeprefix("s3://").partition("/")
    client = boto3.client("s3")
    names = [f"a{number:03d}{end}" for number in range(350) for end in ("-", "/b", "é")]
    for path in names:
        client.put_object(Bucket=name, Key=f"{prefix}/{path}", Body=b"")
    client.put_object(Bucket=name, Key=f"{prefix}-beside", Body=b"")
    assert [entry.path for entry in store.listing(bucket)] == sorted(names)
    assert len(names) > 1_000


def test_versions_tell_a_changed_file_of_the_same_size(root: str) -> None:
    for name in ("kept", "changed"):
        store.write(store.join(root, name), b"1")
    before = {entry.path: entry.version for entry in store.listing(root)}
    time.sleep(0.02)
    store.write(store.join(root, "changed"), b"2")
    after = {entry.path: entry.version for entry in store.listing(root)}
    assert after["kept"] == before["kept"]
    assert after["changed"] != before["changed"]


def test_stat_tells_of_files_only(root: str) -> None:
    place = store.join(root, "a", "b")
    store.write(place, b"abc")
    (listed,) = store.listing(root)
    assert store.stat(place) == store.Entry(place, 3, listed.version)
    assert store.stat(store.join(root, "a")) is None
    assert store.stat(store.join(root, "none")) is None


def test_folder_objects_of_a_console_are_not_files(bucket: str) -> None:
    name, _, prefix = bucket.removeprefix("s3://").partition("/")
    boto3.client("s3").put_object(Bucket=name, Key=f"{prefix}/fan/", Body=b"")
    store.write(store.join(bucket, "fan", "a.wav"), b"1")
    assert [entry.path for entry in store.listing(bucket)] == ["fan/a.wav"]
    assert store.files(store.join(bucket, "fan")) == ["a.wav"]


def test_remove_takes_a_file_or_a_folder_and_nothing_beside_it(root: str) -> None:
    for path in ("run/a", "run/deep/b", "run-2/a", "run[1]/a", "run1/a", "run*/a"):
        store.write(store.join(root, path), b"1")
    store.remove(store.join(root, "run", "a"))
    store.remove(store.join(root, "run[1]"))
    store.remove(store.join(root, "run*"))
    assert [entry.path for entry in store.listing(root)] == ["run-2/a", "run/deep/b", "run1/a"]
    store.remove(store.join(root, "run"))
    assert [entry.path for entry in store.listing(root)] == ["run-2/a", "run1/a"]


@pytest.mark.parametrize("ending", ["", "/"])
def test_a_whole_bucket_is_never_removed(s3: str, bucket: str, ending: str) -> None:
    store.write(store.join(bucket, "a"), b"1")
    with pytest.raises(UserError, match=r"^s3://\S+: a whole bucket is never removed; allowed: s3://bucket/key$"):
        store.remove(s3 + ending)
    assert store.read(store.join(bucket, "a")) == b"1"


def test_last_write_is_the_newest_of_all_files(root: str) -> None:
    begun = time.time()
    store.write(store.join(root, "a", "old"), b"1")
    time.sleep(1.1)  # object stores tell whole seconds
    store.write(store.join(root, "b", "new"), b"1")
    assert store.last_write(store.join(root, "b")) - store.last_write(store.join(root, "a")) >= 1
    assert begun - 1 < store.last_write(root) == store.last_write(store.join(root, "b")) <= time.time()


def test_upload_and_sha256(root: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"abc")
    place = store.join(root, "deep", "copy")
    store.upload(source, place)
    store.upload(source, place)
    assert store.read(place) == b"abc"
    assert store.sha256(place) == SHA256_OF_ABC
    assert store.files(store.join(root, "deep")) == ["copy"]


def test_arrow_reads_and_writes_parquet(root: str) -> None:
    table = pa.table({"clip_id": ["a", "b"]})
    place = store.join(root, "table.parquet")
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    store.write(place, sink.getvalue().to_pybytes())
    filesystem, path = store.arrow(place)
    assert pq.read_table(path, filesystem=filesystem).equals(table)


def test_create_wins_once_and_knows_its_own(root: str) -> None:
    place = store.join(root, "marker")
    assert store.create(place, b"mine")
    assert store.create(place, b"mine")
    assert not store.create(place, b"other")
    assert store.read(place) == b"mine"


def test_of_twenty_threads_one_creates(root: str) -> None:
    place, contents = store.join(root, "marker"), [f"writer {index}".encode() for index in range(20)]
    start = threading.Barrier(len(contents))

    def race(content: bytes) -> bool:
        start.wait()
        return store.create(place, content)

    with concurrent.futures.ThreadPoolExecutor(len(contents)) as pool:
        won = list(pool.map(race, contents))
    assert won.count(True) == 1
    assert store.read(place) == contents[won.index(True)]
    assert leftovers(root) == ["marker"]


def _race(place: str, rounds: int, name: str, start: Barrier, results: "Queue[tuple[str, list[bool]]]") -> None:
    won = []
    for index in range(rounds):
        start.wait()
        won.append(store.create(f"{place}-{index}", name.encode()))
    results.put((name, won))


def test_of_two_processes_one_creates(root: str) -> None:
    context, rounds, place = multiprocessing.get_context("spawn"), 10, store.join(root, "marker")
    start, results = context.Barrier(2), context.Queue()
    racers = [context.Process(target=_race, args=(place, rounds, name, start, results)) for name in ("a", "b")]
    for racer in racers:
        racer.start()
    won = dict(results.get(timeout=120) for _ in racers)
    for racer in racers:
        racer.join()
    assert [a + b for a, b in zip(won["a"], won["b"], strict=True)] == [1] * rounds
    contents = [store.read(f"{place}-{index}") for index in range(rounds)]
    assert contents == [b"a" if first else b"b" for first in won["a"]]


def _read_in_a_fork(place: str, answer: "Queue[bytes]") -> None:
    answer.put(store.read(place))


def test_a_forked_process_gets_a_client_of_its_own(root: str) -> None:
    place = store.join(root, "a")
    store.write(place, b"1")  # the parent's client and its event loop are running now
    context = multiprocessing.get_context("fork")
    answer = context.Queue()
    child = context.Process(target=_read_in_a_fork, args=(place, answer))
    child.start()
    assert answer.get(timeout=60) == b"1"
    child.join()


def test_the_file_system_can_be_sent_to_a_worker(root: str) -> None:
    store.write(store.join(root, "a"), b"1")
    client, path = pickle.loads(pickle.dumps(store.filesystem(root)))
    assert client.cat_file(f"{path}/a") == b"1"


WRITE_FOR_EVER = """
import sys
from ray_asd import store
while True:
    for letter in (b"a", b"b"):
        store.write(sys.argv[1], letter * 3_000_000)
        print(flush=True)
"""


def test_a_killed_writer_leaves_a_whole_file(root: str) -> None:
    place = store.join(root, "file")
    command = [sys.executable, "-c", WRITE_FOR_EVER, place]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout
        for _ in range(10):
            writer.stdout.readline()
            assert store.read(place) in (b"a" * 3_000_000, b"b" * 3_000_000)
        writer.send_signal(signal.SIGKILL)
    assert store.read(place) in (b"a" * 3_000_000, b"b" * 3_000_000)
    assert store.files(root) == ["file"]
    assert [entry.path for entry in store.listing(root)] == ["file"]


def leftovers(root: str) -> list[str]:
    """Names of everything in the folder, hidden files too."""
    client, path = store.filesystem(root)
    return sorted(store.name(found) for found in client.find(path))


def test_a_folder_may_be_removed_by_several_at_once(root: str) -> None:
    """As the receipts of a stage are that two processes finish at the same moment."""
    places = [f"{root}/{number}" for number in range(8)]
    for place in places:
        for number in range(20):
            store.write(f"{place}/{number % 3}/{number}", b"")
    together = threading.Barrier(4)

    def remove() -> None:
        for place in places:
            together.wait(20)
            store.remove(place)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(remove) for _ in range(4)]:
            done.result()
    assert not any(map(store.exists, places))

"""Copies of remote files: checked, fetched once by all processes together, no more of them than the bound allows."""

import hashlib
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest

from ray_asd import store
from ray_asd.errors import StageError, UserError
from ray_asd.store import cache
from s3_faults import through

SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
SIZE = 100_000  # of each of the objects below


def files(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_file())


def test_fetch_keeps_a_checked_copy(bucket: str) -> None:
    place = store.join(bucket, "weights")
    store.write(place, b"abc")
    copy = store.fetch(place, SHA256_OF_ABC)
    assert copy.read_bytes() == b"abc"
    store.remove(place)
    assert store.fetch(place, SHA256_OF_ABC) == copy
    assert copy.parent == Path(os.environ[store.CACHE_VARIABLE])


def test_fetch_refuses_other_content_and_leaves_nothing(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(store.CACHE_VARIABLE, str(tmp_path / "cache"))
    place = store.join(bucket, "weights")
    store.write(place, b"abd")
    with pytest.raises(StageError, match=f"{place}: its content is not the recorded one"):
        store.fetch(place, SHA256_OF_ABC)
    assert files(tmp_path / "cache") == []


def test_fetch_of_a_local_file_is_the_file(tmp_path: Path) -> None:
    assert store.fetch(str(tmp_path / "x"), SHA256_OF_ABC) == tmp_path / "x"


class Copies:
    """Copies of objects of ``SIZE`` bytes in a cache of its own, which has room for three of them."""

    def __init__(self, bucket: str, folder: Path) -> None:
        self.bucket, self.folder = bucket, folder

    def fetch(self, name: str, hours_ago: float = 0) -> Path:
        data = name.encode() * SIZE
        store.write(store.join(self.bucket, name), data)
        copy = store.fetch(store.join(self.bucket, name), hashlib.sha256(data).hexdigest())
        if hours_ago:
            used = time.time() - 3600 * hours_ago
            os.utime(copy, (used, used))
        return copy

    def kept(self) -> str:
        """The names of the objects whose copies are there."""
        return "".join(sorted((self.folder / copy).read_bytes()[:1].decode() for copy in files(self.folder)))


@pytest.fixture
def copies(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Copies:
    monkeypatch.setenv(store.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv(cache.BOUND_VARIABLE, str(3 * SIZE / 1e9))
    return Copies(bucket, tmp_path / "cache")


def test_what_was_asked_for_longest_ago_makes_room(copies: Copies) -> None:
    for hours_ago, name in ((3, "a"), (5, "b"), (4, "c")):
        copies.fetch(name, hours_ago)
    assert copies.kept() == "abc"
    copies.fetch("b", 2)
    copies.fetch("d", 1)
    assert copies.kept() == "abd"
    copies.fetch("e")
    assert copies.kept() == "bde"
    assert copies.fetch("c").read_bytes() == b"c" * SIZE
    assert copies.kept() == "cde"


def test_what_was_asked_for_lately_stays_beyond_the_bound(copies: Copies) -> None:
    for name in "abcd":
        copies.fetch(name)
    assert copies.kept() == "abcd"


def test_what_is_larger_than_the_bound_is_fetched_alone(copies: Copies, monkeypatch: pytest.MonkeyPatch) -> None:
    copies.fetch("a", 1)
    monkeypatch.setenv(cache.BOUND_VARIABLE, "1e-6")
    assert copies.fetch("b").stat().st_size == SIZE
    assert copies.kept() == "b"


def test_a_copy_that_somebody_asks_for_at_this_moment_stays(copies: Copies) -> None:
    asked_for = copies.fetch("a", 3)
    for name in "bc":
        copies.fetch(name, 1)
    with cache._lock(asked_for):
        copies.fetch("d")
    assert "a" in copies.kept()
    assert len(copies.kept()) == 3


def test_a_mapped_copy_outlives_its_file(copies: Copies) -> None:
    mapped = np.memmap(copies.fetch("a", 1), mode="r")
    for name in "bcd":
        copies.fetch(name)
    assert copies.kept() == "bcd"
    assert (mapped == ord("a")).all()


def test_what_a_killed_process_left_makes_room_too(copies: Copies) -> None:
    left = copies.fetch("a", 1).rename(copies.folder / "0123.part")
    for name in "bcd":
        copies.fetch(name)
    assert not left.exists()


@pytest.mark.parametrize("given", ["", "ten", "0", "-1", "nan"])
def test_a_bound_that_is_none_is_refused(copies: Copies, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv(cache.BOUND_VARIABLE, given)
    message = rf"^RAY_ASD_CACHE_GB='{given}' is no size; allowed: a number of gigabytes above 0$"
    with pytest.raises(UserError, match=message):
        copies.fetch("a")


def test_processes_fetch_an_object_once(copies: Copies) -> None:
    data = os.urandom(SIZE)
    place = store.join(copies.bucket, "a")
    store.write(place, data)
    asked = [(place, hashlib.sha256(data).hexdigest())] * 3
    with (
        through("--rate", "1", "--kinds", "slow", "--delay", "0.3") as proxy,
        multiprocessing.get_context("spawn").Pool(3) as pool,
    ):
        found = pool.starmap(store.fetch, asked, chunksize=1)
        assert proxy.statistics()[1] == {"HEAD slow": 1, "GET slow": 1}
    assert [copy.read_bytes() for copy in found] == [data] * 3

"""Local files where the environment fails: what passes by is not noticed, what stays is one line, and no draft is left.

Errors come from the kernel where a test can have them, else from an audit hook at the call that would meet them.
"""

import errno
import os
import resource
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from disk_faults import failing
from ray_asd import store
from ray_asd.errors import Retryable, UserError
from ray_asd.store import environment, local


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it makes no difference how long the waits are."""
    monkeypatch.setattr(environment, "_WAITS", (0.001,) * 5)


@pytest.mark.parametrize("name", ["EIO", "ESTALE", "ETIMEDOUT", "EMFILE", "ENFILE", "ENOTCONN", "ENOSPC", "EREMOTEIO"])
def test_errors_of_the_environment(name: str) -> None:
    error = OSError(getattr(errno, name), "said")
    assert store.is_to_blame(error)
    assert str(environment.said("/a", error)) == f"/a: {os.strerror(error.errno or 0)} ({name})"


@pytest.mark.parametrize("name", ["ENOENT", "ENOTDIR", "EISDIR", "EACCES", "EPERM", "ENAMETOOLONG", "ELOOP", "EEXIST"])
def test_errors_of_the_file_itself(name: str) -> None:
    assert not store.is_to_blame(OSError(getattr(errno, name), "said"))


def test_an_error_without_a_number_is_no_ones() -> None:
    assert not store.is_to_blame(OSError("said"))


@pytest.mark.usefixtures("impatient")
def test_a_disk_that_fails_is_given_up_in_one_line() -> None:
    """Address 0 of this process is not mapped: the kernel answers with EIO."""
    for use in (
        store.read,
        store.sha256,
        lambda uri: store.open_read(uri).read(),
        lambda uri: store.open_read(uri).read(9),
    ):
        with pytest.raises(Retryable, match=r"^/proc/self/mem: Input/output error \(EIO\)$"):
            use("/proc/self/mem")


def test_files_that_are_free_again(tmp_path: Path) -> None:
    """Too many open files, for as long as half a second."""
    place = str(tmp_path / "a")
    store.write(place, b"abc")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    later = threading.Timer(0.5, resource.setrlimit, (resource.RLIMIT_NOFILE, before))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    later.start()
    try:
        with pytest.raises(OSError, match="Too many open files"), open(place, "rb"):
            pass
        assert store.read(place) == b"abc"
    finally:
        later.join()


@pytest.mark.usefixtures("impatient")
def test_what_passes_by_is_not_noticed(tmp_path: Path) -> None:
    place, source = str(tmp_path / "folder" / "a"), tmp_path / "source"
    source.write_bytes(b"copied")
    with failing("open", ".a.", errno.EIO) as fault:
        store.write(place, b"written")
    assert fault.times == 0
    with failing("open", place, errno.ESTALE, 2) as fault:
        assert store.read(place) == b"written"
        fault.times = 2
        assert store.sha256(place)
        fault.times = 2
        with store.open_read(place) as file:
            assert file.read(3) + file.read() == b"written"
    with failing("os.rename", ".a.", errno.ETIMEDOUT) as fault:
        store.upload(source, place)
    assert (fault.times, store.read(place)) == (0, b"copied")
    store.remove(place)
    with failing("os.link", ".a.", errno.EIO) as fault:
        assert store.create(place, b"created")
    assert (fault.times, store.read(place)) == (0, b"created")
    with failing("os.scandir", tmp_path, errno.ETIMEDOUT) as fault:
        assert [entry.path for entry in store.listing(str(tmp_path))] == ["folder/a", "source"]
    assert fault.times == 0
    assert os.listdir(tmp_path / "folder") == ["a"]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("name", ["EIO", "ENOSPC", "EROFS"])
def test_what_stays_is_one_line_and_leaves_no_draft(tmp_path: Path, name: str) -> None:
    place, number = str(tmp_path / "a"), getattr(errno, name)
    for event, use in (("os.rename", store.write), ("os.link", store.create), ("open", store.write)):
        with failing(event, ".a.", number, 100) as fault, pytest.raises(Retryable) as caught:
            use(place, b"1")
        assert str(caught.value) == f"{place}: {os.strerror(number)} ({name})"
        assert 100 - fault.times == (6 if name == "EIO" else 1)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("event", "use"),
    [("open", store.create), ("os.link", store.create), ("open", store.write), ("os.rename", store.write)],
)
def test_a_folder_that_others_remove_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, event: str, use: Callable[[str, bytes], object]
) -> None:
    monkeypatch.setattr(local, "_AGAIN", (0.0, 0.0))
    folder = tmp_path / "folder"
    with failing(event, ".a.", errno.ENOENT, 2, lambda: shutil.rmtree(folder)) as fault:
        use(str(folder / "a"), b"1")
    assert fault.times == 0
    assert store.read(str(folder / "a")) == b"1"
    with (
        failing(event, ".b.", errno.ENOENT, 3, lambda: shutil.rmtree(folder)),
        pytest.raises(UserError, match=r"/b: cannot be written: .*ENOENT"),
    ):
        use(str(folder / "b"), b"1")


@pytest.mark.usefixtures("impatient")
def test_a_folder_below_that_fails_is_never_left_out(tmp_path: Path) -> None:
    store.write(str(tmp_path / "fan" / "a"), b"1")
    uses = (lambda: list(store.listing(str(tmp_path))), lambda: store.last_write(str(tmp_path)))
    for use in uses:
        with failing("os.scandir", "fan", errno.EIO, 100), pytest.raises(Retryable, match=r"fan/: Input/output error"):
            use()
        with failing("os.scandir", "fan", errno.EACCES, 100), pytest.raises(UserError, match="fan/: the folder cannot"):
            use()


def test_what_links_lead_to(tmp_path: Path) -> None:
    store.write(str(tmp_path / "a"), b"abc")
    (tmp_path / "good").symlink_to(tmp_path / "a")
    (tmp_path / "broken").symlink_to(tmp_path / "none")
    assert {entry.path: entry.size for entry in store.listing(str(tmp_path))} == {"a": 3, "good": 3, "broken": 0}
    before = {entry.path: entry.version for entry in store.listing(str(tmp_path))}
    os.utime(tmp_path / "a", (0, 0))
    after = {entry.path: entry.version for entry in store.listing(str(tmp_path))}
    assert [name for name in before if before[name] != after[name]] == ["a", "good"]
    assert store.last_write(str(tmp_path)) == max((tmp_path / link).lstat().st_mtime for link in ("good", "broken"))
    assert store.files(str(tmp_path)) == ["a"]
    assert (store.exists(str(tmp_path / "good")), store.exists(str(tmp_path / "broken"))) == (True, False)
    store.remove(str(tmp_path / "good"))
    assert store.read(str(tmp_path / "a")) == b"abc"


def test_a_place_that_cannot_be_written_is_the_mistake_of_who_named_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "in it").mkdir(parents=True)
    source = tmp_path / "file"
    places = {"file/a": "ENOTDIR", "folder": "EISDIR", "n" * 256: "ENAMETOOLONG", f"{'n' * 256}/a": "ENAMETOOLONG"}
    for place, code in places.items():
        wanted = str(tmp_path / place)
        for put in (lambda uri: store.write(uri, b"1"), lambda uri: store.upload(source, uri)):
            with pytest.raises(UserError) as refused:
                put(wanted)
            assert str(refused.value).startswith(f"{wanted}: cannot be written: [Errno ")
            assert f"({code}); allowed: a folder that is there" in str(refused.value)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@pytest.mark.parametrize("name", ["n" * 255, "\N{LATIN SMALL LETTER U WITH DIAERESIS}" * 127, "." + "n" * 254])
def test_a_name_as_long_as_a_name_may_be_is_written(tmp_path: Path, name: str) -> None:
    place = str(tmp_path / name)
    assert store.create(place, b"1")
    store.write(place, b"2")
    assert store.read(place) == b"2"
    store.check_writable(str(tmp_path / "new" / name))


def test_where_nothing_can_be_put_is_told_before(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store.check_writable(str(tmp_path / "new" / "below it"))
    assert os.listdir(tmp_path) == ["file"]
    for place, said in (
        ("file", "file is no folder"),
        ("file/a/b", "file is no folder"),
        ("n" * 256, "a name of more than 255 bytes"),
    ):
        with pytest.raises(UserError, match=said):
            store.check_writable(str(tmp_path / place))

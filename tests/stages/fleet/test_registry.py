"""Releases: what a version holds, what is current and was, what is refused, and what two or a killed one leave."""

import hashlib
import itertools
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ray_asd import build, store
from ray_asd.build import Output
from ray_asd.errors import Retryable, StageError, UserError
from ray_asd.stages.detection import detector as detectors
from ray_asd.stages.fleet import checks, registry, release
from ray_asd.stages.fleet.release import Order
from ray_asd.store import ledger
from ray_asd.tables import Folder
from s3_faults import through
from stages.fleet import made


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Output]:
    """Detectors of the same machines."""
    folder = tmp_path_factory.mktemp("detectors")
    return [made.detector(folder, seed) for seed in range(3)]


def released(place: str, detector: Output, **order: Any) -> Output:
    seen = registry.newest(place) if registry.is_registry(place) else None
    told = Order(who="me", seen=seen, **order)
    version = release.add(detector, place, told)
    release.make_current(version, place, told)
    return version


def names(place: str) -> list[str]:
    return [one.name for one in registry.versions(place) if one.problem is None]


def test_a_version_is_the_detector_itself(root: str, three: list[Output], tmp_path: Path) -> None:
    version = released(root, three[0], note="first", metrics={"score": 0.9})
    assert version.uri == store.join(root, "versions", "v1")
    assert [file.sha256 for file in version.marker.files] == [file.sha256 for file in three[0].marker.files]
    assert (version.source.digest, detectors.version(version)) == (three[0].source.digest, "v1")
    assert detectors.read(version) == detectors.read(three[0])
    assert (detectors.released(three[0]), detectors.version(three[0])) == ({}, None)
    release_ = registry.version(root, "v1").release
    assert release_ is not None
    assert (release_.who, release_.note, release_.metrics) == ("me", "first", {"score": 0.9})
    assert release_.source == three[0].uri
    assert detectors.released(version) == {"version": "v1", "release": release_.id}
    assert release_.provenance["system"] == "spectral"
    assert release_.provenance["digest"] == three[0].marker.digest
    for entry in store.listing(version.uri):  # a copy that needs nothing else, checked with the usual tool
        file = tmp_path / "copy" / entry.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(store.read(store.join(version.uri, entry.path)))
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=tmp_path / "copy", check=True)
    listed = {line.split("  ")[1] for line in (tmp_path / "copy" / "SHA256SUMS").read_text().splitlines()}
    assert listed == {entry.path for entry in store.listing(version.uri)} - {"SHA256SUMS"}
    checks.self_test(registry.detector(str(tmp_path / "copy")))


def test_uris_of_a_registry(root: str, three: list[Output]) -> None:
    for detector in three[:2]:
        released(root, detector)
    third = release.add(three[2], root, Order("me"))
    assert registry.current(root).uri == f"{root}/versions/v2"
    assert [registry.detector(uri).uri for uri in (root, f"{root}/", f"{root}@v1", f"{root}/versions/v3")] == [
        f"{root}/versions/{name}" for name in ("v2", "v2", "v1", "v3")
    ]
    assert registry.detector(third.uri).source.digest == three[2].source.digest
    assert registry.detector(three[0].uri).marker == three[0].marker
    with pytest.raises(UserError, match=rf"^unknown version of {root} 'v4'; allowed: v1, v2, v3$"):
        registry.detector(f"{root}@v4")
    allowed = "allowed: an output of enroll, a registry for its current version, or REGISTRY@v1"
    with pytest.raises(UserError, match=rf"^{root}/nothing@v1 holds no detector \(no marker.json\); {allowed}$"):
        registry.detector(f"{root}/nothing@v1")
    with pytest.raises(UserError, match=r"holds no registry \(no versions/\); allowed: what `release --to` was given"):
        registry.opened(three[0].uri)


def test_a_candidate_is_a_version_that_is_not_current(tmp_path: Path, three: list[Output]) -> None:
    place = str(tmp_path)
    release.add(three[0], place, Order("me"))
    with pytest.raises(UserError, match=rf"no version is current; allowed: {place}@ and one of v1"):
        registry.detector(place)
    with pytest.raises(UserError, match="no version has ever been current"):
        registry.rollback(place, None, "me", "")
    promoted = released(place, registry.detector(f"{place}@v1"), note="it did well")
    assert promoted.uri == registry.current(place).uri
    assert names(place) == ["v1"], "the same files are the same version"


def test_the_history_says_who_changed_what_and_rollback_goes_back_along_it(root: str, three: list[Output]) -> None:
    for number, detector in enumerate(three):
        released(root, detector, note=f"note {number}", compared={"clips": number}, forced=number == 2)
    back = registry.rollback(root, None, "you", "cries wolf")
    assert (back.version, back.before, registry.current(root).uri) == ("v2", "v3", f"{root}/versions/v2")
    registry.rollback(root, None, "you", "and this one")
    assert registry.current(root).uri.endswith("v1"), "not v3 again"
    with pytest.raises(UserError, match=r"nothing was current before v1; allowed: --to one of v1, v2, v3$"):
        registry.rollback(root, None, "you", "")
    with pytest.raises(UserError, match=r"--to v1: that is current; allowed: v2, v3$"):
        registry.rollback(root, "v1", "you", "")
    with pytest.raises(UserError, match=r"unknown version of \S+ 'v7'; allowed: v1, v2, v3$"):
        registry.rollback(root, "v7", "you", "")
    registry.rollback(root, "v3", "you", "forward")
    released(root, three[1], note="again")
    told = [(one.number, one.action, one.version, one.before, one.who, one.note) for one in registry.history(root)]
    assert told == [
        (1, "release", "v1", None, "me", "note 0"),
        (2, "release", "v2", "v1", "me", "note 1"),
        (3, "release", "v3", "v2", "me", "note 2"),
        (4, "rollback", "v2", "v3", "you", "cries wolf"),
        (5, "rollback", "v1", "v2", "you", "and this one"),
        (6, "rollback", "v3", "v1", "you", "forward"),
        (7, "release", "v2", "v3", "me", "again"),
    ]
    assert [one.forced for one in registry.history(root)][:4] == [False, False, True, False]
    assert registry.line_of_descent(registry.history(root)) == ["v1", "v3", "v2"]
    assert names(root) == ["v1", "v2", "v3"]


def test_a_release_is_not_repeated(root: str, three: list[Output]) -> None:
    released(root, three[0])
    before = [(entry.path, entry.version) for entry in store.listing(root)]
    told = Order("me", seen=registry.newest(root))
    assert release.make_current(release.add(three[0], root, told), root, told) is None
    assert [(entry.path, entry.version) for entry in store.listing(root)] == before


def damaged(place: str, path: str) -> None:
    uri = store.join(place, path)
    content = bytearray(store.read(uri))
    content[len(content) // 2] ^= 1
    store.write(uri, bytes(content))


def every_file(version: Output) -> list[str]:
    return [entry.path for entry in store.listing(version.uri)]


def test_any_flipped_byte_and_any_missing_file_is_refused_by_name(root: str, three: list[Output]) -> None:
    version = released(root, three[0])
    released(root, three[1])
    paths = every_file(version)
    assert len(paths) > 9
    for path in paths:
        content = store.read(store.join(version.uri, path))
        damaged(version.uri, path)
        for use in (registry.detector, lambda uri: registry.rollback(root, None, "me", "")):
            with pytest.raises(StageError) as flipped:
                use(f"{root}@v1")
            assert path in str(flipped.value) or path == checks.SUMS
            assert store.join(version.uri, "") in str(flipped.value)
        store.remove(store.join(version.uri, path))
        with pytest.raises(StageError, match="is missing") as missing:
            registry.detector(f"{root}@v1")
        assert path in str(missing.value)
        store.write(store.join(version.uri, path), content)
    assert registry.detector(f"{root}@v1").uri == version.uri, "as good as it was"
    assert registry.current(root).uri.endswith("v2"), "and current is what was"


def test_a_damaged_version_is_released_anew_and_others_stay_usable(tmp_path: Path, three: list[Output]) -> None:
    place = str(tmp_path)
    version = released(place, three[0])
    damaged(version.uri, "files/detector.json")
    assert store.name(released(place, three[0]).uri) == "v2"
    assert store.name(released(place, three[0]).uri) == "v2"
    store.write(f"{place}/versions/v2/marker.json", b"{")
    assert "v2/marker.json: no marker of this version" in str(registry.version(place, "v2").problem)
    assert store.name(released(place, three[0]).uri) == "v3"
    store.write(store.join(version.uri, "release.json"), b"{")
    assert names(place) == ["v3"]
    assert "release.json is no release of this format" in str(registry.version(place, "v1").problem)
    assert store.name(released(place, three[1]).uri) == "v4"


def copied(detector: Output, folder: Path) -> Output:
    for entry in store.listing(detector.uri):
        store.write(str(folder / entry.path), store.read(store.join(detector.uri, entry.path)))
    found = build.find(str(folder))
    assert found is not None
    return found


def test_what_is_damaged_is_not_released(three: list[Output], tmp_path: Path) -> None:
    for file in three[0].marker.files:
        copy = copied(three[0], tmp_path / hashlib.sha256(file.path.encode()).hexdigest())
        release.check(copy)
        damaged(copy.uri, f"{copy.marker.attempt}/{file.path}")
        with pytest.raises(StageError, match=rf"{file.path} is damaged: its sha256 is \w+, its record says \w+$"):
            release.check(copy)
        store.remove(copy.file_uri(file.path))
        with pytest.raises(StageError, match=rf"{file.path} is missing$"):
            release.check(copy)


def changed(detector: Output, path: str, before: bytes, after: bytes) -> Output:
    """With another content of one file, as if it had been committed so."""
    content = detector.read(path)
    assert before in content
    store.write(detector.file_uri(path), content.replace(before, after))
    sha256 = store.sha256(detector.file_uri(path))
    files = [replace(file, sha256=sha256) if file.path == path else file for file in detector.marker.files]
    marker = detector.marker.model_copy(update={"files": files})
    store.write(store.join(detector.uri, build.MARKER), marker.model_dump_json().encode())
    return Output(detector.uri, marker)


def test_another_format_is_refused_by_name(three: list[Output], tmp_path: Path) -> None:
    other = changed(
        copied(three[0], tmp_path / "copy"), "detector.json", b'"format_version": 2', b'"format_version": 9'
    )
    refusal = r"detector.json: detector format 9; allowed: 2; enrol it anew$"
    with pytest.raises(UserError, match=refusal):
        release.check(other)
    place = str(tmp_path / "registry")
    with pytest.raises(UserError, match=refusal):
        release.add(other, place, Order("me"))
    released(place, three[0])
    change = f"{place}/history/000001.json"
    store.write(change, store.read(change).replace(b'"format": 1', b'"format": 2'))
    with pytest.raises(StageError, match=rf"^{change} is no entry of this format: format: "):
        registry.detector(place)


def test_a_detector_that_fails_its_self_test_is_not_released(three: list[Output], tmp_path: Path) -> None:
    copy = copied(three[0], tmp_path / "copy")
    rows, sink = copy.table(Folder.SELF_TEST), pa.BufferOutputStream()
    column = rows.column_names.index("score")
    pq.write_table(rows.set_column(column, "score", pc.multiply(rows["score"], 1.001)), sink)
    (file,) = copy.files(Folder.SELF_TEST)
    other = changed(copy, file.path, copy.read(file.path), sink.getvalue().to_pybytes())
    with pytest.raises(StageError, match=rf"^{copy.uri}: the self-test fails: "):
        release.check(other)
    place = str(tmp_path / "registry")
    for detector in (other, three[1]):  # as if it had passed where it was released
        released(place, detector)
    with pytest.raises(StageError, match=r"versions/v1: the self-test fails: "):
        registry.rollback(place, None, "me", "")


def test_of_two_at_once_one_becomes_current_and_the_other_is_told(root: str, three: list[Output]) -> None:
    released(root, three[0])
    seen = registry.newest(root)
    together = threading.Barrier(2)

    def race(detector: Output) -> str:
        order = Order("me", seen=seen)
        version = release.add(detector, root, order)
        together.wait()
        try:
            release.make_current(version, root, order)
        except Retryable as error:
            return str(error)
        return store.name(version.uri)

    with ThreadPoolExecutor(2) as pool:
        ended = sorted(pool.map(race, three[1:]))
    assert "became current (release by me) meanwhile" in ended[0]
    assert [change.version for change in registry.history(root)] == ["v1", ended[1]]
    assert names(root) == ["v1", "v2", "v3"], "both are there, each under a number of its own"
    assert {registry.detector(f"{root}@{name}").source.digest for name in ("v2", "v3")} == {
        detector.source.digest for detector in three[1:]
    }


def test_two_who_roll_back_at_once_go_back_once(tmp_path: Path, three: list[Output], monkeypatch: Any) -> None:
    place = str(tmp_path)
    for detector in three:
        released(place, detector)
    first = registry.history(place)
    registry.rollback(place, None, "me", "")
    monkeypatch.setattr(registry, "history", lambda uri: first)
    with pytest.raises(
        StageError, match=r"nothing was changed: v2 became current \(rollback by me\) meanwhile$"
    ) as told:
        registry.rollback(place, None, "you", "")
    assert not isinstance(told.value, Retryable), "or whoever repeats it would go back twice"
    assert registry.current(place).uri.endswith("v2")


def test_the_same_detector_released_by_many_at_once_is_one_version(root: str, three: list[Output]) -> None:
    with ThreadPoolExecutor(4) as pool:
        versions = list(pool.map(lambda _: release.add(three[0], root, Order("me")), range(4)))
    assert {version.uri for version in versions} == {f"{root}/versions/v1"}
    assert names(root) == ["v1"]


def broken_off(place: str, detector: Output, writes: int) -> bool:
    """Whether a release ended with the process, before the write behind so many."""
    left = [writes]

    def counted(act: Any) -> Any:
        def acting(*arguments: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return act(*arguments)

        return acting

    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((store, "create"), (store, "write"), (store, "upload"), (ledger, "create")):
            patch.setattr(module, name, counted(getattr(module, name)))
        try:
            released(place, detector)
        except KeyboardInterrupt:
            return True
    return False


def test_a_release_that_is_broken_off_anywhere_is_gone_on_with(tmp_path: Path, three: list[Output]) -> None:
    seen = set()
    for writes in itertools.count():
        place = str(tmp_path / str(writes))
        released(place, three[0])
        if not broken_off(place, three[1], writes):
            break
        assert registry.current(place).uri.endswith("v1"), "as long as the other one is not current"
        whole = names(place)
        seen.add((len(registry.numbered(place)), len(whole)))
        if len(whole) < len(registry.numbered(place)):
            with pytest.raises(StageError, match=r"marker.json is missing: the release of v2 was broken off$"):
                registry.detector(f"{place}@v2")
        assert released(place, three[1]).uri == registry.current(place).uri
        assert names(place) == ["v1", "v2"]
        assert [change.version for change in registry.history(place)] == ["v1", "v2"]
    assert seen == {(1, 1), (2, 1), (2, 2)}, "before it had a number, before it was whole, before it was current"


def test_storage_that_fails_hurts_no_release(bucket: str, three: list[Output]) -> None:
    """Also where the answer to a conditional write is lost, so that its repetition meets itself."""
    with through("--rate", "0.1", "--seed", "3"):
        for detector in three[:2]:
            released(bucket, detector)
        registry.rollback(bucket, None, "me", "")
    assert [change.version for change in registry.history(bucket)] == ["v1", "v2", "v1"]
    assert names(bucket) == ["v1", "v2"]


def test_a_store_without_conditional_writes_holds_no_registry(bucket: str, three: list[Output]) -> None:
    with through("--without", "If-None-Match"), pytest.raises(UserError, match="conditional writes overwrite"):
        release.add(three[0], bucket, Order("me"))
    assert not registry.is_registry(bucket)

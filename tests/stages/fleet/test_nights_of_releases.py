"""Which version scores a night, whatever is released, rolled back, damaged or beside it; and what that costs."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ray_asd import build, store
from ray_asd.errors import StageError, UserError
from ray_asd.stages.detection import score
from ray_asd.stages.fleet import manifests, nightly, registry, release, revisions, shadows
from ray_asd.stages.fleet.release import Order
from ray_asd.tables import Folder
from s3_faults import through
from stages.fleet import plant
from stages.fleet.conftest import Releases
from stages.fleet.plant import UNITS, Recorders, day, run


@pytest.fixture(scope="module")
def recorders(tmp_path_factory: pytest.TempPathFactory) -> Recorders:
    return Recorders(str(tmp_path_factory.mktemp("plant") / "in")).three_nights()


@pytest.fixture
def place(releases: Releases, tmp_path: Path) -> str:
    """A registry to change."""
    return str(shutil.copytree(releases.place, tmp_path / "registry"))


def make_current(place: str, name: str) -> None:
    release.make_current(registry.found(place, name), place, Order("me", seen=registry.newest(place)))


def versions(fleet: str, number: int) -> set[str | None]:
    return set(plant.tables(fleet, day(number))["scores"]["version"].to_pylist())


def test_late_recordings_are_scored_as_their_night_was_and_rescoring_is_asked_for(
    place: str, recorders: Recorders, tmp_path: Path
) -> None:
    fleet = str(tmp_path / "fleet")
    for number in range(2):
        run(fleet, place, recorders, day(number))
    make_current(place, "v2")
    third = run(fleet, place, recorders, day(2))
    assert [(one.night, one.revision, one.version) for one in third.others] == [(day(1), 2, "v1")]
    assert [versions(fleet, number) for number in range(3)] == [{"v1"}, {"v1"}, {"v2"}]
    lines: list[str] = []
    given = plant.fleet(fleet, f"{place}@v2")
    made = nightly.rescore(given, [day(number) for number in range(-1, 3)], tell=lines.append)
    assert lines == [f"night {day(-1)} was never scored"]
    assert [(one.night, one.revision, one.why, one.version) for one in made] == [
        (day(0), 2, "rescore", "v2"),
        (day(1), 3, "rescore", "v2"),
    ]
    assert [versions(fleet, number) for number in range(3)] == [{"v2"}] * 3
    assert len(plant.tables(fleet, day(1))["scores"]) == len(plant.tables(fleet, day(1))["clips"]) == 7
    assert nightly.rescore(given, [day(0), day(1)]) == []
    assert run(fleet, place, recorders, day(2)).reused


def test_a_rollback_in_the_middle_of_a_night_does_not_mix_versions(
    place: str, recorders: Recorders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_current(place, "v2")
    step = score.step

    def rolled_back(*given: Any) -> Any:
        if (last := registry.newest(place)) and last.version == "v2":
            registry.rollback(place, None, "me", "meanwhile")
        return step(*given)

    monkeypatch.setattr(score, "step", rolled_back)
    fleet = str(tmp_path / "fleet")
    ended = run(fleet, place, recorders, day(0))
    assert ended.night is not None
    assert (ended.night.version, versions(fleet, 0)) == ("v2", {"v2"})
    following = run(fleet, place, recorders, day(1)).night
    assert following is not None
    assert following.version == "v1"


@pytest.mark.parametrize("damage", ["flipped", "missing", "format"])
def test_a_damaged_release_scores_nothing(place: str, recorders: Recorders, tmp_path: Path, damage: str) -> None:
    version = registry.found(place, "v1")
    path = {"format": "SHA256SUMS"}.get(damage, f"{version.marker.attempt}/{version.marker.files[-1].path}")
    file = Path(version.uri, path)
    if damage == "missing":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    fleet = str(tmp_path / "fleet")
    with pytest.raises(StageError, match=r"damaged|missing|no list of checksums") as error:
        run(fleet, place, recorders, day(0))
    assert version.uri in str(error.value)
    assert manifests.newest(fleet, day(0)) is None
    assert "score" not in store.folders(fleet)


def test_a_shadow_scores_beside_and_alerts_nobody(releases: Releases, recorders: Recorders, tmp_path: Path) -> None:
    """The first night is given it afterwards."""
    plain, beside = str(tmp_path / "plain"), str(tmp_path / "beside")
    for number in range(3):
        run(plain, releases.place, recorders, day(number))
        run(beside, releases.place, recorders, day(number), shadow=("v2",) if number else ())
    later = run(beside, releases.place, recorders, day(0), shadow=("v2",))
    assert later.night is not None
    assert (later.night.revision, later.night.why, len(later.night.shadow["v2"])) == (2, "shadow", 1)
    assert run(beside, releases.place, recorders, day(0), shadow=("v2",)).reused
    scored = [build.resolve(store.join(beside, uri), "score") for uri in plant.newest(beside, day(1)).shadow["v2"]]
    assert [output.marker.counts["clips"] for output in scored] == [6, 1], "the late one too"
    assert {version for output in scored for version in output.table(Folder.SCORES)["version"].to_pylist()} == {"v2"}
    ours, theirs = plant.state(plain), plant.state(beside)
    assert ours["alerts"] == theirs["alerts"]
    assert all(ours[name] == theirs[name] for name in ours if " " in name)
    found = shadows.compared(beside, "v2")
    assert list(found.nights) == [day(0), day(1), day(2)]
    lines = list(found.lines())
    assert [line.split()[0] for line in lines[:5]] == ["counts", "nights", "clips", "clips", "machines"]
    assert lines[2].split()[2:] == ["19", "19"]
    assert ("fan", "00", "u2") in found.nights[day(2)][0].machines
    with pytest.raises(UserError, match="no night of .* has v3 beside it .*; allowed: v2"):
        shadows.compared(beside, "v3")


def test_a_machine_that_is_learning_alarms_once_it_has_nights_enough(
    releases: Releases, recorders: Recorders, tmp_path: Path
) -> None:
    """Of pumps four clips are enrolled; the pump fails in the last night."""
    given, fleet = Recorders(str(tmp_path / "in")), str(tmp_path / "fleet")
    rules = {}
    for number in range(5):
        given.night(day(number), UNITS, hours=(1, 2, 3, 4), u3=2.0 if number == 4 else 0.0)
        ended = run(fleet, f"{releases.place}@v3", given, day(number), min_nights=3)
        assert ended.night is not None
        rows = {row["machine_id"]: row for row in plant.tables(fleet, day(number))["decisions"].to_pylist()}
        rules[number] = rows["u3"]["rule"], rows["u3"]["alarm"]
        learning = manifests.output(fleet, ended.night).marker.summary["learning"]
        assert list(learning) == (["pump 00 u3"] if number < 3 else [])
    assert rules == {**dict.fromkeys(range(3), (None, None)), 3: ("nights", False), 4: ("nights", True)}


def test_planning_a_night_costs_the_same_whatever_came_before(
    releases: Releases, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By requests to the object store: of a rerun, and of a night that has a thousand before it or twenty."""
    monkeypatch.setattr(revisions, "PAST", 5)
    monkeypatch.setattr(revisions, "RECENT", 3)
    recorders = Recorders(str(tmp_path / "in"))
    for number in range(3):
        recorders.night(day(number), UNITS[:1], hours=[1])
    run(bucket, releases.place, recorders, day(0))
    last = plant.newest(bucket, day(0))

    def requests(number: int) -> int:
        with through() as proxy:
            run(bucket, releases.place, recorders, day(number))
            found: int = proxy.statistics()[0]
        return found

    def begin(back: int) -> None:
        """A night before it, as that one was."""
        night = last.model_copy(update={"night": last.night - back * nightly.DAY})
        place = store.join(manifests.folder_of(bucket, night.night), "000001.json")
        store.write(place, night.model_dump_json().encode())

    rerun = requests(0)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(begin, range(1, 20)))
        twenty = requests(1)
        list(pool.map(begin, range(20, 1000)))
    assert requests(0) <= rerun + 1, "a second page of the list"
    assert requests(2) <= twenty + 10, "such pages"

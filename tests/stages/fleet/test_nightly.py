"""Nights of a small plant: what is new is scored once, under its own date, whatever is sent late, twice or renamed."""

from pathlib import Path

import pytest

from ray_asd import build, store
from ray_asd.stages.fleet import manifests, registry
from stages.fleet.conftest import Releases
from stages.fleet.plant import FIRST, UNITS, Recorders, at, day, run, sound, tables


@pytest.fixture
def recorders(tmp_path: Path) -> Recorders:
    """Of two nights."""
    found = Recorders(str(tmp_path / "in"))
    for number in range(2):
        found.night(day(number), UNITS)
    return found


def outputs(fleet: str) -> dict[str, list[str]]:
    return {stage: store.folders(store.join(fleet, stage)) for stage in store.folders(fleet)}


def test_a_night_is_scored_once_and_what_comes_late_under_its_own_date(
    root: str, releases: Releases, recorders: Recorders
) -> None:
    first = run(root, releases.place, recorders, day(0))
    assert first.night is not None
    assert (first.reused, first.others, first.night.revision, first.night.why) == (False, [], 1, "night")
    assert (first.night.version, first.night.detector) == ("v1", registry.folder_of(releases.place, "v1"))
    assert {name: first.night.counts[name] for name in ("clips", "scored", "unscored", "rejects", "machines")} == {
        "clips": 6, "scored": 6, "unscored": 0, "rejects": 0, "machines": 3,
    }  # fmt: skip
    second = run(root, releases.place, recorders, day(1))
    assert second.night is not None
    assert second.night.night == day(1)
    before = outputs(root)
    again = run(root, releases.place, recorders, day(1))
    assert (again.night, again.reused) == (second.night, True)
    assert outputs(root) == before

    scored = tables(root, day(0))["scores"]
    recorders.add(day(1), ("fan", "u1"), at(0, 5), sound(77))  # of the first night, in the folder of the second
    recorders.add(day(1), ("valve", "u9"), at(1, 5), sound(78))  # a machine type that nobody enrolled
    third = run(root, releases.place, recorders, day(1))
    assert [(one.night, one.revision, one.why) for one in third.others] == [(day(0), 2, "late")]
    assert third.night is not None
    assert (third.night.revision, third.night.why) == (2, "late")
    counts = third.night.counts
    assert (counts["clips"], counts["scored"], counts["unscored"], counts["unknown"]) == (7, 6, 1, 1)
    assert manifests.output(root, third.night).marker.summary["unknown"] == {"valve 00": 1}
    late = tables(root, day(0))
    assert late["scores"].slice(0, 6).equals(scored), "they were not scored again"
    assert late["clips"]["recorded_at"].to_pylist()[-1] == at(0, 5)
    known = store.read(store.join(root, manifests.LATEST))
    assert manifests.Night.model_validate_json(known) == third.night
    assert run(root, releases.place, recorders, day(1)).reused


def test_a_recording_sent_once_more_or_renamed_changes_nothing(
    tmp_path: Path, releases: Releases, recorders: Recorders
) -> None:
    fleet = str(tmp_path / "fleet")
    first = run(fleet, releases.place, recorders, day(0))
    content = sound(int(f"{FIRST:%m%d}0101"))
    recorders.add(day(0), UNITS[0], at(0, 1), content, name="copy.wav")
    again = run(fleet, releases.place, recorders, day(0))
    assert (again.night, again.reused) == (first.night, True)
    assert run(fleet, releases.place, recorders, day(0)).reused
    found = [
        build.find(store.join(fleet, "recordings", name))
        for name in outputs(fleet)["recordings"]
        if f"{day(0)}" in name
    ]
    assert sorted(output.marker.counts.get("renamed", 0) for output in found if output) == [0, 1]
    recorders.add(day(0), UNITS[0], at(0, 7), content)  # the same sound at another time: the recorder is stuck
    stuck = run(fleet, releases.place, recorders, day(0))
    assert stuck.night is not None
    assert (stuck.night.revision, stuck.night.counts["clips"], stuck.night.counts["repeated"]) == (2, 7, 1)
    assert manifests.output(fleet, stuck.night).marker.summary["repeated"] == {"fan 00 u1": 1}
    clips = tables(fleet, day(0))["clips"].to_pylist()
    assert [row["clip_id"] for row in clips if row["duplicate_of"]] == [f"{day(0)}/{day(0)}/u1-20260301T070000.wav"]

"""Sentences about the machines that alarm in a night, from recordings that are there, and from those that are not."""

import re
from pathlib import Path

import pytest
from ray import cloudpickle

from ray_asd import build, store
from ray_asd.build import Output, steps
from ray_asd.fleet_tables import WHY
from ray_asd.stages.fleet import explain
from ray_asd.tables import CLIPS
from stages.fleet.heard import Nights, Row, decided, detector, recorded, scored, wave

FAN, PUMP, VALVE = ("fan", "00", "f/1"), ("pump", "00", "p1"), ("valve", "00", None)


def plant(root: str, recordings: str) -> tuple[Nights, dict[str, list[Row]]]:
    """Healthy recordings of three machines in a detector, and of a night two clips of each."""
    rows: dict[str, list[Row]] = {}
    for number, machine in enumerate((FAN, PUMP, VALVE)):
        name = machine[0]
        rows[f"{name} healthy"] = [
            recorded(f"{recordings}/{name}-train-{one}.wav", machine, wave(100 * number + one), "train")
            for one in range(10)
        ]
        rows[name] = [
            recorded(f"{recordings}/{name}-test-{one}.wav", machine, wave(900 + 10 * number + one, tone), "test")
            for one, tone in enumerate((None, None if name == "valve" else 3100.0))
        ]
    known = detector(root, [row for name, found in rows.items() if "healthy" in name for row in found])
    return Nights(root, known), rows


def night(nights: Nights, rows: dict[str, list[Row]]) -> Output:
    """The fan and the pump alarm, the fan more; of equal p-values the higher score is the worst clip."""
    clips = [row for name in ("fan", "pump", "valve") for row in rows[name]]
    scores = [
        scored(row, 1.0 + number % 2, 0.05, rows[f"{row['machine_type']} healthy"][:2])
        for number, row in enumerate(clips)
    ]
    decisions = [decided(FAN, 5.0), decided(PUMP, 3.5), decided(VALVE, 0.2)]
    return nights.add(decisions[0]["night"], decisions, clips, scores)


def made(root: str, of: Output, known: Output) -> Output:
    return steps.ensure(explain.step(of, known), root)


def test_each_alarming_machine_gets_its_sentence_once(root: str) -> None:
    nights, rows = plant(root, f"{root}/in")
    tonight = night(nights, rows)
    assert explain.known(root, tonight) is None
    found = made(root, tonight, nights.detector)
    told = explain.told(found)
    assert list(told) == [FAN, PUMP]
    for machine, (sentence, clip_id) in told.items():
        assert clip_id == f"plant/{machine[0]}-test-1.wav"
        assert re.fullmatch(
            r"a tone near 3\.1 kHz, \d+ dB above its nearest normals, 0\.[789] to 1\.[456] s", str(sentence)
        )
    first = found.table("why", WHY).to_pylist()[0]
    assert (first["kind"], first["night"]) == ("tone", decided(FAN, 1.0)["night"])
    assert 2500 < first["low"] < 3100 < first["high"] < 3700
    assert 0.6 < first["begin"] < 1.0
    assert 1.3 < first["end"] < 1.7
    near = [row["content_hash"] for row in rows["fan healthy"][:2]]
    assert first["normals"][:2] == near
    assert len(first["normals"]) == explain.NORMALS
    assert len(set(first["normals"])) == explain.NORMALS
    listened = {row["content_hash"] for row in found.table("clips", CLIPS).to_pylist()}
    assert {first["content_hash"], *first["normals"]} <= listened
    assert found.marker.counts == {"machines": 2, "plain": 2}
    assert made(root, tonight, nights.detector).reused
    again = explain.known(root, tonight)
    assert again
    assert again.uri == found.uri


def test_the_healthy_ones_are_of_the_same_machine_and_condition_where_there_are_such(tmp_path: Path) -> None:
    """Also where it has few among very many; a machine that was never enrolled is held against those of its kind."""
    root, recordings = str(tmp_path / "root"), str(tmp_path / "in")
    units = [("fan", "00", f"u{one}") for one in range(150)]
    enrolled = [
        recorded(f"{recordings}/{unit[2]}.wav", unit, wave(one, seconds=0.2), "train") for one, unit in enumerate(units)
    ]
    own = [
        recorded(f"{recordings}/own{one}.wav", FAN, wave(500 + one), "train", condition=f"speed {one % 2}")
        for one in range(12)
    ]
    clips = [
        recorded(f"{recordings}/{m[2][0]}.wav", m, wave(900 + one), "test")
        for one, m in enumerate((FAN, ("fan", "00", "new")))
    ]
    nights = Nights(root, detector(root, [*enrolled, *own]))
    scores = [scored(clips[0], 2.0, None, own[1:3:2]), scored(clips[1], 2.0, None, enrolled[:2])]
    rows = [decided(FAN, 5.0), decided(("fan", "00", "new"), 4.0)]
    of = nights.add(rows[0]["night"], rows, clips, scores)
    work = cloudpickle.loads(cloudpickle.dumps(explain.step(of, nights.detector).work))
    files = work(build.new_attempt(str(tmp_path / "elsewhere")), {"night": of}).files
    assert {file.rows for file in files} == {2, 18}, "it can be done on another machine"
    one, other = made(root, of, nights.detector).table("why", WHY).to_pylist()
    odd = {row["content_hash"] for row in own if row["condition"] == "speed 1"}
    assert one["normals"][0] == own[1]["content_hash"]
    assert set(one["normals"][:6]) == odd
    assert set(one["normals"]) <= {row["content_hash"] for row in own}
    assert other["normals"][:2] == [row["content_hash"] for row in enrolled[:2]]
    assert len(other["normals"]) == explain.NORMALS


def test_recordings_that_are_gone_fail_no_night(tmp_path: Path) -> None:
    root, recordings = str(tmp_path / "root"), tmp_path / "in"
    nights, rows = plant(root, str(recordings))
    tonight = night(nights, rows)
    (recordings / "fan-test-1.wav").unlink()
    for one in range(9):
        (recordings / f"pump-train-{one}.wav").write_bytes(b"changed")
    told = explain.told(made(root, tonight, nights.detector))
    sentence, clip_id = told[FAN]
    assert sentence
    assert sentence.startswith("its recording cannot be heard any more: ")
    assert "fan-test-1.wav" in sentence
    assert clip_id == "plant/fan-test-1.wav"
    assert str(told[PUMP][0]).startswith("a tone near 3.1 kHz, "), "one healthy one is left"


def test_without_any_healthy_recording_it_says_so(tmp_path: Path) -> None:
    root, recordings = str(tmp_path / "root"), tmp_path / "in"
    nights, rows = plant(root, str(recordings))
    tonight = night(nights, rows)
    store.remove(next(iter(nights.detector.marker.inputs.values())).uri)  # the table that told where they lie
    found = made(root, tonight, nights.detector)
    assert {sentence for sentence, _ in explain.told(found).values()} == {
        "none of its nearest normals can be heard any more"
    }
    assert found.marker.counts == {"machines": 2, "plain": 0}


def test_a_recording_of_another_rate_is_compared_as_far_as_both_go(tmp_path: Path) -> None:
    root, recordings = str(tmp_path / "root"), str(tmp_path / "in")
    healthy = [recorded(f"{recordings}/{one}.wav", FAN, wave(one), "train") for one in range(8)]
    clip = recorded(f"{recordings}/x.wav", FAN, wave(99, 2000.0, rate=8000), "test", 8000)
    nights = Nights(root, detector(root, healthy))
    of = nights.add(decided(FAN, 1.0)["night"], [decided(FAN, 4.0)], [clip], [scored(clip, 2.0, None, healthy[:1])])
    (row,) = made(root, of, nights.detector).table("why", WHY).to_pylist()
    assert row["sentence"].startswith("a tone near 2.0 kHz"), row["sentence"]


def test_a_quiet_night_and_a_great_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, recordings = str(tmp_path / "root"), str(tmp_path / "in")
    nights, rows = plant(root, recordings)
    day = decided(FAN, 1.0)["night"]
    quiet = nights.add(day, [decided(FAN, 0.5)], rows["fan"], [scored(row, 1.0, None) for row in rows["fan"]])
    assert explain.told(made(root, quiet, nights.detector)) == {}
    monkeypatch.setattr(explain, "AT_MOST", 1)
    great = nights.add(
        day, [decided(FAN, 4.0), decided(PUMP, 6.0)], rows["pump"], [scored(rows["pump"][1], 1.0, None)], revision=2
    )
    found = made(root, great, nights.detector)
    assert list(explain.told(found)) == [PUMP]
    assert build.resolve(found.uri, explain.STAGE).marker.counts == {"machines": 1, "plain": 1}

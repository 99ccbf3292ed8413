import io
import json
import wave
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ray_asd import store
from ray_asd.config import SAMPLE_RATE
from ray_asd.data.audio import decode
from ray_asd.data.csv_files import read_attributes
from ray_asd.data.detection import detect
from ray_asd.data.fleet import MACHINES
from ray_asd.data.layouts import parse
from ray_asd.data.simulate import Fleet, plan, render, write
from ray_asd.errors import UserError

SMALL = Fleet(machines=("fan", "valve"), train_source=3, train_target=2, test=2, seconds=1.0, seed=7)


def content(root: str) -> dict[str, bytes]:
    return {entry.path: store.read(store.join(root, entry.path)) for entry in store.listing(root)}


def test_the_default_fleet_has_the_counts_of_the_development_set() -> None:
    recordings = plan(Fleet())
    for machine in MACHINES:
        counts = Counter((r.split, r.domain, r.label) for r in recordings if r.machine == machine)
        assert counts == {
            ("train", "source", "normal"): 990,
            ("train", "target", "normal"): 10,
            ("test", "source", "normal"): 50,
            ("test", "source", "anomaly"): 50,
            ("test", "target", "normal"): 50,
            ("test", "target", "anomaly"): 50,
        }
    assert len({r.path for r in recordings}) == len({r.seed for r in recordings}) == len(recordings) == 7 * 1200


def test_names_say_what_the_plan_says() -> None:
    recordings = plan(replace(SMALL, machines=tuple(MACHINES)))
    assert detect(r.path for r in recordings).layout == "dcase2023"
    for r in recordings:
        clip = parse("dcase2023", r.path)
        assert clip is not None
        assert (clip.machine_type, clip.section, clip.split) == (r.machine, "00", r.split)
        assert (clip.domain, clip.label, clip.attributes) == (r.domain, r.label, r.attributes)
    assert recordings[0].path.startswith("bearing/train/section_00_source_train_normal_0000_vel_")


def test_conditions_and_faults_are_balanced_and_only_anomalies_have_faults() -> None:
    recordings = [r for r in plan(Fleet(machines=("bearing",), train_source=100, test=40)) if r.domain == "source"]
    conditions = Counter(tuple(r.attributes.items()) for r in recordings if r.split == "train")
    assert set(conditions.values()) == {10}  # of 5 speeds x 2 locations
    assert Counter(r.fault for r in recordings if r.label == "anomaly") == dict.fromkeys(MACHINES["bearing"].faults, 10)
    assert {(r.fault, r.severity) for r in recordings if r.label == "normal"} == {(None, 0.0)}


def test_other_machines_and_counts_leave_a_machine_as_it_was() -> None:
    alone = [r for r in plan(replace(SMALL, machines=("valve",), train_target=9)) if r.domain == "source"]
    assert alone == [r for r in plan(SMALL) if r.machine == "valve" and r.domain == "source"]


@pytest.mark.parametrize("machine", MACHINES)
def test_a_clip_is_sound_and_depends_on_its_seed_alone(machine: str) -> None:
    recordings = plan(replace(SMALL, machines=(machine,)))
    for recording in recordings[:2] + recordings[-2:]:
        heard = render(recording, 1.5)
        assert heard.dtype == np.float32
        assert heard.shape == (24_000,)
        assert np.isfinite(heard).all()
        assert np.abs(heard).max() <= 1
        assert np.std(heard) > 0.01
        np.testing.assert_array_equal(heard, render(recording, 1.5))
        assert np.std(heard - render(replace(recording, seed=(1, 2, 3)), 1.5)) > 0.01


def test_only_the_fault_moves_with_the_severity() -> None:
    anomaly = next(r for r in plan(SMALL) if r.fault == "leak")
    healthy = render(replace(anomaly, fault=None, severity=0.0), 2.0)
    deviations = [np.std(render(replace(anomaly, severity=s), 2.0) - healthy) for s in (0.0, 0.5, 1.0)]
    assert deviations[0] == 0
    assert deviations[2] == pytest.approx(2 * deviations[1], rel=0.01)


def test_written_data_set(root: str) -> None:
    steps: list[tuple[int, int]] = []
    assert write(SMALL, root, progress=lambda done, total: steps.append((done, total))) == 26
    files = content(root)
    assert set(files) == {r.path for r in plan(SMALL)} | {
        "fan/attributes_00.csv",
        "valve/attributes_00.csv",
        "fleet.json",
    }
    assert steps == [(done, 26) for done in range(1, 27)]
    for r in plan(SMALL):
        with wave.open(io.BytesIO(files[r.path])) as file:
            assert file.getparams()[:4] == (1, 2, SAMPLE_RATE, SAMPLE_RATE)  # mono, 16 bits, 16 kHz, 1 s
        np.testing.assert_allclose(decode(files[r.path], 0), render(r, 1.0), atol=1 / 32768)
    table = read_attributes(files["valve/attributes_00.csv"], "attributes_00.csv")
    assert table == {store.name(r.path): r.attributes for r in plan(SMALL) if r.machine == "valve"}
    lines = files["valve/attributes_00.csv"].decode().splitlines()
    assert lines[0] == "file_name,d1p,d1v,d2p,d2v"
    assert lines[1].startswith("valve/train/section_00_source_train_normal_0000_pat_")


def test_the_bytes_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    for workers in (1, 2):
        write(SMALL, str(tmp_path / str(workers)), workers=workers)
    assert content(str(tmp_path / "1")) == content(str(tmp_path / "2"))


def test_a_rerun_writes_nothing(tmp_path: Path) -> None:
    write(SMALL, str(tmp_path))
    before = list(store.listing(str(tmp_path)))
    assert write(replace(SMALL, machines=("valve", "fan"), seconds=1, severity=1), str(tmp_path)) == 26
    assert list(store.listing(str(tmp_path))) == before


def test_an_interrupted_run_is_finished(tmp_path: Path) -> None:
    write(SMALL, str(tmp_path))
    whole = content(str(tmp_path))
    (tmp_path / "fleet.json").unlink()
    (tmp_path / plan(SMALL)[3].path).unlink()
    write(SMALL, str(tmp_path))
    assert content(str(tmp_path)) == whole


@pytest.mark.parametrize("setting", [{"seed": 8}, {"severity": 2.0}, {"machines": ("fan",)}])
def test_another_fleet_is_not_written_over_the_first(setting: dict[str, object], tmp_path: Path) -> None:
    write(SMALL, str(tmp_path))
    before = content(str(tmp_path))
    with pytest.raises(UserError, match=r"fleet\.json describes another fleet"):
        write(replace(SMALL, **setting), str(tmp_path))
    assert content(str(tmp_path)) == before


def test_another_generator_version_is_another_fleet(tmp_path: Path) -> None:
    write(SMALL, str(tmp_path))
    marker = tmp_path / "fleet.json"
    description = json.loads(marker.read_text())
    marker.write_text(json.dumps(description | {"generator_version": 0}))
    with pytest.raises(UserError, match="another fleet"):
        write(SMALL, str(tmp_path))


def test_recordings_of_others_are_not_mixed_with_ours(tmp_path: Path) -> None:
    (tmp_path / "fan").mkdir()
    (tmp_path / "fan" / "real.wav").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds fan/real\.wav, which is not of this fleet"):
        write(SMALL, str(tmp_path))
    assert set(content(str(tmp_path))) == {"fan/real.wav"}


def test_a_file_is_no_place_for_a_fleet(tmp_path: Path) -> None:
    (tmp_path / "fleet").write_bytes(b"")
    with pytest.raises(UserError, match="fleet is a file; allowed: an empty or new place"):
        write(SMALL, str(tmp_path / "fleet"))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"machines": ("fan", "pump")}, "unknown machine 'pump'; allowed: bearing, fan, gearbox"),
        ({"machines": ()}, "no machines chosen; allowed: bearing"),
        ({"machines": ("fan", "fan")}, "machine 'fan' is named twice"),
        ({"train_source": 0}, "train_source 0: allowed: 1 to 10000 clips"),
        ({"train_target": -1}, "train_target -1: allowed"),
        ({"test": 10_001}, "test 10001: allowed"),
        ({"seconds": 0.5}, "seconds 0.5: allowed: 1.0 or more"),
        ({"seconds": float("nan")}, "seconds nan"),
        ({"seconds": float("inf")}, "seconds inf"),
        ({"severity": -0.1}, r"severity -0.1: allowed: 0 \(healthy\)"),
        ({"severity": float("nan")}, "severity nan"),
        ({"seed": -1}, "seed -1: allowed: 0 or more"),
    ],
)
def test_a_fleet_that_cannot_be_is_refused(setting: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Fleet(**setting)


def test_no_workers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="workers 0: allowed: 1 or more"):
        write(SMALL, str(tmp_path), workers=0)

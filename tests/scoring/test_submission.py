import csv
import math
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pytest

from odd_names import texts
from ray_asd import store, tables
from ray_asd.errors import UserError
from ray_asd.scoring import submission

OFFICIAL = Path(__file__).parent / "official_evaluator"
COLUMNS = ("clip_id", "machine_type", "section", "score", "decision")
SCHEMA = pa.schema([tables.SCORES.field(name) for name in (*COLUMNS, "domain")])
CLIPS = [f"section_00_{number:04d}.wav" for number in range(4)]
FAN, VALVE = "fan_section_00_test.csv", "valve_section_00_test.csv"


def put(path, values, names=CLIPS):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name},{value}\n" for name, value in zip(names, values, strict=True)))


def put_system(folder, machines=(FAN, VALVE), names=CLIPS):
    for machine in machines:
        put(folder / f"anomaly_score_{machine}", [0.5, -1.25, 3e-7, 2], names)
        put(folder / f"decision_result_{machine}", [1, 0, 0, 1], names)


@pytest.fixture
def truth(tmp_path):
    folder = tmp_path / "truth"
    for machine in (FAN, VALVE):
        put(folder / "ground_truth_data" / f"ground_truth_{machine}", [0, 1, 0, 1])
        put(folder / "ground_truth_domain" / f"ground_truth_{machine}", [0, 0, 1, 1])
        put(folder / "ground_truth_attributes" / f"ground_truth_{machine}", [f"was_{n}_spd_{n}" for n in range(4)])
    return str(folder)


@pytest.fixture
def system(tmp_path):
    put_system(tmp_path / "mine")
    return tmp_path / "mine"


def read(system, truth):
    return submission.read(str(system), truth).systems


def test_one_system_by_hand(system, truth):
    found = read(system, truth)
    assert list(found) == ["mine"]
    rows = found["mine"].to_pylist()
    assert [row["machine_type"] for row in rows] == ["fan"] * 4 + ["valve"] * 4
    assert rows[2] == {
        "clip_id": "fan/section_00_0002.wav",
        "machine_type": "fan",
        "section": "00",
        "domain": "target",
        "split": "test",
        "label": "normal",
        "score": 3e-7,
        "decision": 0,
    }
    assert [row["label"] for row in rows[:4]] == ["normal", "anomaly", "normal", "anomaly"]
    assert [row["domain"] for row in rows[:4]] == ["source", "source", "target", "target"]
    assert all(found["mine"].schema.field(name) == tables.SCORES.field(name) for name in found["mine"].schema.names)


def test_clips_are_joined_by_name_not_by_position(system, truth):
    expected = read(system, truth)["mine"]
    put(system / f"anomaly_score_{FAN}", [2, 3e-7, -1.25, 0.5], CLIPS[::-1])
    assert read(system, truth)["mine"] == expected


@pytest.mark.parametrize(
    "names", [[f"was_{n}_spd_{n}.wav" for n in range(4)], [f"section_00_test_{n:04d}.wav" for n in range(4)]]
)
def test_other_accepted_clip_names(system, truth, names):
    expected = read(system, truth)["mine"]
    put_system(system, names=names)
    assert read(system, truth)["mine"] == expected
    put_system(system, names=[CLIPS[0], *names[1:]])  # each file may mix them
    assert read(system, truth)["mine"] == expected


def test_attributes_are_optional(system, truth):
    for path in (Path(truth) / "ground_truth_attributes").iterdir():
        path.unlink()
    assert len(read(system, truth)["mine"]) == 8


def test_systems_are_the_folders_with_scores(system, truth, tmp_path):
    for place in ("teams/a/one", "teams/a/two", "teams/b/one"):
        put_system(tmp_path / place)
    (tmp_path / "teams/a/readme.txt").write_text("hello")
    (tmp_path / "teams/a/one/anomaly_score_pump_section_00_test.csv").write_text("not judged: the truth has no pump")
    found = read(tmp_path / "teams", truth)
    assert list(found) == ["a/one", "a/two", "b/one"]
    assert found["a/one"] == found["b/one"] == read(system, truth)["mine"]


def test_names_of_the_organisers_baseline(system, truth):
    expected = read(system, truth)["mine"]
    tail = "fan_section_00_test_seed13711_id(0_)_Eval.csv"
    for kind in ("anomaly_score", "decision_result"):
        (system / f"{kind}_{FAN}").rename(system / f"{kind}_DCASE2023T2{tail}")
    assert read(system, truth)["mine"] == expected
    (system / "anomaly_score_DCASE2023T2fan_section_00_test_seed1_id(0_)_Eval.csv").write_text("")
    with pytest.raises(
        UserError, match=r"2 files could be anomaly_score_fan_section_00_test\.csv: .*seed13711_.*seed1_"
    ):
        read(system, truth)


def test_without_any_decision_file_decisions_are_null(system, truth):
    for path in system.glob("decision_result_*"):
        path.unlink()
    assert read(system, truth)["mine"]["decision"].to_pylist() == [None] * 8


@pytest.mark.parametrize("missing", [f"anomaly_score_{VALVE}", f"decision_result_{VALVE}"])
def test_a_missing_file_is_named(system, truth, missing):
    (system / missing).unlink()
    with pytest.raises(UserError, match=f"mine lacks {missing}"):
        read(system, truth)


@pytest.mark.parametrize("kind", ["anomaly_score", "decision_result"])
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (CLIPS[1:], "1 clips of the ground truth are missing, the first is 'section_00_0000.wav'"),
        (CLIPS[:1], "3 clips of the ground truth are missing, the first is 'section_00_0001.wav'"),
        ([*CLIPS, "z.wav", "y.wav"], "2 clips are not in the ground truth, the first is 'y.wav'"),
        ([*CLIPS, CLIPS[2]], "1 file names occur more than once, the first is 'section_00_0002.wav'"),
        ([*CLIPS, "was_2_spd_2.wav"], "1 file names occur more than once, the first is 'section_00_0002.wav'"),
    ],
)
def test_clips_that_do_not_match_are_named(system, truth, kind, names, message):
    put(system / f"{kind}_{FAN}", [1] * len(names), names)
    with pytest.raises(UserError, match=f"{kind}_{FAN}: {message}"):
        read(system, truth)


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        (f"anomaly_score_{FAN}", "section_00_0001.wav,loud", "line 2: 'loud' is not a finite number"),
        (f"anomaly_score_{FAN}", "section_00_0001.wav,nan", "line 2: 'nan' is not a finite number"),
        (f"anomaly_score_{FAN}", "section_00_0001.wav,-inf", "line 2: '-inf' is not a finite number"),
        (f"anomaly_score_{FAN}", "section_00_0001.wav", "line 2: 1 values; a file name and a value are needed"),
        (f"anomaly_score_{FAN}", "section_00_0001.wav,1,2", "line 2: 3 values"),
        (f"decision_result_{FAN}", "section_00_0001.wav,2", "line 2: '2' is not 0 or 1"),
        (f"decision_result_{FAN}", "section_00_0001.wav,True", "line 2: 'True' is not 0 or 1"),
    ],
)
def test_wrong_lines_are_named(system, truth, file, line, message):
    lines = (system / file).read_text().splitlines()
    (system / file).write_text("\n".join([lines[0], line, *lines[2:]]))
    with pytest.raises(UserError, match=f"{file} {message}"):
        read(system, truth)


def test_text_as_windows_writes_it(system, truth):
    expected = read(system, truth)["mine"]
    path = system / f"anomaly_score_{FAN}"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert read(system, truth)["mine"] == expected
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=f"anomaly_score_{FAN} is not a CSV text file"):
        read(system, truth)


def test_a_damaged_ground_truth_is_named(system, truth):
    domains = Path(truth) / "ground_truth_domain" / f"ground_truth_{FAN}"
    put(domains, [0, 0, 1], CLIPS[:3])
    with pytest.raises(UserError, match=f"ground_truth_domain/ground_truth_{FAN}: 1 clips"):
        read(system, truth)
    domains.unlink()
    with pytest.raises(UserError, match=f"ground_truth_domain/ground_truth_{FAN} is missing"):
        read(system, truth)


def test_attributes_of_other_clips_are_refused(system, truth):
    put(Path(truth) / "ground_truth_attributes" / f"ground_truth_{FAN}", ["a", "b"], ["x.wav", "y.wav"])
    with pytest.raises(UserError, match=f"ground_truth_attributes/ground_truth_{FAN}: 4 clips of the ground truth"):
        read(system, truth)


def test_nothing_there_is_said(system, truth, tmp_path):
    with pytest.raises(UserError, match=r"no system: no anomaly_score_\*\.csv in .*nowhere"):
        read(tmp_path / "nowhere", truth)
    with pytest.raises(UserError, match=r"no ground truth: .*nowhere/ground_truth_data"):
        read(system, str(tmp_path / "nowhere"))


def scores(rows):
    return pa.Table.from_pylist([dict(zip(COLUMNS, row, strict=True)) for row in rows], schema=SCHEMA)


def test_written_files_by_hand(tmp_path):
    table = scores([("d/fan/test/b.wav", "fan", "00", 0.1, 0), ("d/fan/test/a.wav", "fan", "00", 1 / 3, 1)])
    written = submission.write(table, str(tmp_path / "out"))
    assert written == submission.Written([f"anomaly_score_{FAN}", f"decision_result_{FAN}"], [])
    assert (tmp_path / "out" / f"anomaly_score_{FAN}").read_text() == "a.wav,0.3333333333333333\nb.wav,0.1\n"
    assert (tmp_path / "out" / f"decision_result_{FAN}").read_text() == "a.wav,1\nb.wav,0\n"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(written.names)


def test_what_is_written_is_read_back_exactly(tmp_path):
    read_once = submission.read(str(OFFICIAL / "scores"), str(OFFICIAL)).systems["scores"]
    odd = [5e-324, 1.7976931348623157e308, math.nextafter(1, 2), -0.1, 0.0] * 300
    table = read_once.set_column(
        read_once.schema.names.index("score"), SCHEMA.field("score"), pa.array(odd[: len(read_once)])
    )
    written = submission.write(table, str(tmp_path / "again"))
    assert len(written.names) == 14
    assert submission.read(str(tmp_path / "again"), str(OFFICIAL)).systems == {"again": table}


def test_sections_without_decisions_are_told(tmp_path):
    table = scores([("a.wav", "fan", "00", 0.1, None), ("a.wav", "valve", "00", 0.2, 1), ("a.wav", "fan", "01", 1, 1)])
    written = submission.write(table, str(tmp_path))
    assert written.without_decisions == [f"decision_result_{FAN}"]
    assert written.names == [
        f"anomaly_score_{FAN}",
        "anomaly_score_fan_section_01_test.csv",
        "decision_result_fan_section_01_test.csv",
        f"anomaly_score_{VALVE}",
        f"decision_result_{VALVE}",
    ]


def test_two_clips_of_one_name_are_refused(tmp_path):
    table = scores([("d/one/a.wav", "fan", "00", 0.1, 0), ("d/two/a.wav", "fan", "00", 0.2, 0)])
    with pytest.raises(UserError, match=f"{FAN}: 1 file names occur more than once, the first is 'a.wav'"):
        submission.write(table, str(tmp_path))


def test_whatever_machines_are_called_each_section_has_its_files_in_the_folder(root):
    """With path parts, control characters, 300 letters; a section that looks like the middle of another's name."""
    above = store.join(root, "above", "submission")
    names = list(islice(texts(4), 60))
    keys = [(name, "00") for name in names] + [("fan", name) for name in names]
    keys += [("a", "00_section_00"), ("a_section_00", "00"), ("a_section", "section_b"), ("a", "section_section_b")]
    rows = [(f"d/{n}.wav", *key, n / 7, n % 2) for n, key in enumerate(keys)]
    written = submission.write(scores(rows), above)
    assert len(set(written.names)) == len(written.names) == 2 * len(keys)
    assert {entry.path for entry in store.listing(root)} == {f"above/submission/{name}" for name in written.names}
    read_back = [store.read(store.join(above, name)).decode() for name in written.names if name.startswith("anomaly")]
    assert sorted(read_back) == sorted(f"{n}.wav,{n / 7!r}\n" for n in range(len(keys)))


def test_machines_with_odd_names_are_judged_by_a_truth_that_spells_them_so(tmp_path):
    names = [name for name in islice(texts(5), 25) if "_section_" not in name]
    rows = [(f"d/{clip}", name, "00", 0.5, 1) for name in names for clip in CLIPS]
    for name in submission.write(scores(rows), str(tmp_path / "mine")).names:
        if name.startswith("anomaly"):
            end = name.removeprefix("anomaly_score_")
            put(tmp_path / "truth" / "ground_truth_data" / f"ground_truth_{end}", [0, 1, 0, 1])
            put(tmp_path / "truth" / "ground_truth_domain" / f"ground_truth_{end}", [0, 0, 1, 1])
    found = read(tmp_path / "mine", str(tmp_path / "truth"))["mine"]
    assert found.num_rows == len(rows)
    assert set(found["machine_type"].to_pylist()) == {store.file_name(name) for name in names}


def test_clip_names_stay_as_they_are(tmp_path):
    names = ["two\nlines.wav", 'comma, quote".wav', "=cmd().wav", "é%2F.wav", "a" * 251 + ".wav"]
    submission.write(scores([(f"d/{name}", "fan", "00", 1.0, 1) for name in names]), str(tmp_path))
    with (tmp_path / f"anomaly_score_{FAN}").open(newline="") as file:
        assert sorted(name for name, _ in csv.reader(file)) == sorted(names)

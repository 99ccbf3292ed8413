"""Official folders of every year are judged as their own scripts do, and written as the year's task asks."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from official_years import YEARS, clip_name, in_three, in_two, later, of_2020, of_2021, write
from ray_asd.errors import UserError
from ray_asd.scoring import ground_truth, metrics, official, submission


@pytest.mark.parametrize("year", YEARS)
def test_a_years_folder_gives_the_figure_of_its_evaluator(year: str, tmp_path: Path) -> None:
    make, protocol = YEARS[year]
    expected = make(tmp_path)
    found = submission.read(str(tmp_path / "teams"), str(tmp_path))
    assert found.protocol == protocol
    (table,) = found.systems.values()
    figures = metrics.evaluate(table, "we", protocol=protocol)
    assert metrics.official_score(figures) == pytest.approx(expected, rel=1e-12)
    assert official.table(figures)[-1] == ["official score", None, metrics.official_score(figures)]
    decided = [clip is not None for clip in table["decision"].to_pylist()]
    assert set(decided) == {year != "2020"}


@pytest.mark.parametrize("year", YEARS)
def test_what_is_written_has_the_years_names_and_is_read_back(year: str, tmp_path: Path) -> None:
    make, protocol = YEARS[year]
    make(tmp_path)
    (given,) = submission.read(str(tmp_path / "teams"), str(tmp_path)).systems.values()
    written = submission.write(given, str(tmp_path / "again"), protocol)
    assert sorted(written.names) == sorted(path.name for path in (tmp_path / "teams").rglob("*.csv"))
    assert submission.read(str(tmp_path / "again"), str(tmp_path)).systems == {"again": given}


def test_result_files_of_2020_and_2021_are_laid_out_as_theirs(tmp_path: Path) -> None:
    of_2020(tmp_path / "20")
    (table,) = submission.read(str(tmp_path / "20"), str(tmp_path / "20")).systems.values()
    lines = official.table(metrics.evaluate(table, "we", protocol="dcase2020"))
    assert lines[:2] == [["ToyCar"], ["id", "AUC", "pAUC"]]
    assert [line[0] for line in lines[2:5]] == ["05", "07", "Average"]
    assert lines[4][1] == pytest.approx(np.mean([lines[2][1], lines[3][1]]))
    of_2021(tmp_path / "21")
    (table,) = submission.read(str(tmp_path / "21"), str(tmp_path / "21")).systems.values()
    lines = official.table(metrics.evaluate(table, "we", protocol="dcase2021"))
    assert lines[1] == ["section", "domain", "AUC", "pAUC", "precision", "recall", "F1 score"]
    assert [line[:2] for line in lines[2:6]] == [["03", "source"], ["05", "source"], ["03", "target"], ["05", "target"]]
    means = {line[0]: line[2:] for line in lines if line and str(line[0]).startswith("harmonic")}
    over_all = means["harmonic mean over all machine types, sections, and domains"]
    own = [line for line in lines if line and line[1:] and line[1] in ("source", "target")]
    assert over_all[:2] == [pytest.approx(stats.hmean([line[column] for line in own])) for column in (2, 3)]


@pytest.mark.parametrize("column", [0, 1])
def test_clips_go_by_either_of_two_telling_names(tmp_path: Path, column: int) -> None:
    later(tmp_path, {"HoveringDrone": ["00"]}, in_three)
    expected = submission.read(str(tmp_path / "teams"), str(tmp_path)).systems
    (truth,) = ground_truth.read(str(tmp_path))
    attributes = tmp_path / "ground_truth_attributes" / "ground_truth_HoveringDrone_section_00_test.csv"
    names = {line.split(",")[0]: line.strip().split(",")[1:][column] for line in attributes.read_text().splitlines()}
    for path in (tmp_path / "teams").rglob("*.csv"):
        rows = [line.split(",") for line in path.read_text().splitlines()]
        write(path, [(f"{names[name].removesuffix('.wav')}.wav", value) for name, value in rows])
    assert submission.read(str(tmp_path / "teams"), str(tmp_path)).systems == expected
    assert truth.known_as[f"{names[clip_name('00', 3)].removesuffix('.wav')}.wav"] == clip_name("00", 3)


def test_without_a_file_of_domains_the_names_tell_them_or_there_are_none(tmp_path: Path) -> None:
    later(tmp_path, {"ToyPet": ["00"]}, in_two)
    expected = submission.read(str(tmp_path / "teams"), str(tmp_path)).systems
    (tmp_path / "ground_truth_domain").rename(tmp_path / "aside")
    assert submission.read(str(tmp_path / "teams"), str(tmp_path)).systems == expected
    (tmp_path / "ground_truth_attributes").rename(tmp_path / "aside" / "too")
    (table,) = submission.read(str(tmp_path / "teams"), str(tmp_path)).systems.values()
    assert table["domain"].null_count == table.num_rows
    assert set(metrics.evaluate(table, "we")["protocol"].to_pylist()) == {"no-domain"}


def test_the_list_of_a_later_year_is_ground_truth_too(tmp_path: Path) -> None:
    """2025's, whose numbers repeat between domains and labels; by itself, and where the folder holds it."""
    later(tmp_path / "folder", {"AutoTrash": ["00"]}, in_two)
    expected = submission.read(str(tmp_path / "folder" / "teams"), str(tmp_path / "folder")).systems
    attributes = tmp_path / "folder" / "ground_truth_attributes" / "ground_truth_AutoTrash_section_00_test.csv"
    rows = [line.split(",") for line in attributes.read_text().splitlines()]
    listed = [
        ("AutoTrash",),
        *((name, f"{told[: told.index('_vel')][:-4]}0001_id_{name[-8]}.wav") for name, told in rows),
    ]
    write(tmp_path / "list" / "eval_data_list_2025.csv", listed)
    for place in (tmp_path / "list", tmp_path / "list" / "eval_data_list_2025.csv"):
        assert submission.read(str(tmp_path / "folder" / "teams"), str(place)).systems == expected


def test_ground_truth_that_does_not_fit_is_refused_in_one_line(tmp_path: Path) -> None:
    bad = {
        "pump\nid_01_00000000.wav,anomaly_id_01_00000000.wav,0\n": "line 2: .* is anomaly, but the last cell is '0'",
        "id_01_00000000.wav,anomaly_id_01_00000000.wav,1\n": "line 1: .*; allowed: a machine type, or an anony",
        "pump\nid_01_00000000.wav,id_01_00000000.wav\n": "line 2: .* allowed: a machine type, or an anonymous name and",
        "pump\n": r"no ground truth: .*list\.csv names no clip; allowed: the folder of an official evaluator",
    }
    write(tmp_path / "we" / "anomaly_score_pump_id_01.csv", [("id_01_00000000.wav", 1)])
    for text, message in bad.items():
        (tmp_path / "list.csv").write_text(text)
        with pytest.raises(UserError, match=message) as caught:
            submission.read(str(tmp_path / "we"), str(tmp_path / "list.csv"))
        assert "\n" not in str(caught.value)
    of_2021(tmp_path / "21")
    later(tmp_path / "21", {"fan": ["00"]}, in_two)
    with pytest.raises(UserError, match="holds the ground truth of dcase2021 and dcase2023; allowed: of one year"):
        submission.read(str(tmp_path / "21" / "teams"), str(tmp_path / "21"))


def test_files_of_a_domain_need_one(tmp_path: Path) -> None:
    of_2020(tmp_path)
    (table,) = submission.read(str(tmp_path / "teams"), str(tmp_path)).systems.values()
    with pytest.raises(UserError, match="ToyCar section 05: files of dcase2021 are of a domain, and a clip has none"):
        submission.write(table, str(tmp_path / "out"), "dcase2021")


def test_sections_may_have_names_of_their_own(tmp_path: Path) -> None:
    for name, labels in (("ground_truth_data", [0, 1]), ("ground_truth_domain", [0, 1])):
        write(
            tmp_path / name / "ground_truth_big_id_press_section_line_id_2_test.csv",
            list(zip("ab", labels, strict=True)),
        )
    write(tmp_path / "we" / "anomaly_score_big_id_press_section_line_id_2_test.csv", [("a", 1), ("b", 2)])
    (table,) = submission.read(str(tmp_path / "we"), str(tmp_path)).systems.values()
    assert set(zip(*(table[name].to_pylist() for name in ("machine_type", "section")), strict=True)) == {
        ("big_id_press", "line_id_2")
    }

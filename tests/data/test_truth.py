"""Labels and attributes as the evaluators of 2020, 2022 and 2024 publish them, joined to anonymous clips."""

from pathlib import Path

import pytest

from ray_asd.data.listing import read_listing
from ray_asd.data.source import Source
from ray_asd.errors import UserError


def put(folder: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return str(folder)


def told(source: str, truth: str, layout: str) -> dict[str, tuple[str | None, str | None, dict[str, str]]]:
    listing = read_listing(Source(source, truth=truth, layout=layout))
    return {
        row["clip_id"].rpartition("/")[2]: (row["label"], row["domain"], dict(row["attributes"]))
        for row in listing.clips.rows()
        if row["split"] == "test"
    }


@pytest.mark.parametrize(
    ("cells", "attributes"),
    [
        ("section_00_target_test_anomaly_0007_noAttribute,section_00_target_test_anomaly_0007_mot_B_w_3.wav", True),
        ("section_00_target_test_anomaly_0007_mot_B_w_3", True),
        ("section_00_target_test_anomaly_0007_noAttribute", False),
    ],
)
def test_attributes_of_2024_in_two_cells_or_three(tmp_path: Path, cells: str, attributes: bool) -> None:
    source = put(tmp_path / "eval", {"ToothBrush/test/section_00_0007.wav": ""})
    name = "ground_truth_ToothBrush_section_00_test.csv"
    truth = put(
        tmp_path / "truth",
        {
            f"ground_truth_data/{name}": "section_00_0007.wav,1\n",
            f"ground_truth_domain/{name}": "section_00_0007.wav,1\n",
            f"ground_truth_attributes/{name}": f"section_00_0007.wav,{cells}\n",
        },
    )
    known = {"mot": "B", "w": "3"} if attributes else {}
    assert told(source, truth, "dcase2024") == {"section_00_0007.wav": ("anomaly", "target", known)}
    (tmp_path / "truth" / "ground_truth_attributes" / name).write_text("section_00_0007.wav\n")
    with pytest.raises(UserError, match="line 1: 'section_00_0007.wav'; allowed: a file name and names that tell"):
        told(source, truth, "dcase2024")


def test_attributes_of_2022_lie_in_folders_of_machines(tmp_path: Path) -> None:
    source = put(tmp_path / "eval", {"bearing/test/section_04_0011.wav": "", "bearing/test/section_05_0011.wav": ""})
    files = {}
    for section, speed in (("04", "7"), ("05", "9")):
        name = f"ground_truth_bearing_section_{section}_test.csv"
        files[f"ground_truth_data/{name}"] = f"section_{section}_0011.wav,0\n"
        files[f"ground_truth_domain/{name}"] = f"section_{section}_0011.wav,0\n"
        files[f"ground_truth_attributes/bearing/attributes_{section}.csv"] = (
            "file_name,d1p,d1v,file_name_with_full_attributes\n"
            f"bearing/test/section_{section}_0011.wav,vel,{speed},"
            f"bearing/test/section_{section}_source_test_normal_0011_vel_{speed}.wav\n"
        )
    assert told(source, put(tmp_path / "truth", files), "dcase2022") == {
        "section_04_0011.wav": ("normal", "source", {"vel": "7"}),
        "section_05_0011.wav": ("normal", "source", {"vel": "9"}),
    }


def test_the_folder_of_2020_holds_a_list(tmp_path: Path) -> None:
    source = put(tmp_path / "eval", {"slider/test/id_03_00000042.wav": "", "slider/test/id_05_00000000.wav": ""})
    lines = [
        "slider",
        "id_03_00000042.wav,normal_id_03_00000042.wav,0",
        "id_05_00000000.wav,anomaly_id_05_00000000.wav,1",
    ]
    truth = put(tmp_path / "truth", {"eval_data_list.csv": "\n".join(lines), "evaluator.py": "", "teams/a.csv": ""})
    found = told(source, truth, "dcase2020")
    assert {name: label for name, (label, _, _) in found.items()} == {
        "id_03_00000042.wav": "normal",
        "id_05_00000000.wav": "anomaly",
    }

import pytest

from ray_asd.data.detection import detect
from ray_asd.errors import UserError

TRAIN = "fan/train/section_00_source_train_normal_0012_m-n_W.wav"
TEST = "fan/test/section_00_target_test_anomaly_0199_m-n_X.wav"
SHOT = "{}/train/section_00_source_train_normal_0001_{}.wav"
EARLY = "{}/train/section_0{}_source_train_normal_0001_a_1.wav"

TREES = {
    "dcase2020": ["fan/train/normal_id_00_00000000.wav", "fan/test/anomaly_id_00_00000000.wav"],
    "dcase2021": [
        *(EARLY.format("pump", section) for section in range(3)),
        "pump/source_test/section_00_source_test_normal_0000.wav",
        "pump/target_test/section_00_target_test_anomaly_0000.wav",
    ],
    "dcase2022": [
        *(EARLY.format("bearing", section) for section in range(3)),
        "bearing/test/section_00_source_test_normal_0000_vel_6.wav",
        "bearing/attributes_00.csv",
    ],
    "dcase2023": [SHOT.format("bandsaw", "vel_1000"), "bandsaw/test/section_00_0000.wav"],
    "dcase2024": [SHOT.format("gearbox", "noAttribute"), SHOT.format("bearing", "vel_6"), SHOT.format("fan", "m-n_A")],
    "dcase2025": [SHOT.format("bearing", "noAttribute"), SHOT.format("gearbox", "volt_1"), SHOT.format("fan", "m-n_A")],
    "dcase2026": [SHOT.format("gearboxEmu", ""), SHOT.format("fan", "m-n_A")],
    "mimii": ["6_dB_fan/fan/id_00/normal/00000000.wav", "6_dB_fan/fan/id_00/abnormal/00000000.wav"],
}


@pytest.mark.parametrize("layout", TREES)
def test_each_year_is_recognised_and_says_why(layout: str) -> None:
    found = detect(TREES[layout])
    recordings = len([path for path in TREES[layout] if path.endswith(".wav")])
    assert found.layout == layout
    assert found.why.startswith(f"{layout}: {recordings} of {recordings} recordings follow its names; section 0")


@pytest.mark.parametrize(
    ("paths", "layout", "why"),
    [
        ([TRAIN, TEST], "dcase2023", "dcase2024, dcase2025, dcase2026 would be read in the same way"),
        ([SHOT.format("press", "a_1")], "dcase2023", "none of its machine types"),
        ([SHOT.format("slider", "noAttribute")], "dcase2024", "attributes hidden for slider as there; dcase2025 would"),
        ([TRAIN, "fan/supplemental/section_00_machine_0001_.wav"], "dcase2025", "dcase2026 would be read in the same"),
        ([EARLY.format("fan", 3), "fan/attributes_03.csv"], "dcase2022", "section 03"),
    ],
)
def test_look_alikes_are_told_apart_or_named(paths: list[str], layout: str, why: str) -> None:
    found = detect(paths)
    assert found.layout == layout
    assert why in found.why


def test_detect_takes_what_most_recordings_follow() -> None:
    strays = ["readme.md", "fan/attributes_00.csv", "fan/train/notes.wav"]
    found = detect([*strays, TRAIN, TEST])
    assert found.layout == "dcase2023"
    assert "2 of 3 recordings" in found.why
    assert detect(["line3/clips.CSV"]).layout == "csv"


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["x/b.wav", "x/a.wav", TRAIN], r"no layout fits: found 3 audio file\(s\) among 3 file\(s\), such as .*\.wav'"),
        (
            ["x.txt", "y.md"],
            r"found 0 audio file\(s\) among 2 file\(s\), such as 'x.txt'; name the layout: dcase2020, ",
        ),
        ([], r"found 0 audio file\(s\) among 0 file\(s\); name the layout: .*, flat, csv; or give the pattern"),
        ([TRAIN, "fan/train/normal_id_00_00000000.wav"], "no layout fits: found 2 audio"),
    ],
)
def test_detect_refuses_what_nothing_fits(paths: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        detect(paths)


def test_detect_refuses_what_two_fit_and_says_how_they_differ() -> None:
    with pytest.raises(
        UserError, match=r"^layouts dcase2021 and dcase2022 fit equally \(dcase2021 has sections"
    ) as two:
        detect([EARLY.format("fan", section) for section in range(3)])
    assert "dcase2021 metrics; dcase2022 has sections 00 01 02 or 03 04 05 and dcase2023 metrics" in str(two.value)
    assert "\n" not in str(two.value)

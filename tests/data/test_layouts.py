import random
import string

import pytest

from ray_asd.data import layouts
from ray_asd.data.layouts import ParsedClip, attributes_in, condition, held_out, parse
from ray_asd.data.years import FORMS, LAYOUTS
from ray_asd.errors import UserError

TRAIN = "fan/train/section_00_source_train_normal_0012_m-n_W.wav"
TEST = "fan/test/section_00_target_test_anomaly_0199_m-n_X.wav"


def clip(
    split: str, label: str | None, domain: str | None = None, section: str = "00", **attributes: str
) -> ParsedClip:
    return ParsedClip("fan", section, None, domain, split, label, attributes)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (TRAIN, clip("train", "normal", "source", **{"m-n": "W"})),
        (TEST, clip("test", "anomaly", "target", **{"m-n": "X"})),
        ("fan/test/section_00_source_test_normal_0000.wav", clip("test", "normal", "source")),
        ("fan/test/section_00_source_test_normal_0000_.wav", clip("test", "normal", "source")),
        ("fan/test/section_00_source_test_normal_0000_noAttribute.wav", clip("test", "normal", "source")),
        ("fan/test/section_00_0007.wav", clip("test", None)),
        ("fan/test/section_00_test_0007.FLAC", clip("test", None)),
        (
            "fan/train/section_03_target_train_normal_12345_vel_6_loc_A.Wav",
            clip("train", "normal", "target", "03", vel="6", loc="A"),
        ),
        (
            "fan/train/section_00_source_train_normal_0000_weight15_BckgF_x.wav",
            clip("train", "normal", "source", attributes="weight15_BckgF_x"),
        ),
        (
            "fan/train/section_00_source_train_normal_0000_a_1_a_2.wav",
            clip("train", "normal", "source", attributes="a_1_a_2"),
        ),
        ("dev_fan/" + TRAIN, clip("train", "normal", "source", **{"m-n": "W"})),
        ("2023/dev/" + TEST, clip("test", "anomaly", "target", **{"m-n": "X"})),
        ("fan/test_rename/section_00_source_test_normal_0012_vel_2.wav", clip("test", "normal", "source", vel="2")),
    ],
)
def test_dcase2023_names(path: str, expected: ParsedClip) -> None:
    assert parse("dcase2023", path) == expected


@pytest.mark.parametrize(
    "path",
    [
        TRAIN.replace("_train_", "_test_"),
        TRAIN.replace("/train/", "/test/"),
        TRAIN.replace("normal", "anomaly"),
        TRAIN.replace("source", "both"),
        TRAIN.replace("0012", "12"),
        TRAIN.replace(".wav", ".mp3"),
        TRAIN.replace("section_00", "section_x"),
        "train/section_00_source_train_normal_0012.wav",
        "fan/train/section_00_0007.wav",
        "fan/section_00_source_train_normal_0012.wav",
        "fan/test/section_\u0660\u0660_0007.wav",
        "fan/test/extra/section_00_0007.wav",
        "fan/attributes_00.csv",
        "",
        "/",
    ],
)
def test_other_names_are_no_clips_of_dcase2023(path: str) -> None:
    assert parse("dcase2023", path) is None


def test_an_attribute_csv_counts_before_the_name() -> None:
    given = parse("dcase2023", TRAIN, {"f-n": "2"})
    assert given is not None
    assert given.attributes == {"f-n": "2"}
    none = parse("dcase2023", TRAIN, {})
    assert none is not None
    assert none.attributes == {}


YEARS = {
    "dcase2020": {
        "fan/train/normal_id_00_00000000.wav": ParsedClip("fan", "00", "id_00", None, "train", "normal", {"id": "00"}),
        "dev_data_fan/fan/test/anomaly_id_06_00000357.wav": ParsedClip(
            *("fan", "06", "id_06", None, "test", "anomaly"), {"id": "06"}
        ),
        "ToyCar/test/id_05_00000514.wav": ParsedClip("ToyCar", "05", "id_05", None, "test", None, {"id": "05"}),
        "fan/train/anomaly_id_00_00000000.wav": None,
        "fan/train/normal_id_0_00000000.wav": None,
        "fan/test/section_00_0000.wav": None,
    },
    "dcase2021": {
        "fan/train/section_00_source_train_normal_0000_strength_1_ambient.wav": clip(
            "train", "normal", "source", attributes="strength_1_ambient"
        ),
        "fan/source_test/section_02_source_test_anomaly_0099.wav": clip("test", "anomaly", "source", "02"),
        "fan/target_test/section_05_target_test_0199.wav": clip("test", None, "target", "05"),
        "fan/test/section_00_target_test_normal_0000.wav": clip("test", "normal", "target"),
        "fan/test/section_03_source_test_0000.wav": clip("test", None, "source", "03"),
        "fan/source_test/section_02_target_test_anomaly_0099.wav": None,
        "fan/both_test/section_02_both_test_anomaly_0099.wav": None,
    },
    "dcase2022": {
        "bearing/test/section_01_target_test_normal_0000_vel_6.wav": ParsedClip(
            *("bearing", "01", None, "target", "test", "normal"), {"vel": "6"}
        ),
        "fan/test/section_03_test_0199.wav": clip("test", None, section="03"),
        "fan/source_test/section_00_source_test_normal_0000.wav": None,
    },
    "dcase2024": {
        "fan/test_rename/section_00_source_normal_0035_weight15_BckgF.wav": clip(
            "test", "normal", "source", weight15="BckgF"
        ),
        "fan/train/section_00_target_train_normal_0010_noAttribute.wav": clip("train", "normal", "target"),
        "fan/train/section_00_target_normal_0010_x_1.wav": clip("train", "normal", "target", x="1"),
        "fan/supplemental/section_00_machine_0001_.wav": None,
    },
    "dcase2025": {
        "eval/fan/train/section_00_source_train_normal_1490_mic_imp34dt05_mic_pos_A_grind_100_bkg_A.wav": clip(
            "train", "normal", "source", attributes="mic_imp34dt05_mic_pos_A_grind_100_bkg_A"
        ),
        "fan/supplemental/section_00_machine_0001_.wav": clip("supplemental", None),
        "fan/supplemental/section_00_source_supplemental_normal_0001_vel_2.wav": clip("supplemental", None, vel="2"),
        "fan/test/section_00_0233.wav": clip("test", None),
    },
    "dcase2026": {
        "ToyCarEmu/train/section_00_source_train_normal_0001_.wav": ParsedClip(
            *("ToyCarEmu", "00", None, "source", "train", "normal")
        ),
        "fan/supplemental/section_00_noise_0001.wav": clip("supplemental", None),
    },
    "mimii": {
        "fan/id_00/normal/00000000.wav": ParsedClip("fan", "00", "id_00", None, "train", "normal", {"id": "00"}),
        "-6_dB_fan/fan/id_06/abnormal/00000012.wav": ParsedClip(
            *("fan", "06", "id_06", None, "test", "anomaly"), {"snr": "-6", "id": "06"}
        ),
        "x/0_dB_fan/fan/id_02/normal/00000012.wav": ParsedClip(
            *("fan", "02", "id_02", None, "train", "normal"), {"snr": "0", "id": "02"}
        ),
        "fan/id_00/broken/00000000.wav": None,
        "id_00/normal/00000000.wav": None,
    },
}
NAMES = [(layout, path, expected) for layout, names in YEARS.items() for path, expected in names.items()]


@pytest.mark.parametrize(("layout", "path", "expected"), NAMES)
def test_the_names_of_each_year(layout: str, path: str, expected: ParsedClip | None) -> None:
    assert parse(layout, path) == expected


def test_no_path_fits_two_forms_of_recognisable_layouts() -> None:
    forms = {form for layout in LAYOUTS.values() if layout.protocol for form in layout.forms}
    for path in [TRAIN, TEST, *(path for _, path, expected in NAMES if expected)]:
        assert sum(FORMS[form].fullmatch(path) is not None for form in forms) == 1, path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("section_00_source_test_anomaly_0009_pro_A_wt_0.wav", {"pro": "A", "wt": "0"}),
        ("section_00_target_test_normal_0001_vel_1.5", {"vel": "1.5"}),
        ("section_00_source_test_anomaly_0001_noAttribute.wav", {}),
        ("section_00_0001.wav", {}),
        ("whatever.wav", {}),
    ],
)
def test_attributes_told_by_a_name_alone(name: str, expected: dict[str, str]) -> None:
    assert attributes_in(name) == expected


def test_mimii_holds_out_as_many_normal_clips_as_there_are_anomalies_but_at_most_half() -> None:
    names = [f"fan/id_00/normal/{number:08d}.wav" for number in range(7)]
    names += [f"fan/id_00/abnormal/{number:08d}.wav" for number in range(2)]
    names += [f"fan/id_02/normal/{number:08d}.wav" for number in range(5)]
    names += [f"fan/id_02/abnormal/{number:08d}.wav" for number in range(9)]
    parsed = {path: found for path in reversed(names) if (found := parse("mimii", path))}
    held = held_out("mimii", parsed)
    assert set(held) == set(names)
    tested = sorted(path for path, found in held.items() if (found.split, found.label) == ("test", "normal"))
    assert tested == names[:2] + names[9:11]
    assert held_out("dcase2023", parsed) == parsed


def test_mimii_follows_the_split_that_is_given() -> None:
    normal, abnormal = "fan/id_00/normal/00000000.wav", "fan/id_00/abnormal/00000000.wav"
    given = [parse("mimii", path, split="test") for path in (normal, abnormal)]
    assert [found and (found.split, found.label) for found in given] == [("test", "normal"), ("test", "anomaly")]
    assert parse("mimii", abnormal, split="train") is None


@pytest.mark.parametrize("layout", [*YEARS, "dcase2023", "flat"])
def test_random_changes_of_a_name_are_understood_or_refused(layout: str) -> None:
    chance = random.Random(layout)
    good = [path for path, expected in YEARS.get(layout, {}).items() if expected]
    understood = 0
    for _ in range(2000):
        letters = list(chance.choice(good or [TRAIN, TEST, "fan/test/section_00_0007.wav"]))
        for _ in range(chance.randint(1, 3)):
            position = chance.randrange(len(letters))
            letters[position] = chance.choice(["", "_", "/", "é", "\n", "\0", *string.printable])
        path = "".join(letters)
        found = parse(layout, path, machine_type="fan", split="test" if layout == "flat" else None)
        if found is None:
            continue
        understood += 1
        assert f"/{found.machine_type}/" in f"/{path}" or layout == "flat"
        assert found.split in path or layout in ("flat", "mimii")
        assert layout == "flat" or f"section_{found.section}_" in path or f"id_{found.section}" in path
        assert found.label is None or found.label in path or "abnormal" in path
        assert found.domain is None or f"_{found.domain}_" in path
        assert (found.split, found.label) != ("train", "anomaly")
        assert condition(found.machine_type, found.section, found.attributes)
        assert parse(layout, path, machine_type="fan", split="test" if layout == "flat" else None) == found
    assert 50 < understood < 1990 or layout == "flat"


@pytest.mark.parametrize(
    ("path", "split", "expected"),
    [
        ("a.wav", "train", clip("train", "normal")),
        ("a.wav", "test", clip("test", None)),
        ("train/night/a.flac", None, clip("train", "normal")),
        ("calibration/a.wav", "test", clip("calibration", "normal")),
        ("test/normal/a.wav", None, clip("test", "normal")),
        ("test/x/abnormal/y/a.wav", None, clip("test", "anomaly")),
        ("anomaly/a.wav", "test", clip("test", "anomaly")),
        ("abnormal.wav", "test", clip("test", None)),
        ("x/train/a.wav", "test", clip("test", None)),
        ("anomaly/a.wav", "train", None),
        ("train/abnormal/a.wav", None, None),
        ("train/a.txt", None, None),
    ],
)
def test_flat_folders(path: str, split: str | None, expected: ParsedClip | None) -> None:
    assert parse("flat", path, machine_type="fan", split=split) == expected


def test_flat_needs_what_its_names_do_not_say() -> None:
    with pytest.raises(UserError, match=r"^a\.wav: the split is not named; allowed: train, calibration, test, suppl"):
        parse("flat", "a.wav", machine_type="fan")
    with pytest.raises(UserError, match=r"unknown split \(a\.wav\) 'dev'; allowed: train"):
        parse("flat", "a.wav", machine_type="fan", split="dev")
    with pytest.raises(UserError, match="layout flat does not name the machine type"):
        parse("flat", "train/a.wav")


def test_an_unknown_layout_is_named_with_the_known_ones() -> None:
    with pytest.raises(
        UserError, match=r"unknown layout 'dcase1999'; allowed: dcase2020, .*, dcase2026, mimii, flat, csv"
    ):
        parse("dcase1999", "a.wav")


@pytest.mark.parametrize(
    ("path", "machine"),
    [
        ("fan/attributes_00.csv", "fan"),
        ("dev_fan/fan/attributes_03.csv", "fan"),
        ("attributes_00.csv", None),
        (TRAIN, None),
    ],
)
def test_attribute_csvs_belong_to_a_machine(path: str, machine: str | None) -> None:
    assert layouts.attributes_of(path) == machine


@pytest.mark.parametrize("path", ["fan/attributes_00.csv", "fleet.json", "README.md", "a/readme", "LICENSE.txt"])
def test_sidecars(path: str) -> None:
    assert layouts.is_sidecar(path)


@pytest.mark.parametrize("path", [TRAIN, "fan/readme.wav.bak.wav", "notes.txt", "fan/fleet.json.wav", "attributes.csv"])
def test_everything_else_is_no_sidecar(path: str) -> None:
    assert not layouts.is_sidecar(path)


def test_condition_is_sorted_and_tells_attributes_apart() -> None:
    ordered = condition("fan", "00", {"f-n": "2", "m-n": "A"})
    assert condition("fan", "00", {"m-n": "A", "f-n": "2"}) == ordered == "fan|f-n=2|m-n=A"
    assert condition("fan", "00", {}) == "fan"
    assert condition("fan", "01", {"vel": "6"}) == "fan|section=01|vel=6"
    tricky = [{"a": "1", "b": "2"}, {"a": "1|b=2"}, {"a": "1%7Cb%3D2"}, {"a=1|b": "2"}]
    assert len({condition("fan", "00", attributes) for attributes in tricky}) == len(tricky)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("fan/test/a.wav", "fleet/fan/test/a.wav"),
        ("/data/a.wav", "fleet/data/a.wav"),
        ("s3://bucket/a.wav", "fleet/bucket/a.wav"),
    ],
)
def test_clip_id(path: str, expected: str) -> None:
    assert layouts.clip_id("fleet", path) == expected

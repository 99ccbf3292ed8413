import random
import string

import pytest

from ray_asd.data import layouts
from ray_asd.data.layouts import ParsedClip, condition, detect, parse
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
        ("fan/supplemental/section_00_machine_0001_.wav", clip("supplemental", None)),
        ("fan/supplemental/section_00_source_supplemental_normal_0001_vel_2.wav", clip("supplemental", None, vel="2")),
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


def test_random_changes_of_a_name_are_understood_or_refused() -> None:
    chance = random.Random(0)
    understood = 0
    for _ in range(4000):
        letters = list(chance.choice([TRAIN, TEST, "fan/test/section_00_0007.wav"]))
        for _ in range(chance.randint(1, 3)):
            position = chance.randrange(len(letters))
            letters[position] = chance.choice(["", "_", "/", "é", "\n", *string.printable])
        path = "".join(letters)
        found = parse("dcase2023", path)
        if found is None:
            continue
        understood += 1
        assert f"{found.machine_type}/{found.split}/section_{found.section}" in path
        assert found.label is None or f"_{found.label}_" in path
        assert found.domain is None or f"_{found.domain}_" in path
        assert (found.split, found.label) != ("train", "anomaly")
        assert condition(found.machine_type, found.attributes)
    assert 100 < understood < 3900


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
    with pytest.raises(UserError, match=r"unknown layout 'dcase1999'; allowed: dcase2023, flat, csv"):
        parse("dcase1999", "a.wav")


def test_detect_takes_what_most_recordings_follow() -> None:
    strays = ["readme.md", "fan/attributes_00.csv", "fan/train/notes.wav"]
    assert detect([*strays, TRAIN, TEST]) == "dcase2023"
    assert detect(["line3/clips.CSV"]) == "csv"


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["x/b.wav", "x/a.wav", TRAIN], r"no layout fits: found 3 audio file\(s\) among 3 file\(s\), such as .*\.wav'"),
        (
            ["x.txt", "y.md"],
            r"found 0 audio file\(s\) among 2 file\(s\), such as 'x.txt'; name the layout: dcase2023, flat",
        ),
        ([], r"found 0 audio file\(s\) among 0 file\(s\); name the layout: dcase2023, flat, csv$"),
    ],
)
def test_detect_refuses_what_nothing_fits(paths: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        detect(paths)


def test_detect_refuses_what_two_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(layouts.LAYOUTS, "twin", layouts.LAYOUTS["dcase2023"])
    with pytest.raises(UserError, match="layouts dcase2023 and twin both fit: found 1 audio"):
        detect([TRAIN])


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
    assert condition("fan", {"m-n": "A", "f-n": "2"}) == condition("fan", {"f-n": "2", "m-n": "A"}) == "fan|f-n=2|m-n=A"
    assert condition("fan", {}) == "fan"
    tricky = [{"a": "1", "b": "2"}, {"a": "1|b=2"}, {"a": "1%7Cb%3D2"}, {"a=1|b": "2"}]
    assert len({condition("fan", attributes) for attributes in tricky}) == len(tricky)


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

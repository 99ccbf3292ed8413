"""What a user's own pattern makes of paths, as text and as the layout of a source."""

import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ray_asd import store
from ray_asd.data.layouts import ParsedClip
from ray_asd.data.listing import Listing, read_listing
from ray_asd.data.patterns import Pattern
from ray_asd.data.source import Source
from ray_asd.errors import UserError

TIMED = "{machine_type}/{machine_id}/{recorded_at:%Y%m%dT%H%M%S}.wav"
BY_DAY = "plant-{site}/{recorded_at:%Y/%m/%d}/{machine_type}-{machine_id}/*_{recorded_at:%H%M%S%z}.*"
NIGHT = datetime(2026, 11, 25, 3, 4, 5, tzinfo=UTC)


def read(pattern: str, path: str, **beside: str) -> ParsedClip | str:
    return Pattern(pattern, **({"machine_type": "fan", "split": "test"} | beside)).read(path)


def clip(
    machine_type: str = "fan", machine_id: str | None = None, at: datetime | None = None, **told: str
) -> ParsedClip:
    return ParsedClip(machine_type, "00", machine_id, None, "test", None, told, at)


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        (TIMED, "pump/unit_03/20261125T030405.wav", clip("pump", "unit_03", NIGHT)),
        (TIMED, "pump/3/20261125T030405.WAV", clip("pump", "3", NIGHT)),
        (
            BY_DAY,
            "plant-north/2026/11/25/pump-p1/mic_040405+0100.flac",
            clip("pump", "p1", NIGHT, site="north"),
        ),
        (BY_DAY, "plant-north/2026/11/24/pump-p1/a_b_220405-05:00.wav", clip("pump", "p1", NIGHT, site="north")),
        (
            "{machine_id}/{machine_id}_{recorded_at:%j-%y}.wav",
            "a_b/a_b_329-26.wav",
            clip("fan", "a_b", datetime(2026, 11, 25, tzinfo=UTC)),
        ),
        ("{{{machine_id}}}/{attr.load}.wav", "{a}/7.wav", clip("fan", "a", load="7")),
        ("{section}/*/{domain}.wav", "07/x/target.wav", ParsedClip("fan", "07", None, "target", "test", None)),
        ("{split}/{label}/*.wav", "train/normal/1.wav", ParsedClip("fan", "00", None, None, "train", "normal")),
        ("{split}/{label}/*.wav", "test/abnormal/1.wav", ParsedClip("fan", "00", None, None, "test", "anomaly")),
    ],
)
def test_paths_that_fit(pattern: str, path: str, expected: ParsedClip) -> None:
    assert read(pattern, path) == expected


@pytest.mark.parametrize(
    ("pattern", "path", "why"),
    [
        (TIMED, "x/pump/3/20261125T030405.wav", "does not fit"),
        (TIMED, "pump/3/20261125T0304.wav", "does not fit"),
        (TIMED, "pump/3/20261125T030405.flac", "does not fit"),
        (TIMED, "pump//20261125T030405.wav", "does not fit"),
        (TIMED, "pump/3/20261325T030405.wav", "recorded_at: "),
        (TIMED, "pump/3/00001125T030405.wav", "recorded_at: "),
        ("{recorded_at:%Y%m%d%z}_*.wav", "00010101+0500_1.wav", "recorded_at: "),
        ("{machine_id}/{machine_id}.wav", "a/b.wav", "machine_id is 'a' and 'b' in it"),
        ("{machine_type}_{machine_id}.wav", "toy_car_1.wav", "in several ways: machine_type is 'toy' or 'toy_car'"),
        ("{split}/{label}/*.wav", "train/abnormal/1.wav", "an anomaly in split 'train'; allowed there: normal"),
        ("{split}/*.wav", "tests/1.wav", "split 'tests'; allowed: train, calibration, test, supplemental"),
        ("{domain}/*.wav", "both/1.wav", "domain 'both'; allowed: source, target"),
        ("{machine_id}/*", "a/notes.txt", "does not fit"),
    ],
)
def test_paths_that_do_not_fit_say_why(pattern: str, path: str, why: str) -> None:
    found = read(pattern, path)
    assert isinstance(found, str)
    assert why in found


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{machine_id/*.wav", "expected '}' before end of string; allowed: {field}, {{ and }}"),
        ("machine_id}/*.wav", "single '}' encountered"),
        ("{}/*.wav", "field ''; allowed: machine_type, section, machine_id"),
        ("{machine_id!r}/*.wav", "field 'machine_id!r'; allowed"),
        ("{machine[0]}/*.wav", r"field 'machine\[0\]'; allowed"),
        ("{machine_id:03}/*.wav", "field 'machine_id' has a format, '03'; allowed: a format of recorded_at alone"),
        ("{recorded_at}.wav", "recorded_at has no format; allowed: one of strptime, such as {recorded_at:%Y%m%d"),
        ("{recorded_at:%H%M%S}.wav", "recorded_at has no whole date; allowed: %Y%m%d"),
        ("{recorded_at:%Y%m%d_%M}.wav", "recorded_at has %M without %H; allowed"),
        ("{recorded_at:%Y%m%d%Q}.wav", "recorded_at has '%Q' in its format; allowed: %Y %y"),
        (
            "{machine_id}{recorded_at:%Y%m%d}.wav",
            "{machine_id} and {recorded_at:%Y} have no text between them; allowed",
        ),
        ("{machine_id}*.wav", r"{machine_id} and \* have no text between them"),
        ("{machine_id}/{take}.mp3", "it ends like no recording; allowed: .wav, .flac"),
        ("{machine_id}/{take}", "it ends like no recording"),
        ("/{machine_id}.wav", "a part of the path is empty; allowed: a path relative to the source"),
        ("", "it ends like no recording|a part of the path is empty"),
    ],
)
def test_patterns_that_are_wrong(pattern: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Pattern(pattern, "fan", "test")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"pattern {pattern!r}: ")


def test_what_neither_pattern_nor_anybody_says() -> None:
    with pytest.raises(
        UserError, match=r"does not name the machine type; allowed: \{machine_type\} in it, or one given"
    ):
        Pattern("{machine_id}/*.wav", split="test")
    with pytest.raises(UserError, match=r"does not name the split; allowed: .*\(train, calibration, test, suppl"):
        Pattern("{machine_type}/*.wav")
    assert read("{machine_type}/{split}/*.wav", "pump/train/1.wav", split="test") == ParsedClip(
        "pump", "00", None, None, "train", "normal"
    )


def test_a_hostile_name_takes_no_time() -> None:
    """It would be tried in 10^17 ways."""
    assert "does not fit" in str(read("{a}_{b}_{c}_{d}_{e}_{f}_{recorded_at:%Y%m%d}.wav", "a_" * 500 + "x.wav"))


PATHS = ["pump/p1/20261124T230000.wav", "pump/p1/20261125T010000.wav", "fan/f7/20261125T020000.wav", "fan/odd.wav"]


def told(listing: Listing) -> list[tuple[str, str, str, datetime]]:
    return [
        (row["clip_id"], row["machine_type"], row["machine_id"], row["recorded_at"].replace(tzinfo=UTC))
        for row in listing.clips.rows()
    ]


def test_a_pattern_is_a_layout_on_disk_on_s3_and_in_archives(tmp_path: Path, bucket: str) -> None:
    folder, packed = tmp_path / "a" / "plant", tmp_path / "plant.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in [*PATHS, "readme.md"]:
            store.write(str(folder / path), b"x")
            store.write(f"{bucket}/plant/{path}", b"x")
            archive.writestr(path, b"x")
    for place in (str(folder), f"{bucket}/plant", str(packed)):
        listing = read_listing(Source(place, pattern=TIMED, split="test"))
        assert (listing.layout, listing.why) == ("pattern", f"pattern: {TIMED}")
        assert told(listing) == [
            ("plant/fan/f7/20261125T020000.wav", "fan", "f7", datetime(2026, 11, 25, 2, tzinfo=UTC)),
            ("plant/pump/p1/20261124T230000.wav", "pump", "p1", datetime(2026, 11, 24, 23, tzinfo=UTC)),
            ("plant/pump/p1/20261125T010000.wav", "pump", "p1", datetime(2026, 11, 25, 1, tzinfo=UTC)),
        ]
        (row,) = listing.rejected.rows()
        assert (row["reason"], row["uri"][-8:]) == ("name_fits_no_layout", "/odd.wav")
        assert row["detail"] == f"pattern {TIMED} does not fit such a path"


def test_a_pattern_is_refused_where_another_layout_holds(tmp_path: Path) -> None:
    store.write(str(tmp_path / "list.csv"), b"uri,machine_type\na.wav,fan\n")
    for uri, options, message in (
        (str(tmp_path), {"layout": "flat", "pattern": TIMED}, "layout flat with a pattern; allowed: one of them"),
        (str(tmp_path), {"layout": "pattern"}, "layout pattern lacks one; allowed: --pattern such as"),
        (str(tmp_path), {"pattern": TIMED}, "does not name the split"),
        (str(tmp_path / "list.csv"), {"pattern": TIMED, "split": "test"}, "is a file; layout pattern takes a folder"),
    ):
        with pytest.raises(UserError, match=message):
            read_listing(Source(uri, **options))

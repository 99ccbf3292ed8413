import io
from datetime import UTC, datetime

import pytest

from ray_asd.data import csv_files
from ray_asd.data.csv_files import read_attributes
from ray_asd.data.layouts import ParsedClip
from ray_asd.errors import UserError

HEADER = b"uri,machine_type,split\n"


def read_csv(text: bytes, name: str, split: str | None = None) -> dict[str, ParsedClip]:
    rows = csv_files.read_csv(io.BytesIO(text), name, split).rows()
    return {row.pop("uri"): ParsedClip(**row | {"attributes": dict(row["attributes"])}) for row in rows}


def test_dots_at_the_start_of_a_name_lead_nowhere() -> None:
    names = ["..a.wav", "...", ".../b.wav", "x/..c.wav"]
    assert list(read_csv(HEADER + "".join(f"{name},fan,train\n" for name in names).encode(), "list.csv")) == names


def test_attributes_are_ragged_pairs_by_basename() -> None:
    text = (
        "\ufefffile_name,d1p,d1v,d2p,d2v\r\n"
        "fan/train/a.wav,vel,6,loc, A \r\n"
        "b.wav,vel,7\r\n"
        "fan\\train\\c.wav,,,,\r\n"
        "\r\n"
        "d.wav,noAttribute\r\n"
        "e.wav,vel,,loc,B\r\n"
        '"f,1.wav","note","x, y"\r\n'
        "b.wav,vel,7\r\n"
    )
    assert read_attributes(text.encode(), "attributes_00.csv") == {
        "a.wav": {"vel": "6", "loc": "A"},
        "b.wav": {"vel": "7"},
        "c.wav": {},
        "d.wav": {},
        "e.wav": {"loc": "B"},
        "f,1.wav": {"note": "x, y"},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", r"^fan\.csv, line 1: an attribute CSV begins with file_name"),
        (b"a.wav,vel,6\n", r"line 1: .* not 'a\.wav,vel,6'"),
        (b"file_name,d1p,d1v\na.wav,,6\n", r"^fan\.csv, line 2: pairs of distinct .* not ',6'"),
        (b"file_name,d1p,d1v\na.wav,vel,6,vel,7\n", r"line 2: pairs of distinct"),
        (
            b"file_name,d1p,d1v\na.wav,vel,6\nx/a.wav,vel,7\n",
            r"line 3: 'x/a\.wav' names no file, or one that has other",
        ),
        (b"file_name,d1p,d1v\n,vel,6\n", r"line 2: '' names no file"),
        (b"file_name\n\xff\n", r"^fan\.csv: not UTF-8 text: invalid start byte at byte 10"),
        (b'file_name\n"a.wav"x\n', r"^fan\.csv, line 2: not CSV: "),
    ],
)
def test_malformed_attributes_name_file_and_line(text: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_attributes(text, "fan.csv")
    assert "\n" not in str(error.value)


def test_clips_of_a_csv() -> None:
    text = (
        "uri,machine_type,section,machine_id,recorded_at,domain,split,label,attr.load,shift\n"
        "a.wav,fan,01,unit-7,2026-01-31T07:00:00+01:00,source,test,anomaly,high,early\n"
        "./b/../c.wav,fan,,,2026-01-31,,train,,,\n"
        "/data/d.flac,pump,,,,,calibration,normal,,late\n"
        "s3://bucket/e 1.wav,pump,,,,,test,,,\n"
    )
    assert read_csv(text.encode(), "clips.csv") == {
        "a.wav": ParsedClip(
            *("fan", "01", "unit-7", "source", "test", "anomaly"),
            {"load": "high", "shift": "early"},
            datetime(2026, 1, 31, 6, tzinfo=UTC),
        ),
        "c.wav": ParsedClip("fan", "00", None, None, "train", "normal", {}, datetime(2026, 1, 31, tzinfo=UTC)),
        "/data/d.flac": ParsedClip("pump", "00", None, None, "calibration", "normal", {"shift": "late"}),
        "s3://bucket/e 1.wav": ParsedClip("pump", "00", None, None, "test", None),
    }


def test_the_split_given_beside_stands_in_for_empty_cells() -> None:
    clips = read_csv(HEADER + b"a.wav,fan,\nb.wav,fan,train\n", "clips.csv", split="test")
    assert [clip.split for clip in clips.values()] == ["test", "train"]
    assert read_csv(b"uri,machine_type\na.wav,fan\n", "clips.csv", split="train")["a.wav"].label == "normal"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", r"^clips\.csv: no column uri or machine_type; found: nothing"),
        (b"uri;machine_type\n", r"no column uri or machine_type; found: uri;machine_type"),
        (b"uri,split\n", r"no column machine_type; found: uri, split"),
        (b"uri,machine_type,load,attr.load\n", r"line 1: every column needs a name of its own"),
        (b"uri,machine_type,\n", r"line 1: every column needs a name"),
        (HEADER + b"a.wav,fan,train\na.wav,fan\n", r"^clips\.csv, line 3: 2 cells; the header has 3"),
        (HEADER + b",fan,train\n", r"line 2: uri ''; allowed: a path below"),
        (HEADER + b"http://x/a.wav,fan,train\n", r"uri 'http://x/a\.wav'; allowed"),
        (HEADER + b"x/../../a.wav,fan,train\n", r"uri '\.\./a\.wav'; allowed: a path below"),
        (HEADER + b"a.wav,fan,train\nx/../a.wav,fan,test\n", r"line 3: uri 'a\.wav' stands in line 2 already"),
        (HEADER + b"/b/a.wav,fan,train\ns3://b/a.wav,fan,test\n", r"line 3: uri 's3://b/a\.wav' stands in line 2"),
        (
            HEADER + b"b.wav,fan,train\na.wav,fan,train\na.wav,,test\nb.wav,fan,train\n",
            r"line 4: uri 'a\.wav' stands in",
        ),
        (HEADER + b"a.wav,,train\n", r"line 2: machine_type is empty"),
        (HEADER + b"a.wav,fan,\n", r"^clips\.csv, line 2: the split is not named; allowed: train, cal"),
        (HEADER + b"a.wav,fan,dev\n", r"unknown split \(clips\.csv, line 2\) 'dev'; allowed: train, calibration"),
        (
            b"uri,machine_type,split,domain\na.wav,fan,test,x\n",
            r"unknown domain \(clips\.csv, line 2\) 'x'; allowed: source",
        ),
        (
            b"uri,machine_type,split,label\na.wav,fan,test,ok\n",
            r"unknown label .* 'ok'; allowed: normal, anomaly, nothing",
        ),
        (b"uri,machine_type,split,label\na.wav,fan,train,anomaly\n", r"line 2: label 'anomaly' in split 'train'"),
        (
            b"uri,machine_type,split,recorded_at\na.wav,fan,test,31.1.26\n",
            r"recorded_at '31\.1\.26'; allowed: ISO 8601",
        ),
    ],
)
def test_a_wrong_csv_is_refused_with_line_and_allowed_values(text: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_csv(text, "clips.csv")
    assert "\n" not in str(error.value)

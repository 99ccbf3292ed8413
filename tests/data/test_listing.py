"""Small trees of each year, as folders and inside archives: what a listing makes of them without reading audio."""

import errno
import os
import random
import socket
import string
import zipfile
from pathlib import Path

import pytest

from disk_faults import failing
from ray_asd import reasons, store
from ray_asd.data import layouts, recordings, zips
from ray_asd.data.listing import Listing, read_listing
from ray_asd.data.source import Source
from ray_asd.errors import UserError

SHOT = "section_00_{}_{}_{}_{}.wav"


def put(folder: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return str(folder)


def pack(place: Path, files: dict[str, str]) -> str:
    place.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(place, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return str(place)


def told(listing: Listing) -> dict[str, tuple[str, str | None, str | None, dict[str, str]]]:
    """Split, domain, label and attributes by clip_id."""
    return {
        row["clip_id"]: (row["split"], row["domain"], row["label"], dict(row["attributes"]))
        for row in listing.clips.rows()
    }


def uris(listing: Listing) -> list[str]:
    found: list[str] = listing.clips.table()["uri"].to_pylist()
    return found


FAN = {
    "fan/train/section_00_source_train_normal_0000_vel_6.wav": "a",
    "fan/test/section_00_target_test_anomaly_0001_vel_7.wav": "bb",
    "fan/attributes_00.csv": "file_name,d1p,d1v\nfan/train/section_00_source_train_normal_0000_vel_6.wav,vel,9\n",
    "fan/notes.txt": "rain",
}
BEARING = {name.replace("fan", "bearing"): text.replace("fan", "bearing") for name, text in FAN.items()}


def test_archives_are_read_as_the_folders_they_would_unpack_to(tmp_path: Path, bucket: str) -> None:
    unpacked = put(tmp_path / "a" / "dcase", {f"dev_fan/{name}": text for name, text in FAN.items()})
    put(Path(unpacked), {f"dev_bearing/{name}": text for name, text in BEARING.items()} | {"readme.md": ""})
    packed = tmp_path / "b" / "dcase"
    pack(packed / "dev_fan.zip", FAN)
    pack(packed / "dev_bearing.ZIP", BEARING)
    for name in ("dev_fan.zip", "dev_bearing.ZIP"):
        store.write(f"{bucket}/dcase/{name}", (packed / name).read_bytes())
    expected = read_listing(Source(unpacked))
    assert len(expected.clips) == 4
    assert told(expected)["dcase/dev_fan/fan/train/section_00_source_train_normal_0000_vel_6.wav"][3] == {"vel": "9"}
    for place in (str(packed), f"{bucket}/dcase"):
        found = read_listing(Source(place))
        assert (found.layout, found.why) == (expected.layout, expected.why)
        assert told(found) == told(expected)
        places = sorted(uris(found))
        assert places[-1] == f"{place}/dev_fan.zip!/fan/train/section_00_source_train_normal_0000_vel_6.wav"
        assert [zips.read(uri) for uri in places] == [b"bb", b"a"] * 2
        assert sorted(row["reason"] for row in found.rejected.rows()) == ["name_fits_no_layout"] * 2


def test_an_archive_alone_is_the_folder_it_would_unpack_to(tmp_path: Path) -> None:
    packed = pack(tmp_path / "a" / "dev_fan.zip", FAN)
    unpacked = put(tmp_path / "b" / "dev_fan", FAN)
    found, expected = read_listing(Source(packed)), read_listing(Source(unpacked))
    assert told(found) == told(expected)
    assert {"dev_fan/" + name for name in FAN if name.endswith(".wav")} == set(told(found))
    assert all(uri.startswith(f"{packed}!/fan/") for uri in uris(found))
    flat = pack(tmp_path / "pump.zip", {"train/a.wav": "a", "test/anomaly/b.wav": "b"})
    listing = read_listing(Source(flat, layout="flat", machine_type="pump"))
    assert told(listing) == {
        "pump/train/a.wav": ("train", None, "normal", {}),
        "pump/test/anomaly/b.wav": ("test", None, "anomaly", {}),
    }


def test_the_version_changes_with_the_content_of_an_archive_not_with_its_date(tmp_path: Path) -> None:
    packed = tmp_path / "dev_fan.zip"
    versions = []
    for text in ("a", "a", "b"):
        pack(packed, FAN | {"fan/train/section_00_source_train_normal_0000_vel_6.wav": text})
        versions.append(read_listing(Source(str(tmp_path), dataset="x")).version)
        store.remove(str(packed))
    assert versions[0] == versions[1] != versions[2]


def test_what_archives_refuse_is_rejected_by_name_and_costs_no_other_file(tmp_path: Path) -> None:
    source = tmp_path / "s"
    good = "fan/train/section_00_source_train_normal_0000.wav"
    pack(source / "dev.zip", {good: "a", "../evil.wav": "e", "fan/train/section_00_source_train_normal_0001.wav": "b"})
    pack(source / "dev2.zip", {"fan/train/bomb.wav": "\0" * 100})
    put(source, {"broken.zip": "PK", f"dev/{good}": "a"})
    listing = read_listing(Source(str(source)))
    assert {row["uri"].removeprefix(f"{source}/"): row["reason"] for row in listing.rejected.rows()} == {
        "dev.zip!/../evil.wav": "archive_escape",
        "broken.zip": "not_an_archive",
        f"dev/{good}": "archive_member",  # its place is taken by the archive's
        "dev2.zip!/fan/train/bomb.wav": "name_fits_no_layout",
    }
    assert {row["reason"] for row in listing.rejected.rows()} <= reasons.REJECTED.keys()
    assert len(told(listing)) == 2
    assert not (tmp_path / "evil.wav").exists()
    put(source, {"broken.zip": "pk"})
    assert read_listing(Source(str(source))).version != listing.version


def test_a_name_that_is_not_utf8_is_rejected_and_costs_no_other_file(tmp_path: Path) -> None:
    source = put(tmp_path / "s", {"fan/train/section_00_source_train_normal_0000.wav": "a"})
    Path(os.fsdecode(os.fsencode(source) + b"/fan/train/caf\xe9.wav")).write_text("b")
    listing = read_listing(Source(source))
    assert [(store.name(row["uri"]), row["reason"]) for row in listing.rejected.rows()] == [
        ("caf\\udce9.wav", "name_fits_no_layout")
    ]
    assert len(told(listing)) == 1


def reasons_of(listing: Listing, source: str) -> dict[str, tuple[str, str]]:
    return {row["uri"].removeprefix(f"{source}/"): (row["reason"], row["detail"]) for row in listing.rejected.rows()}


FLAT = {"layout": "flat", "machine_type": "press", "split": "train"}


def test_what_is_no_file_is_rejected_unread(tmp_path: Path) -> None:
    source = Path(put(tmp_path / "press", {"a.wav": "a", "deep/b.wav": "b"}))
    os.mkfifo(source / "deep" / "microphone.flac")
    (source / "linked fifo.wav").symlink_to(source / "deep" / "microphone.flac")
    (source / "noise.wav").symlink_to("/dev/urandom")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(source / "recorder.wav"))
        listing = read_listing(Source(str(source), **FLAT))
    assert list(told(listing)) == ["press/a.wav", "press/deep/b.wav"]
    assert reasons_of(listing, str(source)) == {
        "deep/microphone.flac": ("no_file", "a FIFO, not a file"),
        "linked fifo.wav": ("no_file", "a FIFO, not a file"),
        "noise.wav": ("no_file", "a device, not a file"),
        "recorder.wav": ("no_file", "a socket, not a file"),
    }
    rows = ["a.wav", "deep", "deep/microphone.flac", "noise.wav", "deep/b.wav", "gone.wav"]
    put(source, {"list.csv": "\n".join(["uri,machine_type,split", *(f"{row},press,train" for row in rows)])})
    named = read_listing(Source(str(source / "list.csv")))
    assert list(told(named)) == ["list/a.wav", "list/deep/b.wav"]
    assert {name: reason for name, (reason, _) in reasons_of(named, str(source)).items()} == {
        **dict.fromkeys(["deep", "deep/microphone.flac", "noise.wav"], "no_file"),
        "gone.wav": "missing",
    }
    with pytest.raises(UserError, match=r"microphone\.flac: .*a FIFO, not a file.*allowed: a folder, a zip file or"):
        read_listing(Source(str(source / "deep" / "microphone.flac")))


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    source, outside = tmp_path / "press", tmp_path / "nas"
    put(source, {"monday/a.wav": "a"})
    put(outside, {"old/b.wav": "b", "old/older/c.wav": "c"})
    for place, target in {
        "archive": outside / "old",
        "archive again": outside / "old" / "older",
        "latest": source / "monday",
        "monday/all": source,
        "monday/everything": tmp_path,
        "tuesday": outside / "not mounted",
    }.items():
        (source / place).symlink_to(target)
    (outside / "old" / "loop").symlink_to(outside / "old")
    listing = read_listing(Source(str(source), **FLAT))
    assert {clip.removeprefix("press/") for clip in told(listing)} == {
        "archive/b.wav", "archive/older/c.wav", "monday/a.wav"
    }  # fmt: skip
    refused = reasons_of(listing, str(source))
    assert refused.pop("tuesday")[0] == "name_fits_no_layout"
    assert set(refused) == {"archive again", "archive/loop", "latest", "monday/all", "monday/everything"}
    assert refused["latest"] == ("no_file", f"a link to {source}/monday, which is listed already, or some of it")


def test_a_folder_and_an_archive_that_may_not_be_read_cost_themselves(tmp_path: Path) -> None:
    source = Path(put(tmp_path / "press", {"a.wav": "a", "lost+found/b.wav": "b"}))
    pack(source / "c.zip", {"c.wav": "c"})
    (source / "d.zip").symlink_to(tmp_path / "nowhere.zip")
    with (
        failing("os.scandir", "lost+found", errno.EACCES),
        failing("open", "c.zip", errno.EACCES, 9),
    ):
        listing = read_listing(Source(str(source), **FLAT))
    assert list(told(listing)) == ["press/a.wav"]
    found = reasons_of(listing, str(source))
    assert {name: reason for name, (reason, _) in found.items()} == {
        "lost+found": "no_file",
        "c.zip": "unreadable",
        "d.zip": "missing",
    }
    assert "Permission denied" in found["lost+found"][1]
    with failing("os.scandir", source, errno.EACCES), pytest.raises(UserError, match="the folder cannot be listed"):
        read_listing(Source(str(source), **FLAT))


def test_outputs_below_a_source_are_no_part_of_it(root: str) -> None:
    source = store.join(root, "press")
    for name in ("a.wav", "reports.wav", "site/b.wav"):
        store.write(store.join(source, name), name.encode())
    before = read_listing(Source(source, **FLAT))
    store.check_conditional_writes(store.join(source, "site", "runs"))
    store.write(store.join(source, "site", "runs", "ingest", "c.wav"), b"c")
    store.write(store.join(source, "report", "runs", "d.wav"), b"d")
    store.tag_outputs(store.join(source, "report"))
    store.tag_outputs(store.join(source, "site", "runs", "report"))  # in order of their paths, before some of the rest
    store.write(store.join(source, "site", "runs", "score", "e.wav"), b"e")
    listing = read_listing(Source(source, **FLAT))
    assert list(told(listing)) == ["press/a.wav", "press/reports.wav", "press/site/b.wav"]
    assert (listing.version, list(listing.rejected.rows())) == (before.version, [])
    store.tag_outputs(source)
    with pytest.raises(UserError, match="/press: outputs were written there; allowed: a folder of recordings"):
        read_listing(Source(source, **FLAT))


def test_keys_with_empty_parts_are_recordings_of_their_own(bucket: str) -> None:
    keys = ["press/a.wav", "press//a.wav", "/press/a.wav", "//b.wav", "c/train///d.wav"]
    for key in keys:
        store.write(f"{bucket}/{key}", key.encode())
    listing = read_listing(Source(bucket, dataset="x", **FLAT))
    assert {row["clip_id"]: recordings.at(row["uri"]) for row in listing.clips.rows()} == {
        f"x/{key}": key.encode() for key in keys
    }
    fan = "{}fan//train/section_00_source_train_normal_0001.wav"
    for start in ("", "/"):
        store.write(f"{bucket}/year/{fan.format(start)}", b"")
    year = read_listing(Source(f"{bucket}/year"))
    assert set(told(year)) == {f"year/{fan.format(start)}" for start in ("", "/")}
    assert [row["machine_type"] for row in year.clips.rows()] == ["fan"] * 2
    lines = ["uri,machine_type,split", *(f"{key},press,train" for key in ("press//a.wav", "./press/a.wav"))]
    store.write(f"{bucket}/list.csv", "\n".join(lines).encode())
    assert uris(read_listing(Source(f"{bucket}/list.csv"))) == [f"{bucket}/press//a.wav", f"{bucket}/press/a.wav"]


@pytest.mark.parametrize("what", ["uri", "machine_type", "dataset", "split"])
def test_what_is_said_of_a_source_has_to_be_text(tmp_path: Path, what: str) -> None:
    given = {"uri": str(tmp_path)} | {what: os.fsdecode(b"/pr\xe9sse")}
    with pytest.raises(UserError, match=rf"^{what} '/pr\\\\udce9sse' is not UTF-8"):
        Source(**given)

    pack(tmp_path / "s" / "night.zip", {"../a.wav": "a", "/b.wav": "b"})
    with pytest.raises(UserError, match=r"among 0 file\(s\), and others refused, the first .*night\.zip!/"):
        read_listing(Source(str(tmp_path / "s")))


def test_a_source_that_is_a_broken_archive_is_the_users_to_mend(tmp_path: Path) -> None:
    put(tmp_path, {"dev.zip": "PK"})
    with pytest.raises(UserError, match=r"dev\.zip: its directory cannot be read"):
        read_listing(Source(str(tmp_path / "dev.zip")))


def test_mimii_is_split_as_its_users_do(tmp_path: Path) -> None:
    normal = {f"6_dB_fan/fan/id_00/normal/{number:08d}.wav": "n" for number in range(5)}
    put(tmp_path, normal | {f"6_dB_fan/fan/id_00/abnormal/{number:08d}.wav": "a" for number in range(2)})
    listing = read_listing(Source(str(tmp_path), dataset="mimii"))
    assert listing.layout == "mimii"
    clips = list(listing.clips.rows())
    splits = [(clip["split"], clip["label"]) for clip in clips]
    assert splits == [("test", "anomaly")] * 2 + [("test", "normal")] * 2 + [("train", "normal")] * 3
    assert {(clip["machine_type"], clip["section"], clip["machine_id"]) for clip in clips} == {("fan", "00", "id_00")}
    assert all(dict(clip["attributes"]) == {"id": "00", "snr": "6"} for clip in clips)


def anonymous(folder: Path) -> str:
    names = ["train/section_00_source_train_normal_0000_vel_6", "test/section_00_test_0000", "test/section_00_0001"]
    return put(folder, {f"bandsaw/{name}.wav": name for name in names})


def test_a_list_of_labels_names_anonymous_clips(tmp_path: Path) -> None:
    source = anonymous(tmp_path / "eval")
    lines = ["grinder", "section_00_0000.wav,section_00_source_test_normal_0000.wav", "bandsaw"]
    lines += ["section_00_0000.wav,section_00_target_test_anomaly_0000_vel_7.wav,1"]
    lines += ["section_00_0001.wav,section_00_source_normal_0001_noAttribute.wav"]
    put(tmp_path, {"eval_data_list_2023.csv": "\n".join(lines)})
    plain = read_listing(Source(source))
    listing = read_listing(Source(source, truth=str(tmp_path / "eval_data_list_2023.csv")))
    assert told(plain)["eval/bandsaw/test/section_00_0001.wav"] == ("test", None, None, {})
    assert told(listing) == {
        "eval/bandsaw/train/section_00_source_train_normal_0000_vel_6.wav": ("train", "source", "normal", {"vel": "6"}),
        "eval/bandsaw/test/section_00_test_0000.wav": ("test", "target", "anomaly", {"vel": "7"}),
        "eval/bandsaw/test/section_00_0001.wav": ("test", "source", "normal", {}),
    }
    assert listing.version != plain.version


def test_labels_of_2020_and_2021(tmp_path: Path) -> None:
    put(tmp_path / "20", {"fan/train/normal_id_01_00000000.wav": "", "fan/test/id_01_00000000.wav": ""})
    listed = "fan\nid_01_00000000.wav,anomaly_id_01_00000000.wav,1\n"
    put(tmp_path / "21", {"fan/source_test/section_03_source_test_0000.wav": ""})
    put(tmp_path, {"20.csv": listed})
    put(tmp_path, {"21.csv": "fan\nsection_03_source_test_0000.wav,section_03_source_test_anomaly_0000.wav\n"})
    clips = {}
    for year in ("20", "21"):
        listing = read_listing(Source(str(tmp_path / year), truth=f"{tmp_path}/{year}.csv"))
        clips[year] = {clip["split"]: clip for clip in listing.clips.rows()}
    assert (clips["20"]["test"]["label"], clips["20"]["test"]["machine_id"]) == ("anomaly", "id_01")
    assert (clips["21"]["test"]["label"], clips["21"]["test"]["domain"]) == ("anomaly", "source")


def test_the_evaluators_folder_names_anonymous_clips(tmp_path: Path) -> None:
    source, name = anonymous(tmp_path / "eval"), "ground_truth_bandsaw_section_00_test.csv"
    truth = {
        f"ground_truth_data/{name}": "section_00_0000.wav,1\nsection_00_0001.wav,0\n",
        f"ground_truth_domain/{name}": "section_00_0000.wav,0\nsection_00_0001.wav,1\n",
        f"ground_truth_attributes/{name}": "section_00_0000.wav,section_00_source_test_anomaly_0000_vel_7\n",
        "ground_truth_data/readme.txt": "",
    }
    found = told(read_listing(Source(source, truth=put(tmp_path / "truth", truth))))
    assert found["eval/bandsaw/test/section_00_test_0000.wav"] == ("test", "source", "anomaly", {"vel": "7"})
    assert found["eval/bandsaw/test/section_00_0001.wav"] == ("test", "target", "normal", {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no labels; allowed: a list of evaluation clips, or a folder with ground_truth_data/"),
        ("bandsaw\nsection_00_0000.wav\n", "line 2: 'section_00_0000.wav'; allowed: a machine type, or an anonymous"),
        ("section_00_0000.wav,section_00_source_test_normal_0000.wav\n", "line 1: .* allowed: a machine type"),
        ("bandsaw\nsection_00_0000.wav,section_00_0000.wav\n", "line 2: .* one of layout dcase2023 with its label"),
        (
            "bandsaw\nsection_00_0000.wav,section_00_source_test_normal_0000.wav,1\n",
            "line 2: 'section_00_source_test_normal_0000.wav' is normal, but the last cell is '1'",
        ),
        (
            "bandsaw\nsection_00_0000.wav,section_00_source_test_normal_0000.wav\n",
            "section_00_0001.wav: the labels given have others of bandsaw, but not this clip",
        ),
    ],
)
def test_labels_that_do_not_fit_are_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    source = anonymous(tmp_path / "eval")
    put(tmp_path, {"list.csv": text})
    with pytest.raises(UserError, match=message) as caught:
        read_listing(Source(source, truth=str(tmp_path / "list.csv")))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"no\.csv: nothing is there"):
        read_listing(Source(source, truth=str(tmp_path / "no.csv")))


def test_hidden_attributes_are_an_overlay_on_request(tmp_path: Path) -> None:
    names = [SHOT.format("source", "train", "normal", f"000{n}_noAttribute") for n in (1, 2)]
    source = put(tmp_path / "dev", {f"gearbox/train/{name}": "" for name in names} | {"gearbox/attributes_00.csv": ""})
    csv = "file_name,d1p,d1v\n" + "".join(f"gearbox/train/{name},noAttribute,noAttribute\n" for name in names)
    put(Path(source), {"gearbox/attributes_00.csv": csv})
    rows = "source_file_name,target_file_name\nsection_00_source_train_normal_0001_pro_A_wt_200.wav," + names[0] + "\n"
    overlay = put(tmp_path / "truth", {"gearbox/attributes_00_train_correspondence.csv": rows})
    plain = read_listing(Source(source))
    assert plain.layout == "dcase2024"
    assert plain.clips.table()["attributes"].to_pylist() == [[], []]
    found = read_listing(Source(source, attributes=overlay))
    assert found.clips.table()["attributes"].to_pylist() == [[("pro", "A"), ("wt", "200")], []]
    assert found.version != plain.version
    with pytest.raises(UserError, match="no <machine>/attributes_NN_test_correspondence.csv"):
        read_listing(Source(source, attributes=source))
    put(Path(overlay), {"gearbox/attributes_00_test_correspondence.csv": "a,b\n"})
    with pytest.raises(UserError, match="line 1: 'a,b'; allowed: source_file_name,target_file_name"):
        read_listing(Source(source, attributes=overlay))


def test_an_anonymous_clip_gives_way_to_its_named_copy(tmp_path: Path) -> None:
    source = anonymous(tmp_path / "eval")
    named = "bandsaw/test_rename/section_00_target_test_anomaly_0000_vel_7.wav"
    put(Path(source), {named: "", "grinder/test/section_00_0000.wav": ""})
    listing = read_listing(Source(source))
    tested = {path for path, (split, *_) in told(listing).items() if split == "test"}
    assert tested == {f"eval/{named}", "eval/grinder/test/section_00_0000.wav"}
    rejected = {row["uri"].removeprefix(f"{source}/"): row["reason"] for row in listing.rejected.rows()}
    assert rejected == {
        "bandsaw/test/section_00_0001.wav": "renamed",
        "bandsaw/test/section_00_test_0000.wav": "renamed",
    }


def test_a_csv_file_names_members_of_archives_too(tmp_path: Path, bucket: str) -> None:
    pack(tmp_path / "a.zip", {"x/a.wav": "abc", "../b.wav": "b"})
    store.write(f"{bucket}/c.zip", (tmp_path / "a.zip").read_bytes())
    named = ["a.zip!/x/a.wav", f"{bucket}/c.zip!/x/a.wav", "a.zip!/x/no.wav", "no.zip!/a.wav"]
    put(tmp_path, {"list.csv": "\n".join(["uri,machine_type,split", *(f"{uri},fan,train" for uri in named)])})
    listing = read_listing(Source(str(tmp_path / "list.csv")))
    assert [zips.read(uri) for uri in uris(listing)] == [b"abc"] * 2
    assert list(told(listing)) == ["list/a.zip!/x/a.wav", f"list/{named[1].removeprefix('s3://')}"]
    assert {row["uri"].removeprefix(f"{tmp_path}/"): row["reason"] for row in listing.rejected.rows()} == dict.fromkeys(
        named[2:], "missing"
    )
    assert listing.clips.table()["size"].to_pylist() == [3, 3]


def test_all_that_a_csv_file_names_is_asked_for_and_the_first_wrong_row_is_named(tmp_path: Path, bucket: str) -> None:
    names = [f"{number:03d}.wav" for number in range(100)]
    for name in names[::2]:
        store.write(f"{bucket}/{name}", name.encode())
    lines = ["uri,machine_type,split", *(f"{bucket}/{name},fan,train" for name in names)]
    put(tmp_path, {"list.csv": "\n".join(lines)})
    listing = read_listing(Source(str(tmp_path / "list.csv")))
    assert uris(listing) == [f"{bucket}/{name}" for name in names[::2]]
    assert [row["uri"] for row in listing.rejected.rows()] == [f"{bucket}/{name}" for name in names[1::2]]
    lines[50:50] = [f"s3://no-such-bucket-{number}/a.wav,fan,train" for number in range(40)]
    put(tmp_path, {"list.csv": "\n".join(lines)})
    for _ in range(3):
        with pytest.raises(UserError, match="s3://no-such-bucket-0: no such bucket"):
            read_listing(Source(str(tmp_path / "list.csv")))


def test_a_recording_named_by_a_path_that_cannot_be_is_rejected(tmp_path: Path) -> None:
    put(tmp_path, {"list.csv": f"uri,machine_type,split\n{'a' * 300}.wav,fan,train\n"})
    (row,) = read_listing(Source(str(tmp_path / "list.csv"))).rejected.rows()
    assert (row["reason"], "File name too long" in row["detail"]) == ("unreadable", True)


@pytest.mark.parametrize("layout", ["dcase2020", "dcase2021", "dcase2022", "dcase2025", "mimii"])
def test_each_file_with_a_changed_name_is_a_clip_or_a_reject(tmp_path: Path, layout: str) -> None:
    names = {
        "dcase2020": "fan/test/anomaly_id_06_00000357.wav",
        "dcase2021": "fan/source_test/section_02_source_test_anomaly_0099.wav",
        "dcase2022": "fan/test/section_01_target_test_normal_0000_vel_6.wav",
        "dcase2025": "fan/supplemental/section_00_machine_0001_.wav",
        "mimii": "6_dB_fan/fan/id_00/normal/00000000.wav",
    }
    chance, changed = random.Random(layout), {names[layout]}
    while len(changed) < 150:
        letters = list(names[layout])
        for _ in range(chance.randint(1, 3)):
            letters[chance.randrange(len(letters))] = chance.choice(["", "_", "é", *string.ascii_letters, *"0123. %="])
        changed.add("".join(letters))
    pack(tmp_path / "s" / "a.zip", dict.fromkeys(changed, ""))
    listing = read_listing(Source(str(tmp_path / "s"), layout=layout))
    files = {uri.partition("!/")[2] for uri in uris(listing)}
    rejected = {row["uri"].partition("!/")[2]: row["reason"] for row in listing.rejected.rows()}
    hidden = {name for name in changed if any(part.startswith(".") for part in name.split("/"))}
    assert files | rejected.keys() == {name for name in changed - hidden if not layouts.is_sidecar(name)}
    assert not files & rejected.keys()
    assert set(rejected.values()) == {"name_fits_no_layout"}
    assert len(files) > 1  # more than the name that was not changed
    assert len(told(listing)) == len(listing.clips)


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "a recording"),
        (b"fLaC\x00\x00\x00\x22", "a recording"),
        (b"ID3\x03\x00\x00\x00\x00\x00\x00", "a recording"),
        (b"fleet/fan/" + bytes(247) + b"ustar\x0000", "a tar archive"),
        (b"\x1f\x8b\x08\x00", "an archive (gzip)"),
        (b"7z\xbc\xaf\x27\x1c", "an archive (7-Zip)"),
    ],
)
def test_a_file_that_is_no_text_is_no_csv_and_said_to_be_what_it_is(tmp_path: Path, start: bytes, what: str) -> None:
    place = tmp_path / "given"
    place.write_bytes(start + bytes(600))
    with pytest.raises(UserError) as refused:
        read_listing(Source(str(place)))
    allowed = "allowed: a folder of recordings, a zip file of them or a CSV file naming them"
    assert str(refused.value) == f"{place} is {what}; {allowed}"


@pytest.mark.parametrize("name", ["one.wave", "two.MP3", "three.bwf"])
def test_recordings_of_another_ending_are_told_so(tmp_path: Path, name: str) -> None:
    for file in ("a.wav", name):
        (tmp_path / "train").mkdir(exist_ok=True)
        (tmp_path / "train" / file).touch()
    found = read_listing(Source(str(tmp_path), layout="flat", machine_type="pump"))
    (row,) = found.rejected.rows()
    assert (row["reason"], row["detail"]) == (
        "name_fits_no_layout",
        "recordings are known by names that end with .wav or .flac",
    )

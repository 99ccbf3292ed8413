"""Real archives, good and hostile; the hostile ones are made here, byte by byte where zipfile would not write them."""

import io
import os
import random
import stat
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from ray_asd import reasons, store
from ray_asd.data import zips
from ray_asd.data.zips import BadMember, Refused


def packed(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return file.getvalue()


def put(folder: Path, data: bytes, name: str = "a.zip") -> str:
    (folder / name).write_bytes(data)
    return str(folder / name)


def refused(uri: str) -> dict[str, tuple[str, str]]:
    return {found.name: (found.reason, found.detail) for found in zips.members(uri) if isinstance(found, Refused)}


def taken(uri: str) -> dict[str, store.Entry]:
    return {found.path: found for found in zips.members(uri) if isinstance(found, store.Entry)}


NOISE = random.Random(0).randbytes(100_000)
GOOD = {"fan/train/a.wav": NOISE, "fan/train/b é.wav": b"", "fan/attributes_00.csv": b"file_name\n" * 500}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_are_listed_and_read_on_disk_and_in_the_object_store(root: str, method: int) -> None:
    uri = store.join(root, "dev_fan.ZIP")
    store.write(uri, packed(GOOD | {"fan/": b"", "__MACOSX/fan/._a.wav": b"?", ".DS_Store": b"?"}, method))
    assert refused(uri) == {}
    assert {name: entry.size for name, entry in taken(uri).items()} == {name: len(data) for name, data in GOOD.items()}
    assert taken(uri)["fan/train/a.wav"].version == f"{zipfile.crc32(NOISE):08x}"
    for name, data in GOOD.items():
        member = zips.member_uri(uri, name)
        assert zips.is_member(member)
        assert zips.read(member) == data
        assert zips.stat_member(member) == store.Entry(member, len(data), f"{zipfile.crc32(data):08x}")
    for missing in (zips.member_uri(uri, "fan/c.wav"), zips.member_uri(uri + ".zip", "a.wav"), uri, "a.wav"):
        with pytest.raises(FileNotFoundError):
            zips.read(missing)
    store.write(uri, b"")
    with pytest.raises(BadMember, match="not_an_archive"):
        zips.read(zips.member_uri(uri, "fan/train/a.wav"))


def test_an_archive_that_changes_is_read_anew(tmp_path: Path) -> None:
    uri = put(tmp_path, packed({"a.wav": b"old"}))
    assert zips.read(f"{uri}!/a.wav") == b"old"
    put(tmp_path, packed({"a.wav": b"newer", "b.wav": b""}))
    os.utime(uri, (1, 1))
    assert zips.read(f"{uri}!/a.wav") == b"newer"
    assert set(taken(uri)) == {"a.wav", "b.wav"}


@pytest.mark.parametrize(
    ("path", "member", "expected"),
    [
        ("dev_fan.zip!/fan/a.wav", True, "dev_fan/fan/a.wav"),
        ("x/b.ZIP!/a.zip!/c.wav", True, "x/b/a.zip!/c.wav"),
        ("s3://bucket/a.zip!/b", True, "s3://bucket/a/b"),
        ("dev_fan.zip", False, "dev_fan.zip"),
        ("a!/b.wav", False, "a!/b.wav"),
        ("a.zip!/", False, "a.zip!/"),
    ],
)
def test_uris_of_members(path: str, member: bool, expected: str) -> None:
    assert (zips.is_member(path), zips.unpacked(path)) == (member, expected)


ESCAPES = [
    "../evil.wav",
    "fan/../../evil.wav",
    "/etc/evil.wav",
    "C:/evil.wav",
    "c:evil.wav",
    "..\\evil.wav",
    "fan\\..\\..\\evil.wav",
    "./fan/.././../evil.wav",
    "\\evil.wav",
    "\\\\server\\share\\evil.wav",
    "D:\\plant\\evil.wav",
    "//evil.wav",
]


@pytest.mark.parametrize("name", ESCAPES)
def test_names_that_would_leave_the_folder_are_refused_and_written_nowhere(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "in" / "side"
    inside.mkdir(parents=True)
    uri = put(inside, packed({name: b"evil", "fan/a.wav": b"good"}))
    before = sorted(tmp_path.rglob("*"))
    assert {found: why for found, (why, _) in refused(uri).items()} == {name: "archive_escape"}
    assert set(taken(uri)) == {"fan/a.wav"}
    with pytest.raises(BadMember, match="^archive_escape: the "):
        zips.read(f"{uri}!/{name}")
    assert zips.read(f"{uri}!/fan/a.wav") == b"good"
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/etc/evil.wav").exists()


def test_backslashes_and_needless_parts_are_read_as_unpacking_reads_them(root: str) -> None:
    uri = store.join(root, "line.zip")
    names = {
        "./press/a.wav": "press/a.wav",
        "press\\b.wav": "press/b.wav",
        ".\\press\\sub\\c.wav": "press/sub/c.wav",
        "press//d.wav": "press/d.wav",
        "press/./e.wav": "press/e.wav",
        "press\\.hidden.wav": None,
        "press\\": None,
        "./": None,
        ".": None,
        "same\\f.wav": None,
        "./same/f.wav": None,
    }
    store.write(uri, packed({name: name.encode() for name in names}))
    assert set(taken(uri)) == {name for name in names.values() if name}
    for name, normal in names.items():
        if normal:
            assert zips.read(zips.member_uri(uri, normal)) == name.encode()
    assert refused(uri) == dict.fromkeys(["same\\f.wav", "./same/f.wav"], ("archive_member", "its name occurs 2 times"))


def test_a_name_with_a_nul_is_refused(tmp_path: Path) -> None:
    uri = put(tmp_path, packed({"a.wavXb.txt": b"1"}).replace(b"a.wavXb.txt", b"a.wav\0b.txt"))
    assert refused(uri)["a.wav\0b.txt"][0] == "archive_escape"


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFDIR])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        info = zipfile.ZipInfo("fan/link.wav")
        info.external_attr = (kind | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    uri = put(tmp_path, file.getvalue())
    assert refused(uri) == {"fan/link.wav": ("archive_escape", "a link or device, not a file")}


def test_a_bomb_is_refused_before_anything_expands(tmp_path: Path) -> None:
    zeros = bytes(64 << 20)
    uri = put(tmp_path, packed({"bomb.wav": zeros, "good.wav": NOISE}))
    assert Path(uri).stat().st_size < len(zeros) // 300
    tracemalloc.start()
    found = refused(uri)
    with pytest.raises(BadMember, match=r"^archive_bomb: \d+ bytes would expand to 67108864; limit: 100 times"):
        zips.read(f"{uri}!/bomb.wav")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert {name: why for name, (why, _) in found.items()} == {"bomb.wav": "archive_bomb"}
    assert peak < 4 << 20
    assert zips.read(f"{uri}!/good.wav") == NOISE


def test_a_short_silence_is_no_bomb(tmp_path: Path) -> None:
    silence = bytes(320_044)
    uri = put(tmp_path, packed({"a.wav": silence}))
    assert zips.read(f"{uri}!/a.wav") == silence


def central(data: bytes, number: int = 0) -> int:
    """Where the central directory's entry ``number`` begins."""
    at = -1
    for _ in range(number + 1):
        at = data.index(b"PK\x01\x02", at + 1)
    return at


def patched(data: bytes, at: int, layout: str, value: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(layout, changed, at, value)
    return bytes(changed)


def test_a_member_that_understates_its_size_stops_there(tmp_path: Path) -> None:
    data = packed({"a.wav": bytes(64 << 20)})
    uri = put(tmp_path, patched(data, central(data) + 24, "<I", 1000))
    tracemalloc.start()
    with pytest.raises(BadMember, match=r"archive_member: 65\d+ compressed bytes are more than 1000 can need"):
        zips.read(f"{uri}!/a.wav")
    small = packed({"a.wav": bytes(100_000)})
    uri = put(tmp_path, patched(small, central(small) + 24, "<I", 1000), "b.zip")
    with pytest.raises(BadMember, match="archive_member: a.wav: 1001 bytes or more, not the stated 1000"):
        zips.read(f"{uri}!/a.wav")
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_members_that_share_bytes_are_refused(tmp_path: Path) -> None:
    data = packed({"a.wav": NOISE, "b.wav": NOISE[::-1], "c.wav": NOISE})
    uri = put(tmp_path, patched(data, central(data, 1) + 42, "<I", 0))
    assert {name: why for name, (why, _) in refused(uri).items()} == {"a.wav": "archive_bomb", "b.wav": "archive_bomb"}
    assert set(taken(uri)) == {"c.wav"}


def test_an_archive_that_expands_absurdly_as_a_whole_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zips, "FREE_TOTAL", 16 << 20)
    part = bytes(7 << 20)
    uri = put(tmp_path, packed({f"{number}.wav": part for number in range(4)}))
    with pytest.raises(BadMember, match=r"^archive_bomb: \d+ bytes would expand to 29360128; the limit is 100 times"):
        list(zips.members(uri))


def test_encrypted_and_oddly_compressed_members_are_refused(tmp_path: Path) -> None:
    data = packed({"locked.wav": b"1"}, zipfile.ZIP_STORED)
    uri = put(tmp_path, patched(data, central(data) + 8, "<H", 1))
    assert refused(uri) == {"locked.wav": ("archive_member", "it is encrypted")}
    for method, number in ((zipfile.ZIP_BZIP2, 12), (zipfile.ZIP_LZMA, 14)):
        uri = put(tmp_path, packed({"a.wav": NOISE}, method), f"{number}.zip")
        detail = f"compression method {number}; allowed: 0 (stored) and 8 (deflated)"
        assert refused(uri) == {"a.wav": ("archive_member", detail)}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.wav", b"1")
        archive.writestr("a.wav", b"2")
        archive.writestr("b.wav", b"3")
    uri = put(tmp_path, file.getvalue())
    assert refused(uri) == {"a.wav": ("archive_member", "its name occurs 2 times")}
    assert set(taken(uri)) == {"b.wav"}


def test_damaged_content_is_told_from_its_checksum(tmp_path: Path) -> None:
    data = packed({"a.wav": NOISE, "b.wav": NOISE}, zipfile.ZIP_STORED)
    at = data.index(NOISE) + 500
    uri = put(tmp_path, patched(data, at, "B", data[at] ^ 1))
    with pytest.raises(BadMember, match=r"archive_member: a.wav: its content is damaged \(CRC-32\)"):
        zips.read(f"{uri}!/a.wav")
    assert zips.read(f"{uri}!/b.wav") == NOISE
    squeezed = packed({"a.wav": b"ab" * 5000})
    uri = put(tmp_path, squeezed[:36] + b"\xff" * 8 + squeezed[44:], "b.zip")
    with pytest.raises(BadMember, match="archive_member: a.wav: "):
        zips.read(f"{uri}!/a.wav")
    uri = put(tmp_path, b"QQ" + data[2:], "c.zip")
    with pytest.raises(BadMember, match="its own header is not where the directory says"):
        zips.read(f"{uri}!/a.wav")


@pytest.mark.parametrize("data", [b"", b"PK", b"RIFF" * 100, packed(GOOD)[:-30], packed(GOOD)[:100]])
def test_what_is_no_archive(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BadMember, match="^not_an_archive: its directory cannot be read: "):
        list(zips.members(put(tmp_path, data)))


def test_a_directory_of_absurd_size_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zips, "MAX_DIRECTORY", 1000)
    uri = put(tmp_path, packed({f"{number:050d}.wav": b"" for number in range(20)}))
    with pytest.raises(BadMember, match=r"not_an_archive: .* it states \d+ bytes; the limit is 1000"):
        list(zips.members(uri))


def test_random_damage_is_an_answer_not_a_crash(tmp_path: Path) -> None:
    chance, good, whole = random.Random(3), packed(GOOD), 0
    seen: set[str] = set()
    for number in range(400):
        data = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            # the directory and the headers, where damage is most telling
            at = chance.choice([chance.randrange(120), chance.randrange(len(good) - 350, len(good))])
            data[at] = chance.randrange(256)
        uri = put(tmp_path, bytes(data), f"{number}.zip")
        try:
            for found in list(zips.members(uri)):
                if isinstance(found, store.Entry):
                    whole += zips.read(f"{uri}!/{found.path}") in GOOD.values()
        except BadMember as error:
            seen.add(error.reason)
    assert whole > 100
    assert {"not_an_archive", "archive_member"} <= seen <= reasons.REJECTED.keys()

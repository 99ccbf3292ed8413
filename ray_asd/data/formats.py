"""What a file is that is not what it is taken for, by its beginning; no decoder is let loose on what nobody knows."""

_RECORDINGS = {
    **dict.fromkeys((b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2", b"\xff\xe3", b"\xff\xe2"), "MP3"),
    **dict.fromkeys((b"\xff\xf1", b"\xff\xf9"), "AAC"),
    b"OggS": "Ogg",
    b"FORM": "AIFF",
    b"caff": "CAF",
    b".snd": "AU",
    b"riff": "W64",
    b"RIFX": "big-endian WAV",
    b"BW64": "BW64",
    b"wvpk": "WavPack",
    b"\x30\x26\xb2\x75": "WMA",
    b"#!AMR": "AMR",
    b"MAC ": "Monkey's Audio",
    b"\x1aE\xdf\xa3": "Matroska or WebM",
}
_CONTAINERS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"7z\xbc\xaf": "7-Zip",
    b"Rar!": "RAR",
    b"\x28\xb5\x2f\xfd": "Zstandard",
}
_TAR = 257  # where a tar file says so
_FTYP = 4  # and where a file of the MP4 family does
_TAG_HEADER = 10  # bytes of ID3v2
START = 512  # bytes that tell


def recording(data: bytes) -> tuple[str, bytes] | None:
    """The format of a recording that is neither WAV nor FLAC, and the bytes that it is told by; None where unknown."""
    if data.startswith(b"ID3"):
        size = sum((byte & 127) << shift for byte, shift in zip(data[6:_TAG_HEADER], (21, 14, 7, 0), strict=False))
        behind = data[_TAG_HEADER + size : _TAG_HEADER + size + 4]
        return ("FLAC behind an ID3 tag, which FLAC has not got" if behind == b"fLaC" else "MP3"), b"ID3"
    if data[_FTYP : _FTYP + 4] == b"ftyp":
        return "MP4, as M4A and 3GP are", data[_FTYP : _FTYP + 8]
    return next(((name, magic) for magic, name in _RECORDINGS.items() if data.startswith(magic)), None)


def no_text(start: bytes) -> str | None:
    """What a file that begins like this is, where that is a recording or an archive."""
    if start[:4] in (b"RIFF", b"RF64", b"fLaC") or recording(start):
        return "a recording"
    if start[_TAR : _TAR + 5] == b"ustar":
        return "a tar archive"
    found = next((name for magic, name in _CONTAINERS.items() if start.startswith(magic)), None)
    return f"an archive ({found})" if found else None

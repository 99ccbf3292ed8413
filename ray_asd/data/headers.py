"""What a WAV or FLAC file says of itself, and whether that can be true. Pure Python: nothing is decoded here.

libsndfile takes a file cut in half, a header that promises 4 GB, or samples of 7 bits without a word. So the header is
read here first, and what it promises is compared with itself and with what is there, before anything is allocated.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ray_asd.errors import Rejected

WAV_WIDTHS = {1: (8, 16, 24, 32), 3: (32, 64)}  # bits by wFormatTag: integer PCM, IEEE float
EXTENSIBLE = 0xFFFE  # wFormatTag: the codec stands at the start of the sub-format GUID, which ends as follows
GUID_END = bytes.fromhex("000000001000800000aa00389b71")
STREAMED = 0xFFFFFFFF  # a size that its writer never came back to fill in; in RF64 it stands in the ds64 chunk
RIFF_SLACK = 8  # bytes: many writers count the RIFF header into its size, or not the last padding
FLAC_WIDTHS = (8, 16, 24)  # bits, of those that libsndfile decodes
FLAC_MAX_BLOCK, FLAC_MIN_FRAME = 65_535, 8  # samples per frame; bytes per frame (RFC 9639 section 9)
OTHERS = {
    **dict.fromkeys((b"ID3", b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2"), "MP3"),
    b"OggS": "Ogg",
    b"FORM": "AIFF",
    b"caff": "CAF",
    b".snd": "AU",
    b"riff": "W64",
    b"RIFX": "big-endian WAV",
    b"wvpk": "WavPack",
    b"\x30\x26\xb2\x75": "WMA",
}  # recordings that are told by how they begin; no decoder is let loose on what nobody knows


class BadAudio(Rejected):
    """A recording that cannot be used."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself; ``num_samples`` is per channel, ``bits`` of one sample.

    ``fault`` is why it cannot be believed, to be raised once its format has been found to be within the limits. ``md5``
    is of all samples, little-endian, channels interleaved (FLAC only, where its writer filled it in).
    """

    sample_rate: int
    channels: int
    num_samples: int
    bits: int
    fault: BadAudio | None = None
    md5: bytes | None = None


def read(data: bytes) -> Header:
    """The header of the WAV or FLAC file ``data``.

    Raises:
        BadAudio: it is neither, is broken, or promises more than there is.
    """
    if data[:4] in (b"RIFF", b"RF64") and data[8:12] == b"WAVE":
        return _wav(data)
    if data[:4] == b"fLaC":
        return _flac(data)
    for magic, name in OTHERS.items():
        if data.startswith(magic):
            raise BadAudio("unsupported_codec", f"{name}, as it begins with {magic!r}; allowed: WAV (RIFF, RF64), FLAC")
    raise BadAudio("not_audio", f"{len(data)} bytes that begin with {data[:8]!r}")


def _wav(data: bytes) -> Header:
    """From the ``fmt `` and ``data`` chunks (Multimedia Programming Interface 1.0; RF64: EBU Tech 3306)."""
    chunks = dict(_chunks(data))
    found = b", ".join(chunks).decode("ascii", "replace") or "none"
    if b"data" not in chunks:
        raise BadAudio("truncated", f"{len(data)} bytes end before the data chunk; found: {found}")
    if b"fmt " not in chunks:
        raise _broken(f"no fmt chunk before the samples; found: {found}")
    start, promised = chunks[b"data"]
    (whole,) = struct.unpack_from("<I", data, 4)
    ds64, ds64_size = chunks.get(b"ds64", (0, 0))
    if data[:4] == b"RF64" and ds64_size >= 16:
        sizes = struct.unpack_from("<QQ", data, ds64)
        whole, promised = (sizes[0] if whole == STREAMED else whole), (sizes[1] if promised == STREAMED else promised)
    present, whole = len(data) - start, whole + 8
    if promised == STREAMED or (promised == 0 < present and whole < len(data)):
        raise BadAudio("truncated", f"streamed: its writer never filled in the size of the {present} bytes present")
    if promised > present:
        raise BadAudio("truncated", f"the header promises {promised} bytes of samples, {present} are there")
    if whole > len(data) + RIFF_SLACK:
        raise BadAudio("truncated", f"the header promises a file of {whole} bytes, {len(data)} are there")
    rate, channels, block, bits, fault = _wav_format(data, *chunks[b"fmt "])
    if fault is None and promised % max(block, 1):
        fault = _false(f"{promised} bytes of samples in blocks of {block} bytes")
    if fault is None and start + promised > whole + RIFF_SLACK:
        fault = _false(f"samples up to byte {start + promised} of a file of {whole} bytes")
    return Header(rate, channels, promised // max(block, 1), bits, fault)


def _wav_format(data: bytes, start: int, size: int) -> tuple[int, int, int, int, BadAudio | None]:
    """Rate in Hz, channels, bytes per sample of all channels, bits, and what contradicts itself."""
    if size < 16:
        raise _broken(f"a fmt chunk of {size} bytes")
    codec, channels, rate, bytes_a_second, block, bits = struct.unpack_from("<HHIIHH", data, start)
    valid = bits
    if codec == EXTENSIBLE:
        if size < 40:
            raise _broken(f"an extensible fmt chunk of {size} bytes")
        (valid,) = struct.unpack_from("<H", data, start + 18)
        (codec,) = struct.unpack_from("<H", data, start + 24)
        if data[start + 26 : start + 40] != GUID_END:
            raise BadAudio("unsupported_codec", f"WAV with sub-format {data[start + 24 : start + 40].hex()}")
    if codec not in WAV_WIDTHS:
        raise BadAudio("unsupported_codec", f"WAV with format tag {codec:#06x}; allowed: integer PCM, IEEE float")
    fault = None
    if bits * channels != 8 * block or not 1 <= valid <= bits:
        fault = _false(f"{valid} of {bits} bits in blocks of {block} bytes for {channels} channel(s)")
    elif bits not in WAV_WIDTHS[codec]:
        fault = BadAudio("unsupported_codec", f"samples of {bits} bits; allowed: {WAV_WIDTHS[codec]}")
    elif bytes_a_second != rate * block:
        fault = _false(f"{bytes_a_second} bytes a second, but {rate} Hz in blocks of {block} bytes")
    return rate, channels, block, bits, fault


def _chunks(data: bytes) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Name and (start, promised size) of each RIFF chunk up to the samples, save one cut off before them."""
    position = 12
    while position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        position += 8
        if name == b"data" or position + size <= len(data):
            yield name, (position, size)
        if name == b"data":
            return
        position += size + size % 2


def _flac(data: bytes) -> Header:
    """From STREAMINFO, always the first metadata block (RFC 9639 section 8.2)."""
    if len(data) < 42:
        raise BadAudio("truncated", f"{len(data)} bytes end inside the FLAC header")
    if data[4] & 0x7F or data[5:8] != b"\0\0\x22":
        raise _broken(f"FLAC that begins with {data[4:8].hex()} instead of a STREAMINFO block")
    smallest, largest = struct.unpack_from(">HH", data, 8)
    packed = int.from_bytes(data[18:26], "big")  # 20 bits rate, 3 channels - 1, 5 bits per sample - 1, 36 total
    rate, channels, bits, total = packed >> 44, (packed >> 41 & 7) + 1, (packed >> 36 & 31) + 1, packed & (1 << 36) - 1
    if total == 0 and len(data) > 42:
        raise BadAudio("truncated", "streamed: its writer never filled in the number of samples, or there are none")
    if total > FLAC_MAX_BLOCK * (len(data) // FLAC_MIN_FRAME):
        raise BadAudio("truncated", f"the header promises {total} samples, more than {len(data)} bytes can hold")
    fault = None
    if not 16 <= smallest <= largest:
        fault = _false(f"blocks of {smallest} to {largest} samples; allowed: from 16")
    elif bits not in FLAC_WIDTHS:
        fault = BadAudio("unsupported_codec", f"FLAC samples of {bits} bits; allowed: {FLAC_WIDTHS}")
    return Header(rate, channels, total, bits, fault, data[26:42] if any(data[26:42]) else None)


def _broken(detail: str) -> BadAudio:
    return BadAudio("not_audio", f"its header is broken: {detail}")


def _false(detail: str) -> BadAudio:
    return BadAudio("false_header", detail)

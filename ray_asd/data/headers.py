"""What a WAV or FLAC file says of itself, and whether that can be true. Pure Python: nothing is decoded here.

libsndfile takes a file cut in half, a header that promises 4 GB, or 24 bits in blocks of 2 bytes without a word. So the
header is read here first, and what it promises is compared with itself and with what is there, before anything is
allocated. What is legal and read in several ways (12 bits in 16, a size that was never filled in) is decoded from
``Header.plain``.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ray_asd.data import formats
from ray_asd.errors import Rejected

WAV_WIDTHS = {1: (8, 16, 24, 32), 3: (32, 64)}  # bits that a sample takes, by wFormatTag: integer PCM, IEEE float
EXTENSIBLE = 0xFFFE  # wFormatTag: the codec stands at the start of the sub-format GUID, which ends in one of these:
GUID_ENDS = (
    bytes.fromhex("000000001000800000aa00389b71"),  # KSDATAFORMAT_SUBTYPE
    bytes.fromhex("00002107d3118644c8c1ca000000"),  # ambisonic B-format: its channels are W, X, Y, Z
)
LONG = 0xFFFFFFFF  # a size that stands in the ds64 chunk of an RF64 file
_NO_SIZE = ((0x7FFF0000, 0x7FFFFFFF), (0xFFFF0000, LONG))  # near the largest number that fits: no size, if not there
RIFF_SLACK = 8  # bytes: many writers count the RIFF header into its size, or not the last padding
FLAC_WIDTHS = (8, 16, 24)  # bits, of those that libsndfile decodes
FLAC_MAX_BLOCK, FLAC_MIN_FRAME = 65_535, 8  # samples per frame; bytes per frame (RFC 9639 section 9)


class BadAudio(Rejected):
    """A recording that cannot be used."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself; ``num_samples`` is per channel, ``bits`` are those that a sample takes in the file.

    ``fault`` is why it cannot be believed, to be raised once its format has been found to be within the limits. ``md5``
    is of all samples, little-endian, channels interleaved (FLAC only, where its writer filled it in). ``streamed``: it
    does not say how long the file is (WAV only), and ``num_samples`` counts what is there. ``plain`` is a header to be
    read in place of the file's own, followed by the bytes from ``start`` to ``stop``.
    """

    sample_rate: int
    channels: int
    num_samples: int
    bits: int
    fault: BadAudio | None = None
    md5: bytes | None = None
    streamed: bool = False
    plain: bytes | None = None
    start: int = 0
    stop: int = 0


def read(data: bytes) -> Header:
    """The header of the WAV or FLAC file ``data``.

    Raises:
        BadAudio: it is neither, is broken, or promises more than there is.
    """
    if data[:4] in (b"RIFF", b"RF64") and data[8:12] == b"WAVE":
        return _wav(data)
    if data[:4] == b"fLaC":
        return _flac(data)
    other = formats.recording(data)
    if other:
        name, magic = other
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
    (start, promised), (whole,) = chunks[b"data"], struct.unpack_from("<I", data, 4)
    ds64, ds64_size = chunks.get(b"ds64", (0, 0))
    if data[:4] == b"RF64" and ds64_size >= 16:
        sizes = struct.unpack_from("<QQ", data, ds64)
        whole, promised = (sizes[0] if whole == LONG else whole), (sizes[1] if promised == LONG else promised)
    present, whole = len(data) - start, whole + 8
    form = _wav_format(data, *chunks[b"fmt "])
    streamed, open_ended = _never_filled_in(promised, whole, start, len(data))
    if open_ended:
        promised = present // max(form.block, 1) * form.block
    elif promised > present:
        raise BadAudio("truncated", f"the header promises {promised} bytes of samples, {present} are there")
    elif not streamed and whole > len(data) + RIFF_SLACK:
        raise BadAudio("truncated", f"the header promises a file of {whole} bytes, {len(data)} are there")
    fault = form.fault
    if fault is None and promised % max(form.block, 1):
        fault = _false(f"{promised} bytes of samples in blocks of {form.block} bytes")
    if fault is None and not streamed and start + promised > whole + RIFF_SLACK:
        fault = _false(f"samples up to byte {start + promised} of a file of {whole} bytes")
    samples = promised // max(form.block, 1)
    plain = None if fault or not (streamed or form.is_odd) else _plain(form, promised)
    return Header(form.rate, form.channels, samples, form.bits, fault, None, streamed, plain, start, start + promised)


def _never_filled_in(promised: int, whole: int, start: int, length: int) -> tuple[bool, bool]:
    """Whether a WAV file's sizes are those of a writer that knew none yet, and whether that of the samples is.

    Such a writer puts 0, the largest number that fits (sox, ffmpeg and arecord each another one), or what was there
    before the first sample.
    """
    largest = any(low <= promised <= high for low, high in _NO_SIZE)
    unknown = largest and promised > length - start
    open_ended = unknown or (promised == 0 and start < length and whole < length)
    return open_ended or (whole <= start and promised > 0), open_ended


@dataclass(frozen=True, slots=True)
class _Format:
    """The fmt chunk: Hz, bytes of a sample of all channels, bits that a sample takes."""

    codec: int
    channels: int
    rate: int
    block: int
    bits: int
    fault: BadAudio | None
    is_odd: bool  # decoders differ in how they take it


def _wav_format(data: bytes, start: int, size: int) -> _Format:
    """Integers of any depth stand at the top of as many whole bytes as they need."""
    if size < 16:
        raise _broken(f"a fmt chunk of {size} bytes")
    codec, channels, rate, bytes_a_second, block, bits = struct.unpack_from("<HHIIHH", data, start)
    used, ambisonic = bits, False
    if codec == EXTENSIBLE:
        if size < 40:
            raise _broken(f"an extensible fmt chunk of {size} bytes")
        used = struct.unpack_from("<H", data, start + 18)[0] or bits  # 0: its writer left it to the other field
        (codec,) = struct.unpack_from("<H", data, start + 24)
        if data[start + 26 : start + 40] not in GUID_ENDS:
            raise BadAudio("unsupported_codec", f"WAV with sub-format {data[start + 24 : start + 40].hex()}")
        ambisonic = data[start + 26 : start + 40] != GUID_ENDS[0]
    if codec not in WAV_WIDTHS:
        raise BadAudio("unsupported_codec", f"WAV with format tag {codec:#06x}; allowed: integer PCM, IEEE float")
    taken = -(-bits // 8) * 8 if codec == 1 else bits
    fault = None
    if taken * channels != 8 * block or not 1 <= used <= bits:
        fault = _false(f"{used} of {bits} bits in blocks of {block} bytes for {channels} channel(s)")
    elif taken not in WAV_WIDTHS[codec]:
        fault = BadAudio("unsupported_codec", f"samples of {bits} bits; allowed: {WAV_WIDTHS[codec]}")
    elif bytes_a_second != rate * block:
        fault = _false(f"{bytes_a_second} bytes a second, but {rate} Hz in blocks of {block} bytes")
    return _Format(codec, channels, rate, block, taken, fault, ambisonic or taken != bits)


def _plain(form: _Format, size: int) -> bytes:
    """The header of a WAV file of those samples, ``size`` bytes, that all decoders take alike."""
    rate = form.rate * form.block
    fields = (16, form.codec, form.channels, form.rate, rate & LONG, form.block, form.bits, b"data", size & LONG)
    return struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", (size + 36) & LONG, b"WAVE", b"fmt ", *fields)


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
        raise BadAudio("streamed", "its writer never filled in the number of samples; a copy by `flac` has it")
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

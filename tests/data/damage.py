"""Recordings as archives hold them: legal oddities that all hold the same sound, and damage of every kind.

Each file is made here, byte by byte where no encoder would write it, and named for what is special about it.
"""

import io
import struct

import numpy as np
import soundfile

RATE = 16_000
_STEPS = np.random.default_rng(5).integers(-127, 128, 4000)
SAMPLES = (_STEPS / 128).astype(np.float32)  # the first channel of every healthy file; 8 bits hold it exactly
PCM_GUID = bytes.fromhex("0100000000001000800000aa00389b71")
AMBISONIC_END = bytes.fromhex("2107d3118644c8c1ca000000")
FOREVER = 0xFFFFFFFF


def chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    """A RIFF chunk, padded to an even length, that may lie about its size."""
    return struct.pack("<4sI", name, len(body) if size is None else size) + body + b"\0" * (len(body) % 2)


def integers(bits: int, channels: int = 1, steps: np.ndarray = _STEPS) -> bytes:
    """The samples as PCM of whole bytes; further channels hold them upside down."""
    if bits == 8:
        return (_side_by_side(steps, channels) + 128).astype(np.uint8).tobytes()
    wide = _side_by_side(steps, channels).astype("<i8") << (bits - 8)
    return wide.view(np.uint8).reshape(-1, 8)[:, : bits // 8].tobytes()


def _side_by_side(steps: np.ndarray, channels: int) -> np.ndarray:
    return np.stack([steps, *[-steps] * (channels - 1)], axis=1)


def form(tag: int = 1, channels: int = 1, bits: int = 16, more: bytes = b"", **lies: int) -> bytes:
    """The fmt chunk; ``lies``: rate, byte_rate, block."""
    rate, block = lies.get("rate", RATE), lies.get("block", channels * bits // 8)
    byte_rate = lies.get("byte_rate", rate * block & FOREVER)
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, byte_rate, block, bits) + more)


def riff(*chunks: bytes, size: int | None = None, kind: bytes = b"RIFF") -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return struct.pack("<4sI", kind, len(body) if size is None else size) + body


def extensible(bits: int, valid: int, guid: bytes = PCM_GUID, size: int = 40) -> bytes:
    more = struct.pack("<HHI", 22, valid, 4) + guid
    return form(0xFFFE, bits=bits, more=more[: size - 16])


def rf64(*chunks: bytes, sizes: tuple[int, int] | None = None, short: int = FOREVER) -> bytes:
    """A long RIFF of a ds64 chunk, a fmt chunk and a data chunk."""
    whole = 4 + 36 + sum(map(len, chunks))
    ds64 = struct.pack("<QQQI", *(sizes or (whole, 8000)), 4000, 0)
    return riff(chunk(b"ds64", ds64), *chunks, size=short, kind=b"RF64")


def encoded(container: str, subtype: str, steps: np.ndarray = _STEPS, rate: int = RATE, level: float = 0.5) -> bytes:
    file = io.BytesIO()
    options = {"compression_level": level} if container == "FLAC" else {}
    soundfile.write(file, steps / 128, rate, subtype, format=container, **options)
    return file.getvalue()


def put(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset] + new + data[offset + len(new) :]


def streaminfo(data: bytes, **fields: int) -> bytes:
    """The FLAC file with other fields (rate, channels, bits, total) in its STREAMINFO."""
    packed = int.from_bytes(data[18:26], "big")
    for name, value in fields.items():
        shift, width = {"rate": (44, 20), "channels": (41, 3), "bits": (36, 5), "total": (0, 36)}[name]
        packed = packed & ~(((1 << width) - 1) << shift) | value << shift
    return put(data, 18, packed.to_bytes(8, "big"))


def frames(data: bytes) -> list[int]:
    """Where the frames of a FLAC file of fixed block size begin."""
    numbers = range(data.count(b"\xff\xf8"))
    starts = [position for position in range(42, len(data)) if data[position : position + 2] == b"\xff\xf8"]
    return [start for start in starts if any(data[start + 4] == number for number in numbers)]


DATA = chunk(b"data", integers(16))
PLAIN = riff(form(), DATA)
LIST = chunk(b"LIST", b"INFOISFT\x0a\0\0\0recorder\0\0")
FLAC = encoded("FLAC", "PCM_16", level=0)  # four frames


def healthy() -> dict[str, bytes]:
    """Legal recordings, odd ones among them: the first channel of each is SAMPLES at 16 kHz."""
    files = {f"pcm {bits}": riff(form(bits=bits), chunk(b"data", integers(bits))) for bits in (8, 16, 24, 32)}
    files |= {
        f"{channels} channels": riff(form(channels=channels), chunk(b"data", integers(16, channels)))
        for channels in (2, 3, 64)
    }
    files |= {
        f"float {bits}": riff(form(3, bits=bits), chunk(b"data", SAMPLES.astype(f"<f{bits // 8}").tobytes()))
        for bits in (32, 64)
    }
    files |= {
        f"{used} bits in {bits}": riff(form(bits=used, block=bits // 8), chunk(b"data", integers(bits)))
        for used, bits in ((5, 8), (9, 16), (14, 16), (18, 24), (22, 24), (25, 32), (31, 32))
    }
    files |= {
        "extensible": riff(extensible(16, 16), DATA),
        "extensible, 18 bits in 24": riff(_extensible(18, 18, 3), chunk(b"data", integers(24))),
        "extensible, no valid bits of 24": riff(extensible(24, 0), chunk(b"data", integers(24))),
        "ambisonic, 24 bits": riff(_ambisonic(1, 24), chunk(b"data", integers(24, 4))),
        "ambisonic, floats": riff(_ambisonic(3, 32), chunk(b"data", _floats(4))),
        "extensible, 24 of 32 bits": riff(extensible(32, 24), chunk(b"data", integers(32))),
        "rf64": rf64(form(), put(DATA, 4, b"\xff" * 4)),
        "rf64 with short sizes": rf64(form(), DATA, short=len(PLAIN) + 28),
        "list before the samples": riff(form(), LIST, DATA),
        "list before the format": riff(LIST, form(), DATA),
        "list after the samples": riff(form(), DATA, LIST),
        "odd chunk, padded": riff(chunk(b"note", b"abc"), form(), chunk(b"note", b"abcde"), DATA),
        "odd chunk at the end, not padded": riff(form(), DATA, chunk(b"note", b"abc")[:-1]),
        "empty chunk": riff(form(), chunk(b"junk", b""), DATA),
        "broadcast extension": riff(chunk(b"bext", bytes(602)), form(), DATA),
        "format of 18 bytes": riff(form(more=b"\0\0"), DATA),
        "format of 40 bytes": riff(form(more=struct.pack("<H", 22) + bytes(22)), DATA),
        "fact that counts nothing": riff(form(), chunk(b"fact", bytes(4)), DATA),
        "riff size counts its own header": riff(form(), DATA, size=len(PLAIN)),
        "bytes after the end": PLAIN + b"uploaded by hand",
        "flac": encoded("FLAC", "PCM_16"),
        "flac of 8 bits": encoded("FLAC", "PCM_S8"),
        "flac of 24 bits": encoded("FLAC", "PCM_24"),
        "flac of many frames": FLAC,
        "flac without checksum": put(FLAC, 26, bytes(16)),
        "flac with bytes after the end": FLAC + b"uploaded by hand",
    }
    return files


def _extensible(bits: int, valid: int, block: int) -> bytes:
    return form(0xFFFE, bits=bits, block=block, more=struct.pack("<HHI", 22, valid, 4) + PCM_GUID)


def _ambisonic(tag: int, bits: int) -> bytes:
    guid = struct.pack("<I", tag) + AMBISONIC_END
    return form(0xFFFE, 4, bits, struct.pack("<HHI", 22, bits, 0) + guid)


def _floats(channels: int) -> bytes:
    return np.stack([SAMPLES, *[-SAMPLES] * (channels - 1)], axis=1).astype("<f4").tobytes()


def streamed() -> dict[str, bytes]:
    """Recordings whose writers never came back to say how long they are; the first channel of each is SAMPLES."""

    def sized(size: int, whole: int, bits: int = 16, channels: int = 1, more: bytes = b"") -> bytes:
        samples = chunk(b"data", integers(bits, channels) + more, size)
        return riff(form(channels=channels, bits=bits), samples, size=whole)

    return {
        "largest sizes": sized(FOREVER, FOREVER),
        "largest size less the header": sized(FOREVER - 36, FOREVER),
        "largest signed sizes": sized(0x7FFFFF00, 0x7FFFFF24, 24),
        "largest signed size, riff of the header": sized(0x7FFFFFFF, 36, 16, 3),
        "no sizes": sized(0, 0),
        "riff of the header, no samples": sized(0, 36, 32),
        "samples counted, riff of no bytes": riff(form(), DATA, size=0),
        "samples counted, riff of the header": riff(LIST, form(), DATA, size=4),
        "cut within a sample": sized(FOREVER, 36, 24, 2, b"\1\2\3\4"),
        "rf64 without long sizes": riff(form(), put(DATA, 4, b"\xff" * 4), size=FOREVER, kind=b"RF64"),
        "rf64 with long sizes of zero": rf64(form(), put(DATA, 4, b"\xff" * 4), sizes=(0, 0)),
        "9 bits in 16": riff(form(bits=9, block=2), put(DATA, 4, b"\xff" * 4), size=FOREVER),
    }


def corpus() -> dict[str, tuple[bytes, str]]:
    """Damaged recordings, each with the code it is rejected with."""
    return {
        name: (data, reason)
        for reason, files in {
            "not_audio": _not_audio(),
            "unsupported_codec": _unsupported(),
            "truncated": _truncated(),
            "streamed": {"flac streamed": streaminfo(FLAC, total=0)},
            "false_header": _false_headers(),
            "no_samples": _empty(),
            "not_finite": _not_finite(),
            "silent": _silent(),
            "too_short": {
                "one sample": riff(form(), chunk(b"data", b"\1\0")),
                "99 ms": riff(form(), chunk(b"data", integers(16)[: 2 * 1584])),
                "99 ms of flac": encoded("FLAC", "PCM_16", _STEPS[:1584]),
            },
            "too_long": {"an hour and a second": riff(form(bits=8, rate=1000), chunk(b"data", bytes(3_601_000)))},
            "absurd_format": _absurd(),
        }.items()
        for name, data in files.items()
    }


def _not_audio() -> dict[str, bytes]:
    return {
        "empty": b"",
        "one byte": b"R",
        "text": b"the microphone was not plugged in\n" * 50,
        "zeros": bytes(9000),
        "noise": np.random.default_rng(1).bytes(9000),
        "picture": b"\x89PNG\r\n\x1a\n" + bytes(500),
        "zip": b"PK\x03\x04" + PLAIN,
        "page of a web server": b"<!DOCTYPE html><title>403 Forbidden</title>" * 9,
        "riff of a video": put(PLAIN, 8, b"AVI "),
        "shifted by one byte": b"\0" + PLAIN,
        "line ends translated": b"RIFF\r\n" + PLAIN[4:],
        "samples before the format": riff(DATA, form()),
        "no format": riff(LIST, DATA),
        "format of 14 bytes": riff(chunk(b"fmt ", form()[8:22]), DATA),
        "extensible format of 18 bytes": riff(extensible(16, 16, size=18), DATA),
        "flac without streaminfo": put(FLAC, 4, b"\4"),
        "flac with a short streaminfo": put(FLAC, 5, b"\0\0\x20"),
    }


def _unsupported() -> dict[str, bytes]:
    coded = {
        f"wav {name}": encoded("WAV", name)
        for name in ("ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32", "NMS_ADPCM_16")
    }
    return coded | {
        "mp3 in wav": riff(form(0x55, bits=0, block=1, more=bytes(14)), DATA),
        "extensible mu-law": riff(extensible(8, 8, b"\7" + PCM_GUID[1:]), DATA),
        "extensible with a stranger's format": riff(extensible(16, 16, bytes(range(16))), DATA),
        "integers of 64 bits": riff(form(bits=64), chunk(b"data", 4 * integers(16))),
        "floats of 16 bits": riff(form(3), DATA),
        "ogg vorbis": encoded("OGG", "VORBIS"),
        "aiff": encoded("AIFF", "PCM_16"),
        "au": encoded("AU", "PCM_16"),
        "caf": encoded("CAF", "PCM_16"),
        "w64": encoded("W64", "PCM_16"),
        "mp3": encoded("MP3", "MPEG_LAYER_III"),
        "mp3 with a tag": b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + encoded("MP3", "MPEG_LAYER_III"),
        "rifx, big-endian": _big_endian(),
    }


def _big_endian() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, SAMPLES, RATE, "PCM_16", "BIG", "WAV")
    return file.getvalue()


def _truncated() -> dict[str, bytes]:
    _, second, third, *_ = frames(FLAC)
    return {
        "cut in half": PLAIN[: len(PLAIN) // 2],
        "cut by one byte": PLAIN[:-1],
        "cut after the header": PLAIN[:44],
        "cut inside the format": PLAIN[:30],
        "cut after twelve bytes": PLAIN[:12],
        "cut inside a list after the samples": riff(form(), DATA, chunk(b"LIST", bytes(400)))[:-300],
        "header that promises 4 GB": riff(form(), put(DATA, 4, struct.pack("<I", FOREVER - (1 << 17)))),
        "header that promises 2 GB": riff(form(), put(DATA, 4, struct.pack("<I", 1 << 31))),
        "header that promises one block more": riff(form(), put(DATA, 4, struct.pack("<I", 8002))),
        "riff that promises 4 GB": riff(form(), DATA, size=FOREVER - 8),
        "rf64 that promises an exabyte": rf64(form(), put(DATA, 4, b"\xff" * 4), sizes=(2**60, 2**60 - 72)),
        "list that promises 4 GB": riff(form(), put(LIST, 4, struct.pack("<I", FOREVER - 9)), DATA),
        "list that is longer than it says": riff(form(), put(LIST, 4, struct.pack("<I", 8)), DATA),
        "no samples chunk": riff(form(), LIST),
        "flac cut in half": FLAC[: len(FLAC) // 2],
        "flac cut by one byte": FLAC[:-1],
        "flac cut between frames": FLAC[:third],
        "flac cut inside its header": FLAC[:30],
        "flac cut after its header": FLAC[:42],
        "flac that promises one sample more": streaminfo(FLAC, total=4001),
        "flac that promises 64 billion samples": streaminfo(FLAC, total=2**36 - 1),
        "flac with a zeroed frame": put(FLAC, second + 20, bytes(300)),
        "flac with one bit flipped": put(FLAC, second + 300, bytes([FLAC[second + 300] ^ 4])),
        "flac of two channels that are one": streaminfo(FLAC, channels=1),
        "flac with a zeroed frame, without checksum": put(put(FLAC, second + 20, bytes(300)), 26, bytes(16)),
    }


def _false_headers() -> dict[str, bytes]:
    start, second, third, *_ = frames(FLAC)
    return {
        "7 bits in blocks of 2 bytes": riff(form(bits=7, block=2), DATA),
        "20 bits in blocks of 2 bytes": riff(form(bits=20, block=2), DATA),
        "24 bits in 32, at either end": riff(form(bits=24, block=4), chunk(b"data", integers(32))),
        "samples of no bits": riff(form(bits=0, block=2), DATA),
        "24 bits in blocks of 2 bytes": riff(form(bits=24, block=2), DATA),
        "8 bits in blocks of 2 bytes": riff(form(bits=8, block=2), DATA),
        "floats of 7 bits": riff(form(3, bits=7, block=4), DATA),
        "stereo in blocks of one sample": riff(form(channels=2, block=2), DATA),
        "blocks of no bytes": riff(form(block=0), DATA),
        "byte rate of zero": riff(form(byte_rate=0), DATA),
        "byte rate of another sample rate": riff(form(byte_rate=96_000), DATA),
        "byte rate beyond reason": riff(form(byte_rate=FOREVER), DATA),
        "24 valid bits of 16": riff(extensible(16, 24), DATA),
        "25 valid bits of 24": riff(extensible(24, 25), chunk(b"data", integers(24))),
        "half a sample at the end": riff(form(), chunk(b"data", integers(16)[:-1])),
        "samples beyond the end of the riff": riff(form(), DATA, size=100),
        "riff that ends after the first samples": riff(form(), DATA, size=60),
        "flac with another checksum": put(FLAC, 26, bytes(range(16))),
        "flac with another frame's place": FLAC[:start] + FLAC[second:third] + FLAC[start:second] + FLAC[third:],
        "flac that misses a frame": FLAC[:second] + FLAC[third:],
        "flac of 24 bits that are 16": streaminfo(FLAC, bits=23),
        "flac whose blocks are too small": put(FLAC, 8, struct.pack(">HH", 1, 1)),
    }


def _empty() -> dict[str, bytes]:
    return {
        "no samples": riff(form(), chunk(b"data", b"")),
        "no samples, then a list": riff(form(), chunk(b"data", b""), LIST),
        "no samples of flac": put(streaminfo(FLAC, total=0)[:42], 4, b"\x80"),
    }


def _not_finite() -> dict[str, bytes]:
    def floats(value: float, bits: int = 32, at: int = 77) -> bytes:
        spoilt = SAMPLES.astype(f"<f{bits // 8}")
        spoilt[at] = value
        return riff(form(3, bits=bits), chunk(b"data", spoilt.tobytes()))

    return {
        "one nan": floats(np.nan),
        "nan at the end": floats(np.nan, at=-1),
        "infinity": floats(np.inf),
        "minus infinity, double": floats(-np.inf, 64),
        "beyond single precision": floats(1e300, 64),
        "magnitude of integers read as floats": riff(form(3, bits=32), chunk(b"data", b"\x7f\x7f\x7f\x7f" * 4000)),
    }


def _silent() -> dict[str, bytes]:
    nothing = np.zeros(4000, np.int64)
    return {
        "zero throughout": riff(form(), chunk(b"data", bytes(8000))),
        "8-bit silence": riff(form(bits=8), chunk(b"data", b"\x80" * 4000)),
        "stuck at full scale": riff(form(), chunk(b"data", b"\xff\x7f" * 4000)),
        "two channels, each stuck elsewhere": riff(form(channels=2), chunk(b"data", b"\1\0\2\0" * 2000)),
        "flac of zeros": encoded("FLAC", "PCM_16", nothing),
    }


def _absurd() -> dict[str, bytes]:
    return {
        "0 Hz": riff(form(rate=0), DATA),
        "999 Hz": riff(form(rate=999), DATA),
        "a gigahertz": riff(form(rate=10**9), DATA),
        "4 GHz": riff(form(rate=FOREVER), DATA),
        "no channels": riff(form(channels=0, block=2), DATA),
        "no channels in blocks of no bytes": riff(form(channels=0), DATA),
        "65 channels": riff(form(channels=65), chunk(b"data", integers(16, 65))),
        "65,535 channels": riff(form(channels=65_535, block=2), DATA),
        "flac at 0 Hz": streaminfo(FLAC, rate=0),
        "flac at a megahertz": streaminfo(FLAC, rate=1_000_000),
    }

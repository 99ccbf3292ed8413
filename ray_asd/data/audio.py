"""The one door for audio: bytes in; a verdict, or a mono float32 waveform at 16 kHz, out.

libsndfile decodes, but takes a file cut in half, or a header that promises 4 GB, without a word. So the header is read
here first, and what it promises is compared with what is there before anything is allocated.

T: samples per channel, C: channels, B: samples per block.
"""

import hashlib
import io
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal, Never

import numpy as np
import numpy.typing as npt
import scipy.signal
import soundfile

from ray_asd import storage
from ray_asd.config import SAMPLE_RATE
from ray_asd.errors import StageError, unknown

Waveform = npt.NDArray[np.float32]

SAMPLE_BYTES = {"PCM_U8": 1, "PCM_S8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
WAV_CODECS = (1, 3)  # wFormatTag: integer PCM, IEEE float
EXTENSIBLE = 0xFFFE  # wFormatTag: the codec stands at the start of the sub-format GUID
STREAMED = 0xFFFFFFFF  # a size that its writer never came back to fill in; in RF64 it stands in the ds64 chunk
FLAC_MAX_BLOCK, FLAC_MIN_FRAME = 65_535, 8  # samples per frame; bytes per frame (RFC 9639 section 9)
MAX_MAGNITUDE = 2.0**32  # beyond unscaled 32-bit integers a float sample is damage, and its square may overflow
BLOCK = 1 << 16  # samples decoded at once

PREVIEW_COMPRESSION = 0.2  # of MP3, from 0 (best) to 1 (smallest)
ZERO_CROSSINGS = 64  # of the resampling filter, each side
ATTENUATION = 96.0  # dB, of what would alias
MAX_DENOMINATOR = 20_000  # of a resampling ratio: bounds the filter, whatever odd rate a file states


class BadAudio(StageError):
    """A recording that cannot be used; ``reason`` is a key of ``tables.REASONS``."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Limits:
    """What is taken: durations in seconds, rates in Hz."""

    min_seconds: float = 0.1
    max_seconds: float = 3600.0
    min_rate: int = 1_000
    max_rate: int = 384_000
    max_channels: int = 64


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a sound recording is; ``num_samples`` is per channel, the names are libsndfile's."""

    sample_rate: int
    channels: int
    num_samples: int
    format: str
    subtype: str


@dataclass(frozen=True, slots=True)
class _Header:
    """What a file says of itself. ``block_bytes``: one sample of all channels (WAV only)."""

    sample_rate: int
    channels: int
    num_samples: int
    block_bytes: int | None = None


def content_hash(data: bytes) -> str:
    """sha256 of the file, as hex digits."""
    return hashlib.sha256(data).hexdigest()


def encode_wav(waveform: npt.NDArray[np.floating], sample_rate: int, subtype: str = "PCM_16") -> bytes:
    """A WAV file of ``waveform`` ([T] or [T, C], full scale 1; PCM clips beyond it) at ``sample_rate`` Hz."""
    file = io.BytesIO()
    soundfile.write(file, waveform, sample_rate, subtype, format="WAV")
    return file.getvalue()


def encode_preview(waveform: Waveform) -> bytes:
    """An MP3 file of ``waveform`` (float32 [T] at 16 kHz, full scale 1), some 5 kB a second, that every browser plays.

    What is louder than full scale is turned down as a whole, so that a preview never clips.
    """
    loudest = float(np.abs(waveform).max(initial=0.0))
    file = io.BytesIO()
    options = {"bitrate_mode": "VARIABLE", "compression_level": PREVIEW_COMPRESSION}
    soundfile.write(file, waveform / max(loudest, 1.0), SAMPLE_RATE, "MPEG_LAYER_III", format="MP3", **options)
    return file.getvalue()


def inspect(data: bytes, limits: Limits = DEFAULT_LIMITS) -> AudioInfo:
    """What the WAV or FLAC file ``data`` is, after decoding all of it, block by block.

    Raises:
        BadAudio: it is not what it says, breaks a limit, or holds no sound (every channel constant).
    """
    with _open(data, limits) as file:
        low = np.full(file.channels, np.inf, np.float32)
        high = -low
        for block in _blocks(file):
            low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
        if np.array_equal(low, high):
            raise BadAudio("silent", f"all {file.frames} samples of every channel equal {low.tolist()}")
        return AudioInfo(file.samplerate, file.channels, file.frames, file.format, file.subtype)


def decode(data: bytes, channel: int | Literal["mean"], limits: Limits = DEFAULT_LIMITS) -> Waveform:
    """One channel of ``data``, or the mean of all: float32 [T] at 16 kHz; integer samples / 2^(bits - 1).

    Raises:
        BadAudio: as ``inspect``, except that constant channels are taken.
        UserError: the file has no such channel.
    """
    with _open(data, limits) as file:
        if channel != "mean" and channel not in range(file.channels):
            allowed = [*range(file.channels), "mean"]
            raise unknown(f"channel (of a recording with {file.channels})", channel, allowed)
        mono = [block.mean(axis=1) if channel == "mean" else block[:, channel] for block in _blocks(file)]
        return resample(np.concatenate(mono), Fraction(SAMPLE_RATE, file.samplerate))


def read_waveform(uri: str, channel: int | Literal["mean"], recorded_hash: str | None = None) -> Waveform:
    """``decode`` of the file at ``uri``, which still has its ``recorded_hash`` where one is given.

    Raises:
        BadAudio: there is none, or it cannot be decoded; the detail names it.
        StageError: its content is not the recorded one.
        UserError: it has no such channel.
    """
    try:
        data = storage.read(uri)
        if recorded_hash not in (None, content_hash(data)):
            raise StageError(f"{uri}: the recording has changed since it was ingested; ingest it again")
        return decode(data, channel)
    except FileNotFoundError as error:
        raise BadAudio("missing", uri) from error
    except BadAudio as error:
        raise BadAudio(error.reason, f"{uri}: {error.detail}") from error


def resample(waveform: Waveform, ratio: Fraction) -> Waveform:
    """Float32 [T] -> [ceil(T * ratio)]: polyphase, Kaiser-windowed sinc, linear phase, no delay, the same on every run.

    Flat to 0.90 of the lower Nyquist frequency, -96 dB above it. A ratio of large coprime terms is replaced by the
    nearest with a denominator up to 20,000, at most 50 parts per million off: so are the clocks of recorders.
    """
    ratio = ratio.limit_denominator(MAX_DENOMINATOR)
    if ratio == 1:
        return waveform
    window = _lowpass(max(ratio.numerator, ratio.denominator))
    resampled: Waveform = scipy.signal.resample_poly(waveform, ratio.numerator, ratio.denominator, window=window)
    return resampled


@lru_cache(maxsize=4)
def _lowpass(factor: int) -> Waveform:
    """Filter passing 1/``factor`` of its band; transition width from Kaiser's formula for the attenuation."""
    length = 2 * ZERO_CROSSINGS * factor + 1
    transition = (ATTENUATION - 7.95) / (2.285 * math.pi * 2 * ZERO_CROSSINGS)  # share of the pass band
    window = ("kaiser", scipy.signal.kaiser_beta(ATTENUATION))
    taps: npt.NDArray[np.float64] = scipy.signal.firwin(length, (1 - transition / 2) / factor, window=window)
    return taps.astype(np.float32)


def _open(data: bytes, limits: Limits) -> soundfile.SoundFile:
    """The opened file, once its header has been found to be true and within the limits."""
    if data[:4] in (b"RIFF", b"RF64") and data[8:12] == b"WAVE":
        header = _wav_header(data)
    elif data[:4] == b"fLaC":
        header = _flac_header(data)
    else:
        _refuse_other(data)
    _check_limits(header, limits)
    try:
        file = soundfile.SoundFile(io.BytesIO(data))
    except soundfile.LibsndfileError as error:
        raise BadAudio("not_audio", f"its header is broken: {error.error_string}") from error
    width = SAMPLE_BYTES.get(file.subtype)
    if width is None or (header.block_bytes and header.block_bytes != width * file.channels):
        detail = f"{file.subtype} in blocks of {header.block_bytes} bytes for {file.channels} channel(s)"
        raise BadAudio("unsupported_codec", detail)
    if file.frames != header.num_samples:
        raise BadAudio("truncated", f"the header promises {header.num_samples} samples, {file.frames} can be decoded")
    return file


def _refuse_other(data: bytes) -> Never:
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            found = f"{file.format} {file.subtype}"
    except soundfile.LibsndfileError as error:
        detail = f"{len(data)} bytes that begin with {data[:8]!r}: {error.error_string}"
        raise BadAudio("not_audio", detail) from error
    raise BadAudio("unsupported_codec", f"{found} that begins with {data[:4]!r}; allowed: WAV (RIFF, RF64), FLAC")


def _wav_header(data: bytes) -> _Header:
    """From the ``fmt `` and ``data`` chunks (Multimedia Programming Interface 1.0; RF64: EBU Tech 3306)."""
    chunks = dict(_chunks(data))
    if b"data" not in chunks or b"fmt " not in chunks:
        found = b", ".join(chunks).decode("ascii", "replace") or "none"
        raise BadAudio("truncated", f"{len(data)} bytes end before the fmt and data chunks; found: {found}")
    (start, promised), (fmt, fmt_size) = chunks[b"data"], chunks[b"fmt "]
    if fmt_size < 16:
        raise BadAudio("not_audio", f"its header is broken: a fmt chunk of {fmt_size} bytes")
    codec, channels, rate, _, block, _ = struct.unpack_from("<HHIIHH", data, fmt)
    if codec == EXTENSIBLE and fmt_size >= 26:
        (codec,) = struct.unpack_from("<H", data, fmt + 24)
    if codec not in WAV_CODECS:
        raise BadAudio("unsupported_codec", f"WAV with format tag {codec:#06x}; allowed: integer PCM, IEEE float")
    if promised == STREAMED and data[:4] == b"RF64" and b"ds64" in chunks and chunks[b"ds64"][1] >= 16:
        (promised,) = struct.unpack_from("<Q", data, chunks[b"ds64"][0] + 8)
    present = len(data) - start
    (whole,) = struct.unpack_from("<I", data, 4)
    if promised == STREAMED or (promised == 0 < present and whole + 8 < len(data)):
        raise BadAudio("truncated", f"streamed: its writer never filled in the size of the {present} bytes present")
    if promised > present:
        raise BadAudio("truncated", f"the header promises {promised} bytes of samples, {present} are there")
    return _Header(rate, channels, promised // max(block, 1), block)


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


def _flac_header(data: bytes) -> _Header:
    """From STREAMINFO, always the first metadata block (RFC 9639 section 8.2)."""
    if len(data) < 42:
        raise BadAudio("truncated", f"{len(data)} bytes end inside the FLAC header")
    packed = int.from_bytes(data[18:26], "big")  # 20 bits rate, 3 channels - 1, 5 bits per sample - 1, 36 total
    rate, channels, total = packed >> 44, (packed >> 41 & 0b111) + 1, packed & (1 << 36) - 1
    if total == 0 and len(data) > 42:
        raise BadAudio("truncated", "streamed: its writer never filled in the number of samples, or there are none")
    if total > FLAC_MAX_BLOCK * (len(data) // FLAC_MIN_FRAME):
        raise BadAudio("truncated", f"the header promises {total} samples, more than {len(data)} bytes can hold")
    return _Header(rate, channels, total)


def _check_limits(header: _Header, limits: Limits) -> None:
    rate, channels, samples = header.sample_rate, header.channels, header.num_samples
    if not limits.min_rate <= rate <= limits.max_rate:
        raise BadAudio("absurd_format", f"{rate} Hz; allowed: {limits.min_rate} to {limits.max_rate}")
    if not 1 <= channels <= limits.max_channels or header.block_bytes == 0:
        detail = f"{channels} channels in blocks of {header.block_bytes} bytes; allowed: 1 to {limits.max_channels}"
        raise BadAudio("absurd_format", detail)
    if samples == 0:
        raise BadAudio("no_samples", "the header is whole, and promises no samples")
    if samples < limits.min_seconds * rate:
        raise BadAudio("too_short", f"{samples / rate:.4f} s; allowed: from {limits.min_seconds:g} s")
    if samples > limits.max_seconds * rate:
        raise BadAudio("too_long", f"{samples / rate:.1f} s; allowed: up to {limits.max_seconds:g} s")


def _blocks(file: soundfile.SoundFile) -> Iterator[Waveform]:
    """All of ``file`` in order, as finite float32 [B, C]."""
    done = 0
    while done < file.frames:
        try:
            block = file.read(min(BLOCK, file.frames - done), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            detail = f"decoding stopped after {done} of {file.frames} samples: {error.error_string}"
            raise BadAudio("truncated", detail) from error
        if not len(block):
            raise BadAudio("truncated", f"decoding ended after {done} of {file.frames} samples")
        if not np.abs(block).max() <= MAX_MAGNITUDE:
            where = f"samples {done} to {done + len(block)}"
            raise BadAudio("not_finite", f"a NaN, or a magnitude beyond {MAX_MAGNITUDE:g}, in {where}")
        done += len(block)
        yield block

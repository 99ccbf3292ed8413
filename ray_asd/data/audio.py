"""The one door for audio: bytes in; a verdict, or a mono float32 waveform at 16 kHz, out.

libsndfile decodes, block by block, what ``headers`` has found to be believable; what comes out is compared with what
the header promised.

T: samples per channel, C: channels, B: samples per block.
"""

import hashlib
import io
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from ray_asd.config import SAMPLE_RATE
from ray_asd.data import headers
from ray_asd.data.headers import BadAudio as BadAudio  # where it is raised for everyone
from ray_asd.data.headers import Header
from ray_asd.data.loudness import Loudness
from ray_asd.errors import UserError

Waveform = npt.NDArray[np.float32]

SAMPLE_BYTES = {"PCM_U8": 1, "PCM_S8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
MAX_MAGNITUDE = 2.0**32  # beyond unscaled 32-bit integers a float sample is damage, and its square may overflow
BLOCK = 1 << 14  # samples decoded and resampled at once: they stay in the cache

PREVIEW_COMPRESSION = 0.2  # of MP3, from 0 (best) to 1 (smallest)


class NoChannel(UserError):
    """A recording of so many channels without the one that is to be heard."""

    def __init__(self, channel: int, channels: int) -> None:
        super().__init__(channel, channels)
        self.channel, self.channels = channel, channels

    def __str__(self) -> str:
        allowed = ", ".join(map(str, [*range(self.channels), "mean"]))
        return f"unknown channel (of a recording with {self.channels}) '{self.channel}'; allowed: {allowed}"


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
    """What a sound recording is; ``num_samples`` is per channel, the names are libsndfile's.

    ``dead_channels`` are constant throughout; ``streamed`` recordings do not say how long they are. ``level`` is the
    RMS of the others in dB of full scale, ``clipped`` the share of their samples that is there.
    """

    sample_rate: int
    channels: int
    num_samples: int
    format: str
    subtype: str
    dead_channels: tuple[int, ...] = ()
    streamed: bool = False
    level: float | None = None
    clipped: float | None = None


def content_hash(data: bytes) -> str:
    """sha256 of the file, as hex digits."""
    return hashlib.sha256(data).hexdigest()


def encode_wav(waveform: npt.NDArray[np.floating], sample_rate: int, subtype: str = "PCM_16") -> bytes:
    """A WAV file of ``waveform`` ([T] or [T, C], full scale 1; PCM clips beyond it) at ``sample_rate`` Hz."""
    return encode(waveform, sample_rate, "WAV", subtype)


def encode(waveform: npt.NDArray[np.floating], sample_rate: int, container: str, subtype: str) -> bytes:
    """As ``encode_wav``, in another container: WAV, WAVEX, RF64 or FLAC."""
    file = io.BytesIO()
    soundfile.write(file, waveform, sample_rate, subtype, format=container)
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
    with _open(data, limits) as (file, header):
        loudness = Loudness(file.channels, header.bits, MAX_MAGNITUDE)
        for _ in _blocks(file, header, loudness.add):
            pass
        found = loudness.found()
        if found.dead.all():
            raise BadAudio("silent", f"all {file.frames} samples of every channel equal {found.low.tolist()}")
        dead = tuple(np.flatnonzero(found.dead).tolist())
        kind = file.samplerate, file.channels, file.frames, file.format, file.subtype
        return AudioInfo(*kind, dead, header.streamed, found.level, found.clipped)


def decode(data: bytes, channel: int | Literal["mean"], limits: Limits = DEFAULT_LIMITS) -> Waveform:
    """One channel of ``data``, or the mean of all: float32 [T] at 16 kHz; integer samples / 2^(bits - 1).

    Raises:
        BadAudio: as ``inspect``, except that constant channels are taken.
        NoChannel: the file has no such channel.
    """
    with _open(data, limits) as (file, header):
        if channel != "mean" and channel not in range(file.channels):
            raise NoChannel(channel, file.channels)
        blocks = _blocks(file, header, lambda block: float(np.abs(block).max()))
        mono = (block.mean(axis=1) if channel == "mean" else block[:, channel].copy() for block in blocks)
        return _resampled(mono, Fraction(SAMPLE_RATE, file.samplerate))


def resample(waveform: Waveform, ratio: Fraction) -> Waveform:
    """Float32 [T] -> [ceil(T * ratio)], any ratio, linear phase, no delay, the same on every run and thread.

    soxr's high quality: within 0.01 dB up to 0.91 of the lower Nyquist frequency, 120 dB down from that frequency on.
    """
    if ratio == 1:
        return waveform
    return _resampled((waveform[start : start + BLOCK] for start in range(0, len(waveform), BLOCK)), ratio)


def _resampled(blocks: Iterable[Waveform], ratio: Fraction) -> Waveform:
    """As ``resample`` of all ``blocks`` one after another, of which no more than one need be there at a time."""
    if ratio == 1:
        return np.concatenate(list(blocks))
    stream = soxr.ResampleStream(ratio.denominator, ratio.numerator, 1, "float32", "HQ")
    resampled, length = [], 0
    for block in blocks:
        resampled.append(stream.resample_chunk(block))
        length += len(block)
    # soxr rounds the length to the nearest; one output period of silence makes it long enough.
    resampled.append(stream.resample_chunk(np.zeros(math.ceil(1 / ratio), np.float32), last=True))
    return np.concatenate(resampled)[: math.ceil(length * ratio)]


@contextmanager
def _open(data: bytes, limits: Limits) -> Iterator[tuple[soundfile.SoundFile, Header]]:
    """The opened file and its header, once that has been found to be true and within the limits."""
    header = headers.read(data)
    _check_limits(header, limits)
    if header.fault:
        raise header.fault
    if header.plain is not None:
        data = header.plain + data[header.start : header.stop]
    try:
        file = soundfile.SoundFile(io.BytesIO(data))
    except soundfile.LibsndfileError as error:
        raise BadAudio("not_audio", f"its header is broken: {error.error_string}") from error
    with file:
        seen = (file.samplerate, file.channels, 8 * SAMPLE_BYTES.get(file.subtype, 0))
        if seen != (header.sample_rate, header.channels, header.bits):
            detail = f"{header.sample_rate} Hz, {header.channels} channel(s), {header.bits} bits; decoded as {seen}"
            raise BadAudio("false_header", detail)
        if file.frames != header.num_samples:
            detail = f"the header promises {header.num_samples} samples, {file.frames} can be decoded"
            raise BadAudio("truncated", detail)
        yield file, header


def _check_limits(header: Header, limits: Limits) -> None:
    rate, channels, samples = header.sample_rate, header.channels, header.num_samples
    if not limits.min_rate <= rate <= limits.max_rate:
        raise BadAudio("absurd_format", f"{rate} Hz; allowed: {limits.min_rate} to {limits.max_rate}")
    if not 1 <= channels <= limits.max_channels:
        raise BadAudio("absurd_format", f"{channels} channels; allowed: 1 to {limits.max_channels}")
    if samples == 0:
        raise BadAudio("no_samples", "the header is whole, and promises no samples")
    if samples < limits.min_seconds * rate:
        raise BadAudio("too_short", f"{samples / rate:.4f} s; allowed: from {limits.min_seconds:g} s")
    if samples > limits.max_seconds * rate:
        raise BadAudio("too_long", f"{samples / rate:.1f} s; allowed: up to {limits.max_seconds:g} s")


def _blocks(file: soundfile.SoundFile, header: Header, peak: Callable[[Waveform], float]) -> Iterator[Waveform]:
    """All of ``file`` in order, as finite float32 [B, C]; ``peak`` is asked for the largest magnitude of each block."""
    heard = hashlib.md5(usedforsecurity=False)
    done = 0
    while done < file.frames:
        block = _read(file, done, "float32" if header.md5 is None else "int32")
        if header.md5:  # integers fill their 32 bits from the top, and are hashed without the rest
            heard.update(block.view(np.uint8).reshape(-1, 4)[:, 4 - header.bits // 8 :].tobytes())
            block = np.ldexp(block.astype(np.float32), -31)
        if not peak(block) <= MAX_MAGNITUDE:
            where = f"samples {done} to {done + len(block)}"
            raise BadAudio("not_finite", f"a NaN, or a magnitude beyond {MAX_MAGNITUDE:g}, in {where}")
        done += len(block)
        yield block
    if header.md5 and heard.digest() != header.md5:
        raise BadAudio("false_header", f"its samples hash to {heard.hexdigest()}, not to {header.md5.hex()}")


def _read(file: soundfile.SoundFile, done: int, dtype: str) -> npt.NDArray[Any]:
    """The next [B, C] samples, after ``done``."""
    try:
        block: npt.NDArray[Any] = file.read(min(BLOCK, file.frames - done), dtype, always_2d=True)
    except soundfile.LibsndfileError as error:
        detail = f"decoding stopped after {done} of {file.frames} samples: {error.error_string}"
        raise BadAudio("truncated", detail) from error
    if not len(block):
        raise BadAudio("truncated", f"decoding ended after {done} of {file.frames} samples")
    return block

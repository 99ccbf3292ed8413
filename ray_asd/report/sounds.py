"""Recordings for a page: a spectrogram as an image and a compressed preview, both as data URIs.

T: samples at 16 kHz, M: mel bands, F: frames.
"""

import base64
import io
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import scipy
from numpy.typing import NDArray

from ray_asd.config import SAMPLE_RATE
from ray_asd.data import audio, recordings
from ray_asd.data.audio import Waveform
from ray_asd.errors import StageError

SECONDS = 12  # of a recording that are shown and played, from its start
_WINDOW, _MAX_FRAMES, _BANDS = 1024, 400, 96
_QUIET = 1e-10  # power below which a band counts as silent

Decibels = NDArray[np.float32]


def load(row: Mapping[str, Any], channel: int | Literal["mean"], start: float = 0.0) -> Waveform:
    """Some seconds of a CLIPS row's recording from ``start`` on, float32 [T], as the model heard it.

    Raises:
        StageError: it is gone, has changed since it was ingested, or cannot be decoded.
        UserError: its bucket is gone, or it has no such channel.
    """
    try:
        first = round(start * SAMPLE_RATE)
        return recordings.waveform(row, channel)[first : first + SECONDS * SAMPLE_RATE]
    except (OSError, audio.BadAudio) as error:
        raise StageError(f"the recording cannot be read any more: {error}") from error


def spectrogram(waveform: Waveform) -> Decibels:
    """Float32 [T] -> [M, F] in dB: mean power in bands of equal width in mel, up to 8 kHz, low ones first."""
    hop = max(_WINDOW // 4, -(-len(waveform) // _MAX_FRAMES))
    window = np.hanning(_WINDOW)
    padded = np.pad(waveform, (0, max(0, _WINDOW - len(waveform))))
    power = scipy.signal.ShortTimeFFT(window, hop, SAMPLE_RATE, scale_to="psd").spectrogram(padded)
    edges = 700 * (10 ** (np.linspace(0, _mel(SAMPLE_RATE / 2), _BANDS + 1) / 2595) - 1)
    starts = np.minimum(edges[:-1] * _WINDOW / SAMPLE_RATE, len(power) - 1).astype(int)
    widths = np.maximum(np.diff(np.append(starts, len(power))), 1)
    bands = np.add.reduceat(power, starts, axis=0) / widths[:, None]
    return (10 * np.log10(np.maximum(bands, _QUIET))).astype(np.float32)


def height(hertz: float) -> float:
    """At which share of a spectrogram's height a frequency is, from below."""
    return min(_mel(hertz) / _mel(SAMPLE_RATE / 2), 1.0)


def _mel(hertz: float) -> float:
    return float(2595 * np.log10(1 + hertz / 700))


def image(decibels: Decibels, low: float, high: float) -> str:
    """A spectrogram as the data URI of a JPEG; colours run from ``low`` to ``high`` dB, low bands at the bottom."""
    from matplotlib.image import imsave  # takes a second

    drawn = io.BytesIO()
    options = {"quality": 75}
    imsave(drawn, decibels, low, high, "magma", "jpg", "lower", pil_kwargs=options)
    return _data_uri("image/jpeg", drawn.getvalue())


def player(waveform: Waveform) -> str:
    """The data URI of a compressed preview."""
    return _data_uri("audio/mpeg", audio.encode_preview(waveform))


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"

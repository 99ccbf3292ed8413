"""The one door for audio: bytes in, a checked and resampled waveform out."""

import io

import numpy as np
import numpy.typing as npt
import soundfile


def encode_wav(waveform: npt.NDArray[np.floating], sample_rate: int, subtype: str = "PCM_16") -> bytes:
    """A WAV file of ``waveform`` ([T] or [T, C], full scale 1; PCM clips beyond it) at ``sample_rate`` Hz."""
    file = io.BytesIO()
    soundfile.write(file, waveform, sample_rate, subtype, format="WAV")
    return file.getvalue()

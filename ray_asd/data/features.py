"""Log-mel features as the official DCASE 2023 task 2 baseline takes them, and embeddings made of them untrained.

T: samples at 16 kHz, F: frames.
"""

import sys
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
import torchaudio

from ray_asd.config import SAMPLE_RATE

N_FFT = 1024  # samples
HOP = 512  # samples
NUM_MELS = 128
POWER = 2.0  # of the magnitudes

Features = npt.NDArray[np.float32]


@lru_cache(maxsize=1)
def _mel_spectrogram() -> torchaudio.transforms.MelSpectrogram:
    return torchaudio.transforms.MelSpectrogram(
        sample_rate=SAMPLE_RATE,
        n_fft=N_FFT,
        hop_length=HOP,
        n_mels=NUM_MELS,
        power=POWER,
        pad_mode="constant",
        norm="slaney",
        mel_scale="slaney",
    )


def log_mel(waveform: npt.NDArray[np.float32]) -> Features:
    """Float32 [T] -> [128, F] in dB, F = T // 512 + 1: frames centred on every 512th sample, zeros beyond the ends."""
    with torch.inference_mode():
        mel = _mel_spectrogram()(torch.tensor(waveform))
        decibels: Features = (20 / POWER * mel.clamp_min(sys.float_info.epsilon).log10()).numpy()
    return decibels


def spectral_embedding(waveform: npt.NDArray[np.float32]) -> Features:
    """Float32 [T] -> [384]: of each log-mel band mean and deviation over frames, and deviation of frame differences."""
    mel = log_mel(waveform)
    changes = np.diff(mel, axis=1).std(axis=1) if mel.shape[1] > 1 else np.zeros(NUM_MELS, np.float32)
    return np.concatenate([mel.mean(axis=1), mel.std(axis=1), changes])


def log_mel_embedding(waveform: npt.NDArray[np.float32]) -> Features:
    """Float32 [T] -> [256]: mean, then standard deviation, over the frames of each log-mel band, in dB.

    Neither centred nor standardised: the means share a level far from zero, which dominates the direction.
    """
    mel = log_mel(waveform)
    return np.concatenate([mel.mean(axis=1), mel.std(axis=1)])

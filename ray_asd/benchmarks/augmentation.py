"""Status augmentation: speed changes against those of librosa and torchaudio, in time and in truth.

    python -m ray_asd.benchmarks.augmentation

The signal-to-noise ratio is against the same signal written down at the new speed, away from its ends. librosa takes
part where it is installed.
"""

import importlib.util
from collections.abc import Callable

import click
import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray

from ray_asd.benchmarks import measure
from ray_asd.benchmarks.measure import Times, Work
from ray_asd.config import SAMPLE_RATE
from ray_asd.data import augment

EDGE = 2048  # samples at either end, where frames lack a part
TORCHAUDIO_FRAME = 2048  # samples, librosa's too
SNR_SECONDS = 5.0

Samples = NDArray[np.float32]
Change = Callable[[Samples, float], Samples]
Signal = Callable[[float, float, bool], Samples]  # of seconds, speed, and whether the pitch follows the speed


@click.command()
@click.option("--speed", default=0.9, show_default=True)
@click.option("--clips", default=8, show_default=True)
@click.option("--seconds", default=10.0, show_default=True, help="Of each clip.")
@click.option("--repetitions", default=5, show_default=True)
def main(speed: float, clips: int, seconds: float, repetitions: int) -> None:
    """Time the speed change of clips, and measure how true it is."""
    random = np.random.default_rng(0)
    recordings = [random.standard_normal(round(seconds * SAMPLE_RATE)).astype(np.float32) for _ in range(clips)]
    click.echo(measure.hardware("torchaudio", "librosa", "scipy"))
    click.echo(f"{clips} clips of {seconds:g} s at speed {speed:g}, {repetitions} repetitions in turns\n")
    for mode in ("resample", "stretch"):
        changes = {"ray_asd": lambda x, by, mode=mode: augment.change_speed(x, by, mode)} | _others(mode)
        work = {name: _each(change, recordings, speed) for name, change in changes.items()}
        times = measure.alternate(work, repetitions)
        rows = [_row(name, times, clips * seconds, change, speed, mode) for name, change in changes.items()]
        header = [mode, "ms per s of audio", "ray_asd is faster", "SNR harmonics", "SNR chirp"]
        click.echo(measure.table(header, rows) + "\n")


def _each(change: Change, recordings: list[Samples], speed: float) -> Work:
    return lambda: [change(recording, speed) for recording in recordings]


def _row(name: str, times: dict[str, Times], audio: float, change: Change, speed: float, mode: str) -> list[str]:
    taken = times[name].median
    ratios = (_snr(change, signal, speed, follows=mode == "resample") for signal in (_harmonics, _chirp))
    ratio = f"{taken / times['ray_asd'].median:.2f}"
    return [name, f"{1e3 * taken / audio:.2f}", ratio, *(f"{decibels:.1f} dB" for decibels in ratios)]


def _others(mode: str) -> dict[str, Change]:
    others: dict[str, Change] = {"torchaudio": _torchaudio_resample if mode == "resample" else _torchaudio_stretch}
    if importlib.util.find_spec("librosa"):
        others["librosa"] = _librosa_resample if mode == "resample" else _librosa_stretch
    return others


def _torchaudio_resample(waveform: Samples, speed: float) -> Samples:
    changed: Samples = torchaudio.functional.speed(torch.from_numpy(waveform), SAMPLE_RATE, speed)[0].numpy()
    return changed


def _torchaudio_stretch(waveform: Samples, speed: float) -> Samples:
    hop = TORCHAUDIO_FRAME // 4
    spectrum = torchaudio.transforms.Spectrogram(TORCHAUDIO_FRAME, hop_length=hop, power=None)
    stretch = torchaudio.transforms.TimeStretch(hop, TORCHAUDIO_FRAME // 2 + 1, fixed_rate=speed)
    back = torchaudio.transforms.InverseSpectrogram(TORCHAUDIO_FRAME, hop_length=hop)
    changed: Samples = back(stretch(spectrum(torch.from_numpy(waveform))), round(len(waveform) / speed)).numpy()
    return changed


def _librosa_resample(waveform: Samples, speed: float) -> Samples:
    import librosa

    changed: Samples = librosa.resample(waveform, orig_sr=SAMPLE_RATE, target_sr=SAMPLE_RATE / speed)
    return changed


def _librosa_stretch(waveform: Samples, speed: float) -> Samples:
    from librosa.effects import time_stretch

    changed: Samples = time_stretch(waveform, rate=speed)
    return changed


def _snr(change: Change, signal: Signal, speed: float, follows: bool) -> float:
    """dB of what ``change`` makes of ``signal``, against the signal at that speed."""
    changed = change(signal(SNR_SECONDS, 1.0, follows), speed)
    expected = signal(SNR_SECONDS / speed, speed, follows)
    common = slice(EDGE, min(len(changed), len(expected)) - EDGE)
    error = np.square(changed[common] - expected[common], dtype=np.float64).sum()
    return float(10 * np.log10(np.square(expected[common], dtype=np.float64).sum() / error))


def _harmonics(seconds: float, speed: float, follows: bool) -> Samples:
    """31 partials of 237.3 Hz that keep their frequencies, or follow the speed."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE * (speed if follows else 1)
    partials = np.arange(1, 32)[:, None]
    waves = np.cos(2 * np.pi * 237.3 * partials * time + 1.7 * partials**2) / partials
    return np.asarray(waves.sum(axis=0), np.float32)


def _chirp(seconds: float, speed: float, follows: bool) -> Samples:
    """300 Hz rising by 100 Hz per second of the original; at another speed each pitch comes at the scaled time."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE * speed
    turns = (300 * time + 50 * time**2) / (1 if follows else speed)
    return np.asarray(np.cos(2 * np.pi * turns + 1), np.float32)


if __name__ == "__main__":
    main()

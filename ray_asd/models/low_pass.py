"""What a system trained on resampled clips does not hear: the top of the band, where such a clip is empty.

A clip that is resampled to a slower speed has nothing above its old Nyquist frequency. Silence there would tell it from
an original at a glance, and nothing of the machine would be learned. So all that such a system hears, in training and
afterwards, ends below. B batch, T samples at 16 kHz.
"""

from typing import Self

import scipy
import torch
from torch import Tensor, nn

from ray_asd.config import SAMPLE_RATE, Augmentation

PASSED = 0.91  # of the lower Nyquist frequency: what the resampler leaves as it is (data.audio.resample)
TRANSITION = 500.0  # Hz, below the stop band
ATTENUATION = 130.0  # dB: what is left is no louder than the rounding of float32


class LowPass(nn.Module):
    """Windowed sinc (Kaiser) of linear phase and no delay: ``ATTENUATION`` down from ``stop`` Hz on.

    Up to ``TRANSITION`` below it amplitudes are kept within 1e-5. It is no part of a saved model: the recipe tells it.
    """

    def __init__(self, stop: float) -> None:
        super().__init__()
        taps, beta = scipy.signal.kaiserord(ATTENUATION, TRANSITION / (SAMPLE_RATE / 2))
        sinc = scipy.signal.firwin(taps | 1, stop - TRANSITION / 2, window=("kaiser", beta), fs=SAMPLE_RATE)
        self.taps: Tensor
        self.register_buffer("taps", torch.tensor(sinc, dtype=torch.float32), persistent=False)

    @classmethod
    def against(cls, augmentation: Augmentation | None) -> Self | None:
        """The filter that makes originals and variants end at one frequency; None where none of them is resampled."""
        if augmentation is None or "resample" not in augmentation.modes:
            return None
        return cls(PASSED * min(1.0, *augmentation.speeds) * SAMPLE_RATE / 2)

    def forward(self, waveforms: Tensor) -> Tensor:
        """[B, T] -> [B, T] in float32, silence beyond the ends. On a CPU a row depends on itself alone, to the bit.

        By Fourier transform, which also stays in float32 where convolutions are rounded (autocast, TF32).
        """
        length, half = waveforms.shape[-1], len(self.taps) // 2
        size = scipy.fft.next_fast_len(length + 2 * half, real=True)
        response = torch.fft.rfft(self.taps, size)
        parts = (waveforms,) if waveforms.is_cuda else torch.split(waveforms, 1)  # a CPU's rounding depends on the rows
        filtered = [torch.fft.irfft(torch.fft.rfft(part, size) * response, size) for part in parts]
        return torch.cat(filtered)[..., half : half + length]

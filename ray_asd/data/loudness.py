"""How loud a recording is, and whether it was too loud for its recorder: measured block by block while it is decoded.

C: channels, B: samples per block.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_FULL_SCALE = 1 - 2.0**-11  # from there on: the most that 12 bits can say, as they stand at the top of 16
_OFFSET = 0.1  # of the mean from zero, relative to the RMS: beyond it the sound is what float32 squares would lose

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Found:
    """``dead`` channels [C] are constant, at ``low``; ``level`` and ``clipped`` are of the others.

    ``level`` is the RMS about each channel's mean in dB of full scale, 0 for a square wave, and None where there is no
    sound; ``clipped`` is the share of samples at full scale.
    """

    dead: npt.NDArray[np.bool_]
    low: npt.NDArray[np.float64]
    level: float | None
    clipped: float | None


class Loudness:
    """Of all blocks added so far.

    Args:
        bits: that a sample takes in the file.
        most: no sound has a magnitude beyond it.
    """

    def __init__(self, channels: int, bits: int, most: float) -> None:
        self._limit, self._most = min(_FULL_SCALE, 1 - 2.0 ** (1 - bits)), most
        self._offset: npt.NDArray[np.floating] | None = None  # taken off each channel
        self._ones: _Floats = np.ones(0, np.float32)
        self._samples = 0
        self._full = np.zeros(channels, np.int64)
        self._of_blocks: list[tuple[_Floats, _Floats, _Floats, _Floats]] = []  # lowest, highest, sum, sum of squares

    def add(self, block: _Floats) -> float:
        """The largest magnitude of the samples [B, C] that follow those before, NaN if one is.

        Nothing else is done where it is beyond ``most``.
        """
        planar = np.ascontiguousarray(block.T)
        low, high = planar.min(axis=1), planar.max(axis=1)
        peak = max(float(high.max()), -float(low.min()))  # NaN if there is any
        if not peak <= self._most:
            return peak
        if peak >= self._limit:
            self._full += np.count_nonzero(np.abs(planar) >= self._limit, axis=1)
        if len(self._ones) != len(block):
            self._ones = np.ones(len(block), np.float32)
        if not self._samples:
            mean, power = planar @ self._ones / len(block), np.vecdot(planar, planar) / len(block)
            self._offset = mean[:, np.newaxis] if (mean**2 > _OFFSET**2 * power).any() else None
        if self._offset is not None:
            planar = planar - self._offset
        self._of_blocks.append((low, high, planar @ self._ones, np.vecdot(planar, planar)))
        self._samples += len(block)
        return peak

    def found(self) -> Found:
        """Of one block at least."""
        lows, highs, sums, squares = np.array(self._of_blocks, float).transpose(1, 2, 0)
        low = lows.min(axis=1)
        dead = low == highs.max(axis=1)
        if dead.all():
            return Found(dead, low, None, None)
        mean = sums.sum(axis=1) / self._samples
        power = float((squares.sum(axis=1) / self._samples - mean**2)[~dead].mean())
        level = round(10 * math.log10(power), 3) if power > 0 else None
        return Found(dead, low, level, float(self._full[~dead].mean() / self._samples))

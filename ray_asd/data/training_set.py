"""The training set: decoded waveforms in memory-mapped shards, and crops of them.

B batch, T samples of a crop, N clips.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_asd import tables
from ray_asd.build import Output
from ray_asd.config import SAMPLE_RATE
from ray_asd.data.sampling import Draw
from ray_asd.errors import UserError
from ray_asd.tables import Folder

_DRAWN_BY = ["content_hash", "clip_id", "machine_type", "section", "domain", "condition"]
_SAME_SOUND = ["content_hash", "mode", "speed", "condition"]


def held_out(clips: pa.Table, fraction: float, seed: int) -> list[str]:
    """The training clips that are kept back to set thresholds: their contents, by hash within machine, section and
    domain, whatever they are called.

    Each condition keeps its last clip in the order of the hash, so that training and the bank know it; where many have
    one clip alone, fewer are kept back than asked for. A content that lies there twice counts once, as its first clip
    by clip_id says. None where CLIPS brings a ``calibration`` split of its own.
    """
    if not fraction or "calibration" in clips.column("split").to_pylist():
        return []
    cells: dict[tuple[str, str, str | None], list[str]] = defaultdict(list)
    last: dict[str | None, str] = {}
    train = clips.filter(pc.equal(clips["split"], "train")).select(_DRAWN_BY).sort_by("clip_id").to_pylist()
    once = {row["content_hash"]: row for row in reversed(train)}
    for content in sorted(once, key=lambda content: hashlib.sha256(f"{seed}:{content}".encode()).digest()):
        row = once[content]
        cells[row["machine_type"], row["section"], row["domain"]].append(content)
        last[row["condition"]] = content
    staying, kept_back = set(last.values()), []
    for contents in cells.values():
        kept_back += [content for content in contents if content not in staying][: round(fraction * len(contents))]
    return sorted(kept_back)


def check_conditions(rows: pa.Table) -> None:
    """
    Raises:
        UserError: a training clip (clip_id, condition) has no condition.
    """
    unknown = rows.filter(pc.is_null(rows["condition"])).column("clip_id").to_pylist()
    if unknown:
        raise UserError(
            f"{len(unknown)} of {rows.num_rows} training clips have no condition, the first one is {min(unknown)}; "
            "allowed: a known condition for each"
        )


class TrainingSet:
    """The clips of one or more ``augment`` outputs, less the contents held out and all variants of them.

    In order of their content, whatever they are called, and each once, though it may lie there under several names.
    With ``machine_type`` only those of that one.

    Raises:
        UserError: nothing is left to train on, or a clip has no condition.
    """

    def __init__(self, outputs: Sequence[Output], held_out: Sequence[str], machine_type: str | None = None) -> None:
        parts = [output.table(Folder.TRAINING_SET, tables.TRAINING_SET) for output in outputs]
        origin = np.repeat(np.arange(len(parts)), [part.num_rows for part in parts])
        rows = pa.concat_tables(parts).append_column("origin", pa.array(origin))
        if machine_type is not None:
            rows = rows.filter(pc.equal(rows["machine_type"], machine_type))
        rows = rows.filter(pc.invert(pc.is_in(rows["content_hash"], pa.array(held_out, pa.string()))))
        if not rows.num_rows:
            of = f" of {machine_type}" if machine_type is not None else ""
            raise UserError(f"no clips{of} to train on: {len(held_out)} held out of {len(origin)}")
        check_conditions(rows)
        self.rows = _once(rows)
        self._outputs = outputs
        self._columns = {name: self.rows.column(name).to_pylist() for name in ("origin", "shard", "offset", "length")}

    @cached_property
    def conditions(self) -> list[str]:
        """Class names in order of class index."""
        return sorted(set(self.rows.column("condition").to_pylist()))

    @cached_property
    def labels(self) -> np.ndarray:
        """Class index per clip, int64 [N]."""
        index = {name: number for number, name in enumerate(self.conditions)}
        return np.array([index[name] for name in self.rows.column("condition").to_pylist()])

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def waveform(self, clip: int) -> np.ndarray:
        """The whole clip, float32 [T] at 16 kHz, read from the mapped shard."""
        shard = self._shards[self._columns["origin"][clip], self._columns["shard"][clip]]
        offset = self._columns["offset"][clip]
        return shard[offset : offset + self._columns["length"][clip]]

    @cached_property
    def _shards(self) -> dict[tuple[int, str], np.memmap]:
        return {
            (origin, file.path): np.memmap(output.fetch(file.path), dtype=np.float32, mode="r")
            for origin, output in enumerate(self._outputs)
            for file in output.files(Folder.WAVES)
        }

    @cached_property
    def _mean_and_std(self) -> tuple[np.ndarray, np.ndarray]:
        return self.rows.column("mean").to_numpy(), self.rows.column("std").to_numpy()

    def crops(self, draws: Sequence[Draw], seconds: float, normalize: bool) -> np.ndarray:
        """Crops of equal length, float32 [B, T]; a shorter clip is repeated, since silence would be heard as padding.

        With ``normalize`` each is brought to the zero mean and unit variance of its whole clip.
        """
        length = round(seconds * SAMPLE_RATE)
        crops = np.empty((len(draws), length), np.float32)
        mean, std = self._mean_and_std
        for crop, draw in zip(crops, draws, strict=True):
            wave = self.waveform(draw.item)
            start = int(draw.start * (len(wave) - length + 1)) if len(wave) > length else 0
            crop[:] = wave[start : start + length] if len(wave) >= length else np.resize(wave, length)
            if normalize:
                crop -= mean[draw.item]
                crop /= std[draw.item]
        return crops


def _once(rows: pa.Table) -> pa.Table:
    """The first row by clip_id of each sound and condition, in their order."""
    order = [(name, "ascending") for name in (*_SAME_SOUND, "clip_id")]
    rows = rows.take(pc.sort_indices(rows, order, null_placement="at_start"))  # originals have no mode
    numbered = rows.select(_SAME_SOUND).append_column("place", pa.array(np.arange(rows.num_rows)))
    firsts = numbered.group_by(_SAME_SOUND, use_threads=False).aggregate([("place", "min")])["place_min"]
    return rows.take(np.sort(firsts.to_numpy()))

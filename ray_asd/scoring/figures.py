"""What is compared of machines from night to night: figures of their recordings and of their scores, as matrices.

Shapes: M machines, N nights in order, R rows of a table, C calibration clips; NaN where a machine has no such night.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_asd.fleet_tables import MACHINE, SOUNDS
from ray_asd.scoring import standards
from ray_asd.scoring.alerts import Machine
from ray_asd.scoring.scores import MIN_CLIPS
from ray_asd.scoring.shifts import Shift
from ray_asd.scoring.standards import Bools, Floats, Ints

_LEAST_SHARE = 1e-5  # of samples at full scale: fewer are none


@dataclass(frozen=True)
class Figure:
    """One that is tested: nights are compared in a scale in which they lie ``floor`` apart at least, and differ where
    they do so by ``least``. ``plain`` makes of a value of that scale what people know, ``shown`` a text of that.
    """

    what: str
    label: str
    least: float
    floor: float
    advice: str
    shown: Callable[[float], str]
    plain: Callable[[float], float] = float
    only_more: bool = False
    recent: int = 3  # nights whose mean is compared

    def moved(self, shift: Shift) -> Bools:
        """Which have by enough."""
        return shift.beyond(self.least) & ((shift.now > shift.before) | (not self.only_more))


_ENROL = "listen to some of its recordings; if the machine is healthy, enrol again with recordings of these nights"
SCORES = Figure("scores", "score", 1.0, 0.2, _ENROL, "{:+.1f} standard deviations".format, recent=7)
CALIBRATION = Figure("calibration", "score", 2.0, 0.0, _ENROL, "{:+.1f} standard deviations".format, recent=14)
REJECTED = Figure(
    "rejected", "files rejected", 0.1, 0.03, "see REJECTS for why", "{:.0%}".format, only_more=True, recent=1
)
EMBEDDINGS = Figure(
    "embeddings", "drift of embeddings (PSI)", 0.5, 0.0, _ENROL, "{:.2f}".format, only_more=True, recent=7
)
OF_SOUNDS = (
    Figure(
        *("level", "level", 3.0, 0.5),
        "check the microphone, where it stands and its gain; enrol again if it is to stay so",
        "{:.1f} dB".format,
    ),
    Figure(
        *("length", "length", float(np.log(1.1)), 0.01),
        "check the recorder's settings, and whether anything cuts its files",
        "{:.2f} s".format,
        lambda value: float(np.exp(value)),
    ),
    Figure(
        *("clipped", "share of samples at full scale", 1.0, 0.3),
        "turn down the recorder's gain, or move the microphone away",
        "{:.2%}".format,
        lambda value: max(float(10**value) - _LEAST_SHARE, 0.0),
        only_more=True,
    ),
    Figure(
        *("unscored", "share of recordings not scored", 0.1, 0.05),
        "see UNSCORED for why",
        "{:.0%}".format,
        only_more=True,
    ),
)


@dataclass(frozen=True)
class Series:
    """Machines and nights, and each figure of them [M, N] by its name, in its scale."""

    machines: Sequence[Machine]
    nights: Sequence[date]
    values: dict[str, Floats]


def series(sounds: pa.Table, nights: pa.Table, calibration: pa.Table, night: date) -> Series:
    """The figures of SOUNDS and of NIGHTS, each up to ``night``."""
    sounds, nights = (_up_to(table, night) for table in (sounds, nights))
    of_sounds, of_nights = standards.coded([sounds, nights], MACHINE)
    codes, first = np.unique(np.concatenate([of_sounds, of_nights]), return_index=True)
    both = pa.concat_tables([table.select([*MACHINE, "night"]) for table in (sounds, nights)])
    machines = list(zip(*(both[name].take(pa.array(first)).to_pylist() for name in MACHINE), strict=True))
    days = sorted({*both["night"].to_pylist(), night})
    rows, columns = np.searchsorted(codes, of_sounds), _places(sounds, days)

    def spread(values: Floats) -> Floats:
        matrix = np.full((len(codes), len(days)), np.nan)
        matrix[rows, columns] = values
        return matrix

    taken = {name: _floats(sounds[name]) for name in ("clips", "unscored", "repeated", "sample_rate", "level")}
    taken["length"] = np.log(np.maximum(_floats(sounds["seconds"]), 1e-3))
    taken["clipped"] = np.log10(_floats(sounds["clipped"]) + _LEAST_SHARE)
    (contents,) = standards.coded([sounds], ["contents"])
    taken["contents"] = np.where(pc.is_null(sounds["contents"]).to_numpy(), np.nan, contents)
    taken["unscored"], taken["repeated"] = (taken[name] / taken["clips"] for name in ("unscored", "repeated"))
    values = {name: spread(figure) for name, figure in taken.items()}
    places = np.searchsorted(codes, of_nights), _places(nights, days)
    values["scores"] = _scores(nights, calibration, places, (len(codes), len(days)))
    return Series(machines, days, values)


def _up_to(table: pa.Table, night: date) -> pa.Table:
    return table.filter(pc.less_equal(table["night"], pa.scalar(night, pa.date32())))


def _places(table: pa.Table, days: Sequence[date]) -> Ints:
    ordered = np.array(days, "datetime64[D]")
    return np.asarray(np.searchsorted(ordered, table["night"].to_numpy().astype("datetime64[D]")))


def _floats(column: pa.ChunkedArray) -> Floats:
    """Null becomes NaN."""
    return np.asarray(pc.cast(column, pa.float64()).to_numpy(), float)


def _scores(nights: pa.Table, calibration: pa.Table, places: tuple[Ints, Ints], shape: tuple[int, int]) -> Floats:
    """Mean scores [M, N] in standard deviations of CALIBRATION from its mean, of the detector that is tonight's."""
    is_tonight = places[1] == shape[1] - 1
    digests = np.asarray(nights["model_digest"].to_numpy(zero_copy_only=False), object)
    own = np.isin(digests, np.unique(digests[is_tonight])) if is_tonight.any() else is_tonight
    centre, scale = _units(nights, calibration)
    units = (nights["mean"].to_numpy() - centre) / scale
    clips = np.where(own & np.isfinite(units), nights["clips"].to_numpy(), 0).astype(float)
    total, weight = np.zeros(shape), np.zeros(shape)
    np.add.at(total, places, clips * np.nan_to_num(units))
    np.add.at(weight, places, clips)
    return np.asarray(np.divide(total, weight, out=np.full(shape, np.nan), where=weight > 0))


def _units(nights: pa.Table, calibration: pa.Table) -> tuple[Floats, Floats]:
    """Mean and deviation [R] of the calibration clips of each row's kind; NaN where there are few.

    A kind is a machine type, section and domain, or without domain where that one has few.
    """
    centre, scale = np.full((2, len(nights)), np.nan)
    values = calibration["score"].to_numpy().astype(float)
    for names in (("machine_type", "section"), ("machine_type", "section", "domain")):
        new, old = standards.coded([nights, calibration], names)
        kinds = int(max(new.max(initial=-1), old.max(initial=-1))) + 1
        count = np.bincount(old, minlength=kinds)
        mean = np.bincount(old, values, kinds) / np.maximum(count, 1)
        spread = np.sqrt(np.bincount(old, (values - mean[old]) ** 2, kinds) / np.maximum(count - 1, 1))
        known = ((count >= MIN_CLIPS) & (spread > 0))[new]
        centre[known], scale[known] = mean[new][known], spread[new][known]
    return centre, scale


def sounds(clips: pa.Table, unscored: pa.Table, night: date) -> pa.Table:
    """SOUNDS of the CLIPS of one night; what an ingest of an earlier version has not measured is unknown.

    Args:
        unscored: UNSCORED of them.
    """
    (codes,) = standards.coded([clips], MACHINE)
    _, first, of_rows = np.unique(codes, return_index=True, return_inverse=True)
    lost = np.isin(clips["clip_id"].to_numpy(zero_copy_only=False), unscored["clip_id"].to_numpy(zero_copy_only=False))
    hashes = clips["content_hash"].to_numpy(zero_copy_only=False)
    rates = clips["sample_rate"].to_numpy()
    seconds = clips["num_samples"].to_numpy() / np.maximum(rates, 1)
    level, clipped = (_measured(clips, name) for name in ("level", "clipped"))
    rows = []
    parts = np.split(np.argsort(of_rows, kind="stable"), np.cumsum(np.bincount(of_rows))[:-1]) if len(clips) else []
    for machine, own in zip(first, parts, strict=True):
        values, counts = np.unique(rates[own], return_counts=True)
        rows.append(
            {name: clips[name][int(machine)].as_py() for name in MACHINE}
            | {"night": night, "clips": len(own), "unscored": int(lost[own].sum())}
            | {"repeated": len(own) - len(set(hashes[own])), "sample_rate": int(values[np.argmax(counts)])}
            | {"seconds": float(np.median(seconds[own]))}
            | {"contents": _digest(hashes[own])}
            | {"level": _known(np.median, level[own]), "clipped": _known(np.mean, clipped[own])}
        )
    return pa.Table.from_pylist(rows, SOUNDS).sort_by([(name, "ascending") for name in MACHINE])


def _digest(hashes: np.ndarray) -> str:
    """Of the contents of a night, however often each of them is there."""
    return hashlib.sha256(" ".join(sorted(set(hashes.tolist()))).encode()).hexdigest()[:16]


def _measured(clips: pa.Table, name: str) -> Floats:
    return _floats(clips[name]) if name in clips.column_names else np.full(len(clips), np.nan)


def _known(statistic: Callable[[Floats], np.floating], values: Floats) -> float | None:
    values = values[np.isfinite(values)]
    return float(statistic(values)) if len(values) else None

"""The most urgent alerts of a morning: what is heard, to look at and to listen to beside healthy recordings."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ray_asd.config import SAMPLE_RATE
from ray_asd.data import recordings
from ray_asd.data.audio import Waveform
from ray_asd.errors import StageError, UserError
from ray_asd.fleet_tables import Morning
from ray_asd.report import sounds
from ray_asd.report.section import Sound, Suspect
from ray_asd.report.states import Standing
from ray_asd.scoring.alerts import Machine

MOST = 10  # alerts that are shown
MAX_PLAYERS = 10  # of a page
_NORMALS = 2  # beside each
_RANGE = (5.0, 99.5)  # percentiles of a clip's own dB that the colours span
_THREADS = 4
_BEFORE = 3.0  # s that are heard before what is to be listened to, in long recordings

Row = Mapping[str, Any]
_Heard = tuple[Row, Waveform | str]


@dataclass(frozen=True)
class _Excerpt:
    """Some seconds of a recording from ``start`` on; ``why`` is what was found in it, where it is the clip itself."""

    machine: Machine
    content: str
    clip_id: str
    heading: str
    start: float = 0.0
    why: Row | None = None

    @property
    def is_own(self) -> bool:
        return self.why is not None


def suspects(morning: Morning, found: Sequence[Standing], most: int, with_audio: bool) -> list[Suspect]:
    """The ``most`` urgent of ``found``, their own recordings to be heard first, then as many healthy ones as fit."""
    shown = list(found[:most])
    excerpts = [excerpt for one in shown for excerpt in _excerpts(one)]
    heard = _heard(morning, {(excerpt.content, excerpt.start): None for excerpt in excerpts})
    own = [excerpt for excerpt in excerpts if excerpt.is_own]
    nearest = [excerpt for before, excerpt in pairwise(excerpts) if before.is_own and not excerpt.is_own]
    players = [*own, *nearest][:MAX_PLAYERS] if with_audio else []
    return [
        Suspect(rank, _facts(one), list(_sounds(_excerpts(one), heard, players))) for rank, one in enumerate(shown, 1)
    ]


def _excerpts(one: Standing) -> list["_Excerpt"]:
    """Of the clip, and of its nearest normals."""
    why = one.why
    if why is None:
        return []
    start = max(why["begin"] - _BEFORE, 0.0) if why["end"] > sounds.SECONDS else 0.0
    heading = f"the clip, from {start:.0f} s on" if start else "the clip that sounds least healthy"
    own = _Excerpt(one.machine, why["content_hash"], why["clip_id"], heading, start, why)
    near = why["normals"][:_NORMALS]
    return [own, *(_Excerpt(one.machine, content, "", "a healthy one that is near to it") for content in near)]


def _heard(morning: Morning, wanted: Iterable[tuple[str, float]]) -> dict[tuple[str, float], _Heard]:
    """Those recordings, several at a time: the row of each and its samples, or why there are none."""
    rows = {row["content_hash"]: row for row in morning.clips.to_pylist()}

    def load(key: tuple[str, float]) -> _Heard:
        row = rows.get(key[0])
        if row is None:
            return {}, "no table tells where it lies"
        try:
            return row, sounds.load(row, morning.channel, key[1])
        except (StageError, UserError, OSError) as error:
            return row, str(error)

    keys = list(wanted)
    return dict(zip(keys, recordings.ahead(load, keys, _THREADS, len(keys)), strict=True))


def _facts(one: Standing) -> dict[str, str]:
    alert, decision = one.alert, one.decision or {}
    facts: dict[str, str] = {}
    if alert:
        facts["alert"] = alert.alert_id
        facts["alarms"] = f"{alert.count}, {alert.first_seen} to {alert.last_seen}"
        facts["severity"] = f"{alert.severity:.1f}"
        facts["p"] = f"{alert.p_value:.2g}"
        if alert.changed:
            note = f": {alert.changed.note}" if alert.changed.note else ""
            facts["last changed"] = f"{alert.changed.when:%Y-%m-%d %H:%M} by {alert.changed.who}{note}"
    if decision.get("statistic") is not None:
        facts["this night"] = f"{decision['statistic']:.1f} standard deviations, p {decision['p_value']:.2g}"
    if one.why:
        facts["heard"] = str(one.why["night"])
    return facts


def _sounds(
    excerpts: Sequence[_Excerpt], heard: Mapping[tuple[str, float], _Heard], players: Sequence[_Excerpt]
) -> Iterator[Sound]:
    """Recordings that stand side by side: their colours mean the same loudness."""
    span: tuple[float, float] | None = None
    for one in excerpts:
        row, sound = heard[one.content, one.start]
        name, uri = row.get("clip_id", one.clip_id) or one.content[:12], row.get("uri", "")
        if isinstance(sound, str):
            yield Sound(name, uri, None, None, sound, one.heading)
            continue
        decibels = sounds.spectrogram(sound)
        low, high = span = span or tuple(float(value) for value in np.percentile(decibels, _RANGE))  # type: ignore[assignment]
        player = sounds.player(sound) if one in players else None
        mark = _mark(one.why, one.start, len(sound) / SAMPLE_RATE) if one.why else None
        yield Sound(name, uri, sounds.image(decibels, low, high), player, None, one.heading, mark)


def _mark(why: Row, start: float, length: float) -> tuple[float, float, float, float] | None:
    """Where in the picture is what the sentence tells of."""
    if why["low"] is None or length <= 0:
        return None
    left, right = (100 * min(max((why[name] - start) / length, 0), 1) for name in ("begin", "end"))
    bottom, top = (100 * (1 - sounds.height(why[name])) for name in ("low", "high"))
    return left, top, max(right - left, 0.5), max(bottom - top, 1.0)

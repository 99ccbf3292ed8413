"""What Prometheus sees of work on Ray: figures that the agent of each node exports, ``ray_`` before their names.

A figure is of the process that sets it and is gone some time after that has ended: what must be known of a run later
stands below its root.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import ray
from ray.util.metrics import Counter, Gauge, Histogram, Metric


@dataclass(frozen=True)
class Figure:
    """``kind`` as Prometheus knows them; ``tags`` are the labels beside Ray's own."""

    kind: Literal["counter", "gauge", "histogram"]
    about: str
    tags: tuple[str, ...] = ()
    boundaries: tuple[float, ...] = ()


_BORDERS = (0.001, 0.01, 0.1, 1.0, 10.0)

FIGURES: Mapping[str, Figure] = {
    "asd_clips": Figure("counter", "Clips that a stage is done with", ("stage",)),
    "asd_audio_seconds": Figure("counter", "Of sound that a stage is done with", ("stage",)),
    "asd_rejects": Figure("counter", "Recordings not taken", ("reason",)),
    "asd_unscored": Figure("counter", "Clips that could not be scored", ("reason",)),
    "asd_alarms": Figure("counter", "Clips above their threshold"),
    "asd_progress": Figure("gauge", "Share of a stage that is done, 0 to 1", ("stage", "name")),
    "asd_left": Figure("gauge", "Clips or steps that a stage has yet to do", ("stage", "name")),
    "asd_waiting_seconds": Figure("gauge", "How long work has waited for its place on the cluster", ("stage", "name")),
    "asd_cache_bytes": Figure("gauge", "Of copies of remote files on a node"),
    "asd_queries": Figure("counter", "Queries that an index has answered", ("holds", "shard")),
    "asd_queue": Figure("gauge", "Calls that wait for their turn at an index", ("holds", "shard")),
    "asd_query_seconds": Figure("histogram", "Of a call of an index, its wait included", ("holds", "shard"), _BORDERS),
    "asd_night_finished": Figure("gauge", "When a fleet's night was last finished here, in Unix time", ("fleet",)),
    "asd_night_clips": Figure("gauge", "Recordings of that night, by what became of them", ("fleet", "outcome")),
    "asd_night_alerts": Figure("gauge", "Alerts after it that nobody has resolved, by state", ("fleet", "state")),
    "asd_night_drift": Figure("gauge", "Notices of drift in that night, by what they are about", ("fleet", "scope")),
    "asd_night_silent": Figure("gauge", "Machines that sent nothing in that night", ("fleet",)),
}
"""All that is exported, by name. A counter's name ends in ``_total`` there."""


def exported(name: str) -> str:
    """The name of a figure as Prometheus sees it; of a histogram that of its parts without their endings."""
    return f"ray_{name}_total" if FIGURES[name].kind == "counter" else f"ray_{name}"


@cache
def _metric(name: str) -> Metric:
    """Once per process, since each is a series of its own."""
    figure = FIGURES[name]
    if figure.kind == "histogram":
        return Histogram(name, figure.about, boundaries=list(figure.boundaries), tag_keys=figure.tags)
    return {"counter": Counter, "gauge": Gauge}[figure.kind](name, figure.about, tag_keys=figure.tags)


def tell(name: str, value: float, /, **tags: str) -> None:
    """Count ``value`` more, set a gauge to it, or observe it; nothing where this process is not on Ray."""
    if not ray.is_initialized():
        return
    metric = _metric(name)
    if isinstance(metric, Counter):
        if value > 0:
            metric.inc(value, tags)
    elif isinstance(metric, Gauge):
        metric.set(value, tags)
    elif isinstance(metric, Histogram):
        metric.observe(value, tags)


def counted(what: str, counts: Mapping[str, int]) -> None:
    """What a shard of ``what``, a stage and its output's name, counted."""
    stage = what.partition(" ")[0]
    tell("asd_clips", counts.get("clips", 0) + counts.get("unscored", 0), stage=stage)
    tell("asd_audio_seconds", counts.get("audio_seconds", 0), stage=stage)
    if stage == "score":
        tell("asd_alarms", counts.get("alarms", 0))
    for name, count in counts.items():
        kind, _, reason = name.partition("_")
        if reason and kind in ("reject", "unscored"):
            tell({"reject": "asd_rejects", "unscored": "asd_unscored"}[kind], count, reason=reason)


def reached(what: str, done: int, total: int) -> None:
    """How far a stage is."""
    stage, _, name = what.partition(" ")
    tell("asd_progress", done / total if total else 1.0, stage=stage, name=name)
    tell("asd_left", total - done, stage=stage, name=name)

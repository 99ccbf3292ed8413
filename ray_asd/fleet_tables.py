"""The tables of nights, beside those of ``tables``: what a fleet said in each, what was decided, and the alerts.

    SCORES --summary--> NIGHTS --decide--> DECISIONS --follow--> ALERTS

    CLIPS --summary--> SOUNDS --drift--> DRIFT          DECISIONS, CLIPS --explain--> WHY

A machine is what ``MACHINE`` names; a data set that knows no ``machine_id`` has one for each machine type and section.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

import pyarrow as pa


class Folder:
    """Where the output of a night holds each of them, beside CLIPS, REJECTS, SCORES and UNSCORED."""

    NIGHTS = "nights"
    DECISIONS = "decisions"
    ALERTS = "alerts"
    SOUNDS = "sounds"
    DRIFT = "drift"
    WHY = "why"  # beside CLIPS of what was listened to


MACHINE = ("machine_type", "section", "machine_id")

_MACHINE = [
    pa.field("machine_type", pa.string(), nullable=False),
    pa.field("section", pa.string(), nullable=False),
    pa.field("machine_id", pa.string()),
]

NIGHTS = pa.schema(
    [
        *_MACHINE,
        pa.field("domain", pa.string()),
        pa.field("model_digest", pa.string(), nullable=False),
        pa.field("night", pa.date32(), nullable=False),
        pa.field("clips", pa.int64(), nullable=False),
        *(pa.field(name, pa.float64(), nullable=False) for name in ("mean", "deviations")),
        pa.field("nearest", pa.list_(pa.string())),
    ]
)
"""One row per machine, domain and night: how many clips a detector scored, the mean of their scores, and the sum of
the squared deviations from it; ``nearest`` is, for each of them that was compared with a bank, the healthy recording
nearest to it, by the first letters of its content_hash. That is all of a night that later ones are compared with."""

DECISIONS = pa.schema(
    [
        *_MACHINE,
        pa.field("night", pa.date32(), nullable=False),
        pa.field("clips", pa.int64(), nullable=False),
        pa.field("rule", pa.string()),
        *(pa.field(name, pa.float64()) for name in ("statistic", "p_value", "q_value", "smallest")),
        pa.field("could_alarm", pa.bool_(), nullable=False),
        pa.field("alarm", pa.bool_()),
        pa.field("detail", pa.string()),
    ]
)
"""One row per machine and night. ``rule`` says what it was compared with (``scoring.nights``); null: it is learning,
and ``detail`` says what it lacks. ``statistic`` is in standard deviations, ``p_value`` its share among healthy ones,
``q_value`` the smallest false discovery rate at which it is an alarm. ``smallest`` is the p-value that it can reach at
all: ``could_alarm`` says whether that would be an alarm if it were the only one."""

ALERTS = pa.schema(
    [
        pa.field("alert_id", pa.string(), nullable=False),
        *_MACHINE,
        pa.field("state", pa.string(), nullable=False),
        pa.field("verdict", pa.string()),
        *(pa.field(name, pa.date32(), nullable=False) for name in ("first_seen", "last_seen")),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("nights", pa.list_(pa.date32()), nullable=False),
        *(pa.field(name, pa.float64(), nullable=False) for name in ("severity", "p_value")),
        *(pa.field(name, pa.string()) for name in ("why", "clip_id")),
        pa.field("snoozed_until", pa.date32()),
        pa.field("changed_at", pa.timestamp("us", tz="UTC")),
        *(pa.field(name, pa.string()) for name in ("changed_by", "note")),
    ]
)
"""One row per alert: not a night's alarm but all of them of one machine, until somebody resolves it. ``count`` is the
number of its ``nights``; ``severity`` its highest statistic, ``p_value`` its lowest. ``why`` says in a sentence what is
heard in ``clip_id``, the clip of its worst night that sounds least healthy."""

SOUNDS = pa.schema(
    [
        *_MACHINE,
        pa.field("night", pa.date32(), nullable=False),
        *(pa.field(name, pa.int64(), nullable=False) for name in ("clips", "unscored", "repeated")),
        pa.field("sample_rate", pa.int32()),
        *(pa.field(name, pa.float64()) for name in ("seconds", "level", "clipped")),
        pa.field("contents", pa.string()),
    ]
)
"""One row per machine and night: what its recordings are like, whatever a detector says of them. ``repeated`` of them
have the content of another one, ``unscored`` could not be scored. ``contents`` is the same for two nights whose
recordings have the same contents. ``sample_rate`` is the commonest one in Hz;
``seconds`` and ``level`` (RMS, dB of full scale) are medians, ``clipped`` the mean share of samples at full scale."""

DRIFT = pa.schema(
    [
        *(field.with_nullable(True) for field in _MACHINE),
        pa.field("night", pa.date32(), nullable=False),
        pa.field("what", pa.string(), nullable=False),
        *(pa.field(name, pa.float64()) for name in ("before", "now", "p_value")),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("advice", pa.string(), nullable=False),
    ]
)
"""One row per notice that something other than a machine's condition has changed; without machine it is of the whole
fleet. ``what`` is a key of ``reasons.DRIFTED``; ``before`` and ``now`` are the figures that differ: Hz, seconds, dB of
full scale, shares, or of scores the standard deviations of CALIBRATION from its mean."""

WHY = pa.schema(
    [
        *_MACHINE,
        pa.field("night", pa.date32(), nullable=False),
        *(pa.field(name, pa.string(), nullable=False) for name in ("clip_id", "content_hash", "sentence", "kind")),
        *(pa.field(name, pa.float64()) for name in ("low", "high", "decibels", "begin", "end")),
        pa.field("normals", pa.list_(pa.string()), nullable=False),
    ]
)
"""One row per machine that alarms in a night: what is heard in its clip that sounds least healthy, in a sentence, the
band in Hz and by how many dB (null where none stands out), and from when to when in s. ``normals`` are the contents of
the healthy recordings that it was held against, its nearest first."""


@dataclass(frozen=True)
class Morning:
    """All that is told of a fleet after a night, by whoever tells it: tables, and what its manifest says.

    ``decisions`` are those of ``days``, the dates up to this night, as far as they were ``scored``; ``why`` and its
    ``clips`` are of the nights of alerts, heard on ``channel``. ``silent`` machines come with the night on which they
    were heard last, ``told`` is what the night's summary says.
    """

    fleet: str
    night: date
    revision: int
    made_at: datetime
    version: str | None
    detector: str
    output: str
    channel: int | Literal["mean"]
    days: Sequence[date]
    scored: frozenset[date]
    counts: Mapping[str, int]
    told: Mapping[str, Any]
    silent: Mapping[tuple[str, str, str | None], date]
    decisions: pa.Table
    alerts: pa.Table
    why: pa.Table
    clips: pa.Table
    sounds: pa.Table
    drift: pa.Table
    rejects: pa.Table
    unscored: pa.Table

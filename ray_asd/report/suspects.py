"""The most anomalous clips, each beside the normal ones it is nearest to: to look at and to listen to."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from ray_asd.errors import StageError, UserError
from ray_asd.report import sounds
from ray_asd.report.run import Run, columns, files_of
from ray_asd.report.section import Section, Sound, Suspect

MAX_PLAYERS = 10  # of a page
_SHOWN_NEIGHBOURS = 2
_SHOWN = ["clip_id", "uri", "content_hash", "pack", "pack_row", "condition"]
_RANGE = (5.0, 99.5)  # percentiles of a clip's own dB that the colours span
_EMPTY = {"uri": "", "condition": None}


@dataclass(frozen=True)
class _Ranked:
    """A clip's row of SCORES and its excess: how far it lies above its threshold, in quartile distances."""

    row: Mapping[str, Any]
    excess: float


def suspects(run: Run, count: int, with_audio: bool) -> Section:
    """The ``count`` clips that lie furthest above their thresholds."""
    ranked = _ranked(run, count)
    ids = [clip.row["clip_id"] for clip in ranked]
    near = _neighbours(run, ids)
    shown = [neighbour for found in near.values() for neighbour in found[:_SHOWN_NEIGHBOURS]]
    known = _known(run, [clip.row["content_hash"] for clip in ranked] + [neighbour.content for neighbour in shown])
    players = _players(ids, near) if with_audio else set[tuple[str, str]]()
    told = [
        _suspect(rank, clip, near[clip.row["clip_id"]], known, _Hearing(run, players))
        for rank, clip in enumerate(ranked, 1)
    ]
    sources = files_of(run.scores, "scores")
    heard = {output.uri: output for output in (run.clips, run.bank) if output}
    sources += [uri for output in heard.values() for uri in files_of(output, "clips")]
    return Section(
        "clips",
        "Which clips, and why?",
        _lead(len(told), with_audio, any(near.values())),
        sources,
        suspects=told,
        files={"clips.csv": _records(ranked, near, known)},
    )


def _lead(count: int, with_audio: bool, has_neighbours: bool) -> str:
    text = (
        f"The {count} clips furthest above their threshold, in quartile distances of their section's scores (where "
        "there is no threshold: above the median)."
    )
    if has_neighbours:
        text += " Each with the normal clips nearest to it: what differs between the pictures is what the system heard."
    text += f" Mel spectrograms to 8 kHz of the first {sounds.SECONDS} s, a clip and its neighbours in the same colours"
    return text + ("; players hold a compressed copy." if with_audio else ".")


def _ranked(run: Run, count: int) -> list[_Ranked]:
    """The first ``count`` by excess, equal ones by clip_id."""
    found: list[_Ranked] = []
    for _, _, own in run.sections():
        score = own["score"].to_numpy()
        low, middle, high = np.quantile(score, [0.25, 0.5, 0.75])
        threshold = own["threshold"][0].as_py()
        excess = (score - (middle if threshold is None else threshold)) / (high - low or 1.0)
        first = np.argsort(-excess, kind="stable")[:count]
        rows = own.take(pa.array(first)).to_pylist()
        found += [_Ranked(row, float(value)) for row, value in zip(rows, excess[first], strict=True)]
        found = sorted(found, key=lambda clip: (-clip.excess, clip.row["clip_id"]))[:count]
    return found


@dataclass(frozen=True)
class _Neighbour:
    """A healthy recording: one of its names, its content, and how far it is."""

    clip_id: str
    content: str | None
    distance: float


Near = Mapping[str, Sequence[_Neighbour]]
"""Neighbours of each suspect, by its clip_id."""
Known = Mapping[tuple[str | None, str], Mapping[str, Any]]
"""Rows of CLIPS by content and clip_id: two CLIPS may use one clip_id for two recordings."""


def _neighbours(run: Run, ids: Sequence[str]) -> Near:
    if run.scores is None or not ids:
        return {}
    names = ["clip_id", "neighbours", "neighbour_hashes", "distances"]
    found: dict[str, Sequence[_Neighbour]] = {}
    for row in columns(run.scores, "scores", names, ("clip_id", "in", ids)).to_pylist():
        contents = row["neighbour_hashes"] or [None] * len(row["neighbours"])
        told = zip(row["neighbours"], contents, row["distances"], strict=True)
        found[row["clip_id"]] = [_Neighbour(*neighbour) for neighbour in told]
    return found


def _known(run: Run, contents: Sequence[str | None]) -> Known:
    wanted = sorted({content for content in contents if content})
    known: dict[tuple[str | None, str], Mapping[str, Any]] = {}
    for output in {output.uri: output for output in (run.bank, run.clips) if output and wanted}.values():
        found = columns(output, "clips", _SHOWN, ("content_hash", "in", wanted))
        known |= {_key(row): row for row in found.to_pylist()}
    return known


def _key(row: Mapping[str, Any]) -> tuple[str | None, str]:
    return row["content_hash"], row["clip_id"]


def _players(ids: Sequence[str], near: Near) -> set[tuple[str, str]]:
    """What can be heard: the suspects, then as many of their nearest neighbours as a page has room for.

    As pairs of a suspect and the clip that stands with it.
    """
    nearest = [(name, near[name][0].clip_id) for name in ids if near[name]]
    return set([*((name, name) for name in ids), *nearest][:MAX_PLAYERS])


@dataclass(frozen=True)
class _Hearing:
    """How the recordings of a run are heard, and which of them can be played."""

    run: Run
    players: set[tuple[str, str]]

    @property
    def channel(self) -> int | Literal["mean"]:
        for stage in self.run.stages:
            heard = stage.marker.config.get("audio", {}).get("channel")
            if stage.marker.stage in ("embed", "direct") and heard is not None:
                return "mean" if heard == "mean" else int(heard)
        return 0


def _suspect(
    rank: int,
    clip: _Ranked,
    near: Sequence[_Neighbour],
    known: Known,
    hearing: _Hearing,
) -> Suspect:
    shown = [(_Neighbour(clip.row["clip_id"], clip.row["content_hash"], 0.0), "this clip")]
    shown += [(neighbour, f"a normal neighbour at distance {neighbour.distance:.4g}") for neighbour in near]
    return Suspect(rank, _facts(clip, known), list(_sounds(shown[: 1 + _SHOWN_NEIGHBOURS], known, hearing)))


def _facts(clip: _Ranked, known: Known) -> dict[str, str]:
    row = clip.row
    threshold = row["threshold"]
    verdict = {None: "no threshold", 0: "no alarm", 1: "alarm"}[row["decision"]]
    return {
        "machine": f"{row['machine_type']} {row['section']}",
        "verdict": verdict,
        "score": f"{row['score']:.4g}",
        "threshold": "-" if threshold is None else f"{threshold:.4g}",
        "excess": f"{clip.excess:.2f}",
        "domain": row["domain"] or "not known",
        "label": row["label"] or "not known",
        "condition": known.get(_key(row), _EMPTY)["condition"] or "not known",
    }


def _sounds(shown: Sequence[tuple[_Neighbour, str]], known: Known, hearing: _Hearing) -> Iterator[Sound]:
    """Recordings that stand side by side: their colours mean the same loudness."""
    span: tuple[float, float] | None = None
    for clip, heading in shown:
        clip_id, row = clip.clip_id, known.get((clip.content, clip.clip_id))
        if row is None:
            yield Sound(clip_id, "", None, None, "the table of recordings is no longer there", heading)
            continue
        try:
            waveform = sounds.load(row, hearing.channel)
        except (StageError, UserError) as error:
            yield Sound(clip_id, row["uri"], None, None, str(error), heading)
            continue
        decibels = sounds.spectrogram(waveform)
        low, high = span = span or tuple(float(value) for value in np.percentile(decibels, _RANGE))  # type: ignore[assignment]
        heard = sounds.player(waveform) if (shown[0][0].clip_id, clip_id) in hearing.players else None
        yield Sound(clip_id, row["uri"], sounds.image(decibels, low, high), heard, None, heading)


def _records(ranked: Sequence[_Ranked], near: Near, known: Known) -> list[Mapping[str, object]]:
    return [
        {**clip.row, "excess": clip.excess}
        | {name: known.get(_key(clip.row), _EMPTY)[name] for name in ("condition", "uri")}
        | {"neighbours": " ".join(neighbour.clip_id for neighbour in near[clip.row["clip_id"]])}
        | {"distances": " ".join(repr(neighbour.distance) for neighbour in near[clip.row["clip_id"]])}
        for clip in ranked
    ]

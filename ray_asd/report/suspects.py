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
    known = _known(run, [*ids, *(name for names, _ in near.values() for name in names[:_SHOWN_NEIGHBOURS])])
    players = _players(ids, near) if with_audio else set[tuple[str, str]]()
    shown = [
        _suspect(rank, clip, near[clip.row["clip_id"]], known, _Hearing(run, players))
        for rank, clip in enumerate(ranked, 1)
    ]
    sources = files_of(run.scores, "scores")
    heard = {output.uri: output for output in (run.clips, run.bank) if output}
    sources += [uri for output in heard.values() for uri in files_of(output, "clips")]
    return Section(
        "clips",
        "Which clips, and why?",
        _lead(len(shown), with_audio, any(names for names, _ in near.values())),
        sources,
        suspects=shown,
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


Near = Mapping[str, tuple[Sequence[str], Sequence[float]]]


def _neighbours(run: Run, ids: Sequence[str]) -> Near:
    if run.scores is None or not ids:
        return {}
    found = columns(run.scores, "scores", ["clip_id", "neighbours", "distances"], ("clip_id", "in", ids))
    return {row["clip_id"]: (row["neighbours"], row["distances"]) for row in found.to_pylist()}


def _known(run: Run, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Rows of CLIPS by clip_id."""
    known: dict[str, dict[str, Any]] = {}
    for output in {output.uri: output for output in (run.bank, run.clips) if output and ids}.values():
        found = columns(output, "clips", _SHOWN, ("clip_id", "in", ids))
        known |= {row["clip_id"]: row for row in found.to_pylist()}
    return known


def _players(ids: Sequence[str], near: Near) -> set[tuple[str, str]]:
    """What can be heard: the suspects, then as many of their nearest neighbours as a page has room for.

    As pairs of a suspect and the clip that stands with it.
    """
    nearest = [(name, near[name][0][0]) for name in ids if near[name][0]]
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
    near: tuple[Sequence[str], Sequence[float]],
    known: Mapping[str, Mapping[str, Any]],
    hearing: _Hearing,
) -> Suspect:
    row = clip.row
    shown = [(row["clip_id"], "this clip")]
    pairs = zip(near[0], near[1], strict=True)
    shown += [(name, f"a normal neighbour at distance {distance:.4g}") for name, distance in pairs]
    return Suspect(rank, _facts(clip, known), list(_sounds(shown[: 1 + _SHOWN_NEIGHBOURS], known, hearing)))


def _facts(clip: _Ranked, known: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
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
        "condition": known.get(row["clip_id"], _EMPTY)["condition"] or "not known",
    }


def _sounds(
    shown: Sequence[tuple[str, str]], known: Mapping[str, Mapping[str, Any]], hearing: _Hearing
) -> Iterator[Sound]:
    """Recordings that stand side by side: their colours mean the same loudness."""
    span: tuple[float, float] | None = None
    for clip_id, heading in shown:
        row = known.get(clip_id)
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
        heard = sounds.player(waveform) if (shown[0][0], clip_id) in hearing.players else None
        yield Sound(clip_id, row["uri"], sounds.image(decibels, low, high), heard, None, heading)


def _records(
    ranked: Sequence[_Ranked], near: Near, known: Mapping[str, Mapping[str, Any]]
) -> list[Mapping[str, object]]:
    return [
        {**clip.row, "excess": clip.excess}
        | {name: known.get(clip.row["clip_id"], _EMPTY)[name] for name in ("condition", "uri")}
        | {"neighbours": " ".join(near[clip.row["clip_id"]][0])}
        | {"distances": " ".join(map(repr, near[clip.row["clip_id"]][1]))}
        for clip in ranked
    ]

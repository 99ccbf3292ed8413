"""What a run rests on: how its model was trained, on which recordings, what was left out, and what it was made from."""

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from markupsafe import Markup

from ray_asd import reasons, tables
from ray_asd.build import Output
from ray_asd.models.card import CARD
from ray_asd.report import svg
from ray_asd.report.machines import MAX_CHARTS
from ray_asd.report.run import Run, columns, files_of, marker_of
from ray_asd.report.section import Chart, Section
from ray_asd.report.svg import Axes
from ray_asd.report.table import Cell, Table
from ray_asd.tables import Folder

_CURVE = "curve"
_NOT_DRAWN = ("step", "epoch")
_MAX_FILES = 500  # of a stage, in files.csv; its marker lists all


def training(run: Run) -> Section:
    """The curves of the trainings below the run, and what weight each layer got."""
    drawn, records, sources = [], list[Mapping[str, object]](), list[str]()
    for stage in run.stages:
        for uri, rows in _curves(stage):
            sources.append(uri)
            records += [{"stage": stage.marker.stage, "name": stage.marker.name, **row} for row in rows]
            drawn += _drawn(stage.marker.name, rows)
    lead = "Loss and accuracy are of the training batches, so they say that it learned, not how well it detects."
    if len(drawn) > MAX_CHARTS:
        lead += f" Drawn: {MAX_CHARTS} of {len(drawn)} curves; the CSV file holds all."
    drawn = drawn[:MAX_CHARTS]
    files = {"training.csv": _same_keys(records)} if records else {}
    weights = run.card.layer_weights if run.card else None
    if weights and run.model:
        drawn.append(Chart("Weights of the layers", _columns(weights)))
        sources.append(run.model.file_uri(CARD))
        files["layer_weights.csv"] = [{"layer": layer, "weight": weight} for layer, weight in enumerate(weights)]
    return Section("training", "How was it trained?", lead, sources, charts=drawn, files=files)


def _curves(stage: Output) -> list[tuple[str, list[dict[str, float]]]]:
    return [
        (stage.file_uri(file.path), pq.read_table(pa.BufferReader(stage.read(file.path))).to_pylist())
        for file in stage.files(_CURVE)
    ]


def _same_keys(records: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
    names = dict.fromkeys(name for record in records for name in record)
    return [{name: record.get(name) for name in names} for record in records]


def _drawn(name: str, rows: Sequence[Mapping[str, float]]) -> list[Chart]:
    """A chart per figure; the horizontal axis is the step."""
    if len(rows) < 2 or "step" not in rows[0]:
        return []
    steps = [row["step"] for row in rows]
    found = []
    for figure in [key for key in rows[0] if key not in _NOT_DRAWN and isinstance(rows[0][key], float)]:
        values = [float(row[figure]) for row in rows]
        if not np.isfinite(values).all():
            continue
        words, top = figure.replace("_", " "), max(values) or 1.0
        axes = Axes((float(min(steps)), float(max(steps))), (min(0.0, *values), top), "step", words, 190)
        alt = f"{words} of {name} over {max(steps)} steps: from {values[0]:.4g} to {values[-1]:.4g}"
        found.append(Chart(f"{name}: {words}", svg.draw(axes, alt, [svg.line(axes, steps, values, "own")])))
    return found


def _columns(weights: Sequence[float]) -> Markup:
    axes = Axes(
        (-0.6, len(weights) - 0.4), (min(0.0, *weights), max(weights)), "layer (0: before the first)", "weight", 190
    )
    told = ", ".join(f"{weight:.3f}" for weight in weights)
    return svg.draw(axes, f"Weight of each layer in the weighted sum: {told}", [svg.columns(axes, weights, "own")])


def recordings(run: Run) -> Section:
    """Conditions and their clip counts, and what was not taken, by reason."""
    found = {output.uri: output for output in (run.clips, run.bank) if output}.values()
    counts, rejects = list[dict[str, object]](), list[dict[str, object]]()
    for output in found:
        counts += _conditions(output)
        rejects += _rejects(output)
    whole = sum(int(str(row["clips"])) for row in counts)
    lost = sum(int(str(row["files"])) for row in rejects)
    files: dict[str, list[dict[str, object]]] = {"conditions.csv": counts}
    shown = [_condition_table(counts)]
    if rejects:
        files["rejects.csv"] = rejects
        shown.append(_reject_table(rejects))
    lead = f"{whole} clips were taken, {lost} files were not."
    if twins := sum(output.marker.counts.get("duplicates", 0) for output in found):
        lead += f" {twins} clips have the content of another one: a bank holds each content once."
    sources = [uri for output in found for uri in files_of(output, "clips", "rejects")]
    return Section("recordings", "What was it made of?", lead, sources, shown, files=files)


def _conditions(output: Output) -> list[dict[str, object]]:
    names = ["machine_type", "section", "condition", "split"]
    counted = columns(output, "clips", names).group_by(names).aggregate([([], "count_all")])
    rows = counted.to_pylist()
    rows.sort(key=lambda row: tuple(str(row[name]) for name in names))
    return [{"dataset": output.marker.name} | {n: row[n] for n in names} | {"clips": row["count_all"]} for row in rows]


def _condition_table(counts: Sequence[Mapping[str, object]]) -> Table:
    """One line per condition; its splits side by side."""
    by_condition: dict[tuple[str, str], dict[str, int]] = {}
    for row in counts:
        key = (str(row["machine_type"]), str(row["condition"] or "not known"))
        splits = by_condition.setdefault(key, {})
        splits[str(row["split"])] = splits.get(str(row["split"]), 0) + int(str(row["clips"]))
    used = [split for split in tables.SPLITS if any(split in splits for splits in by_condition.values())]
    lines = [
        [Cell(condition), *(Cell(str(splits.get(split, 0))) for split in used)]
        for (_, condition), splits in by_condition.items()
    ]
    return Table(f"Conditions ({len(by_condition)}) and their clips", ["condition", *used], lines)


def _rejects(output: Output) -> list[dict[str, object]]:
    """By reason, most frequent first, with one file as an example."""
    files = output.files(Folder.REJECTS)
    if not files:
        return []
    rows = columns(output, "rejects", ["reason", "uri", "detail"]).sort_by([("uri", "ascending")])
    counted = rows.group_by("reason", use_threads=False).aggregate(
        [("uri", "count"), ("uri", "first"), ("detail", "first")]
    )
    found = [
        {"dataset": output.marker.name, "reason": row["reason"], "files": row["uri_count"]}
        | {"means": reasons.REJECTED.get(row["reason"], ""), "example": row["uri_first"], "detail": row["detail_first"]}
        for row in counted.to_pylist()
    ]
    return sorted(found, key=lambda row: (-int(row["files"]), str(row["reason"])))


def _reject_table(rejects: Sequence[Mapping[str, object]]) -> Table:
    names = ["reason", "files", "means", "example", "detail"]
    lines = [[Cell(str(row[name]), str(row[name]) if name == "example" else None) for name in names] for row in rejects]
    return Table("Files that were not taken", names, lines, ["One example of each; the REJECTS table lists them all."])


def provenance(run: Run) -> Section:
    """Every stage behind the run: what it was keyed by, what it read, what it wrote, on what, in what time."""
    header = ["stage", "name", "digest", "reads", "files", "MB", "seconds", "CPUs", "GPUs", "begun (UTC)"]
    lines = [_stage(stage) for stage in run.stages]
    versions = {stage.marker.stage: stage.marker.versions for stage in run.stages}
    newest = run.stages[0].marker.versions if run.stages else {}
    notes = ["Versions: " + ", ".join(f"{name} {version}" for name, version in newest.items()) + "."]
    differing = sorted(stage for stage, found in versions.items() if found != newest)
    if differing:
        notes.append(f"Made with other versions: {', '.join(differing)}; stages.csv says which.")
    sources = [marker_of(stage) for stage in run.stages]
    files = {"stages.csv": [_record(stage) for stage in run.stages]}
    files["files.csv"] = [row for stage in run.stages for row in _files(stage)]
    lead = f"{len(run.stages)} stages. Each digest covers the settings, the code's version and the digests it reads."
    return Section(
        "provenance", "Where does it come from?", lead, sources, [Table("Stages", header, lines, notes)], files=files
    )


def _stage(stage: Output) -> list[Cell]:
    marker = stage.marker
    reads = ", ".join(f"{name} {source.digest[:8]}" for name, source in marker.inputs.items()) or "-"
    size = sum(file.size for file in marker.files) / 1e6
    texts = [marker.name, marker.digest[:12], reads, str(len(marker.files)), f"{size:.2f}", f"{marker.seconds:.1f}"]
    texts += [f"{marker.held.cpus:g}", f"{marker.held.gpus:g}", f"{marker.started_at:%Y-%m-%d %H:%M}"]
    return [Cell(marker.stage, marker_of(stage)), *map(Cell, texts)]


def _record(stage: Output) -> dict[str, object]:
    marker = stage.marker
    return {
        "stage": marker.stage,
        "name": marker.name,
        "uri": stage.uri,
        "digest": marker.digest,
        "content": marker.content,
        "code_version": marker.code_version,
        "config": json.dumps(marker.config, sort_keys=True),
        "inputs": json.dumps({name: source.digest for name, source in marker.inputs.items()}),
        "counts": json.dumps(marker.counts),
        "files": len(marker.files),
        "megabytes": sum(file.size for file in marker.files) / 1e6,
        "seconds": marker.seconds,
        "cpus": marker.held.cpus,
        "gpus": marker.held.gpus,
        "started_at": marker.started_at.isoformat(),
        "versions": json.dumps(marker.versions),
    }


def _files(stage: Output) -> list[dict[str, object]]:
    return [
        {"stage": stage.marker.stage, "uri": stage.file_uri(file.path), "bytes": file.size, "sha256": file.sha256}
        for file in stage.marker.files[:_MAX_FILES]
    ]

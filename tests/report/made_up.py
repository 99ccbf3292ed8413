"""METRICS with all that lies behind them, made by hand: recordings that nobody made, models that nobody trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ray_asd import build, config, store, tables
from ray_asd.build import Attempt, Key, Outcome, Output, steps
from ray_asd.config import Recipe
from ray_asd.data import audio
from ray_asd.models.card import CARD, ModelCard
from ray_asd.stages.comparison import compare, evaluate
from ray_asd.stages.comparison.compare import Scored
from ray_asd.stages.training.usage import SPECTRAL
from ray_asd.tables import Folder

BASELINE = SPECTRAL


def recipe(family: str, ws: bool = True, sa: bool = False, tfp: bool = False, method: str = "backbone") -> Recipe:
    """A system of these parts with the published checkpoint."""
    off = [f"{key}=null" for key, on in (("augmentation", sa), ("transformer_pooling", tfp)) if not on]
    parts = (f"backbone.family={family}", f"backbone.weighted_sum={str(ws).lower()}", f"method={method}")
    return config.load("paper", (*parts, *off))


def clips(root: str, dataset: str = "fleet", machines: Sequence[str] = ("fan", "valve"), count: int = 40) -> Output:
    """CLIPS of which a third is for testing."""
    rows = [
        {
            "clip_id": f"{dataset}/{machine}/{number}",
            "machine_type": machine,
            "dataset": dataset,
            "split": "train" if number < count else "test",
        }
        | {"section": "00", "uri": "", "sample_rate": 16_000, "channels": 1, "num_samples": 1, "size_bytes": 1}
        | {"content_hash": ""}
        for machine in machines
        for number in range(count + count // 5)
    ]

    def work(attempt: Attempt) -> Outcome:
        table = pa.Table.from_pylist(rows, schema=tables.CLIPS)
        counts = {split: sum(row["split"] == split for row in rows) for split in ("train", "test")}
        return Outcome([attempt.put_table("clips/00000.parquet", table)], counts)

    return build.run(root, Key("ingest", dataset, 1, {"of": [len(rows), dataset]}, {}), work)


def scores(seed: int, skill: float, machines: Sequence[str] = ("fan", "valve"), hard: int = 0) -> pa.Table:
    """SCORES of 60 clips a machine type: noise, of which ``hard`` decides most, and ``skill`` on the anomalies."""
    ours, all_alike = np.random.default_rng(seed), np.random.default_rng(hard)
    rows = []
    for machine in machines:
        for number in range(60):
            label, domain = tables.LABELS[number % 2], tables.DOMAINS[number // 2 % 2]
            noise = all_alike.normal() + 0.1 * ours.normal()
            rows.append(
                {"clip_id": f"{machine}/{number}", "machine_type": machine, "section": "00", "split": "test"}
                | {"domain": domain, "label": label, "score": noise + skill * (label == "anomaly")}
                | {"neighbours": [], "neighbour_hashes": [], "distances": [], "system": "made up", "model_digest": ""}
                | {"content_hash": f"{machine}/{number}"}
            )
    return pa.Table.from_pylist(rows, schema=tables.SCORES)


def scored(
    root: str, of: Recipe | None, table: pa.Table, seed: int = 0, weights: Sequence[float] | None = None, **data: Any
) -> Output:
    """The SCORES of a system that was trained on a GPU, or of the baseline."""
    ingested = clips(root, **data)
    inputs: dict[str, build.Source] = {"clips": ingested.source}
    system = of.system if of else BASELINE
    model = _model(root, of, seed, weights, ingested) if of else None
    inputs["detector"] = _enrolled(root, model, ingested).source

    def work(attempt: Attempt) -> Outcome:
        file = attempt.put_table("scores/00000.parquet", table)
        return Outcome([file], {"clips": table.num_rows}, told(system, seed if of else None))

    return build.run(root, Key("score", "made-up", 1, {"scores": table["score"].to_pylist()}, inputs), work)


def told(system: str, seed: int | None) -> dict[str, Any]:
    """The summary of SCORES."""
    return {"system": system, "seed": seed, "members": 1, "trained": seed is not None}


def _enrolled(root: str, model: Output | None, ingested: Output) -> Output:
    """A detector of which nothing is left but where it came from."""
    inputs = {"clips": ingested.source} | ({"model_0": model.source} if model else {})
    embedded = Key("embed", "made-up", 1, {"audio": {"channel": 0}}, inputs)
    inputs["said_0"] = build.run(root, embedded, lambda attempt: Outcome([], {"clips": 60})).source
    return build.run(root, Key("enroll", "made-up", 1, {}, inputs), lambda attempt: Outcome([], {"clips": 60}))


def _model(root: str, of: Recipe, seed: int, weights: Sequence[float] | None, ingested: Output) -> Output:
    card = ModelCard(
        system=of.system,
        recipe=of,
        checkpoint=None,
        conditions=[],
        held_out=[],
        steps=1,
        layer_weights=None if weights is None else list(weights),
        versions={},
        weights_sha256="",
    )

    def work(attempt: Attempt) -> Outcome:
        file = attempt.put(CARD, card.model_dump_json().encode())
        return Outcome([file], {}, {"system": of.system, "seed": seed}, held=build.Held(cpus=4, gpus=1))

    return build.run(
        root, Key("train", "made-up", 1, {"system": of.system, "seed": seed}, {"clips": ingested.source}), work
    )


def evaluated(root: str, found: Output, baseline: Output, variant: str = "") -> Output:
    """METRICS of one system and the baseline."""
    return steps.ensure(evaluate.planned("made-up", [found], [baseline], 1, variant), root)


def compared(root: str, systems: Sequence[tuple[str, int | None, Output]]) -> Output:
    """CELLS and PAIRS of these."""
    return steps.ensure(compare.step("made-up", [Scored(*system) for system in systems]), root)


RATE = 16_000
LIMIT: dict[str, Any] = {"source": "calibration", "num_clips": 59, "num_above": 5}
LIMIT |= {"rate_low": 0.0452, "rate_high": 0.17, "false_alarms_source": 3 / 54, "false_alarms_target": 2 / 5}
CURVE = [{"step": step, "loss": 10.0 / step, "accuracy": 1 - 1 / step, "learning_rate": 1e-4} for step in range(1, 21)]


@dataclass(frozen=True)
class Plant:
    """A fan that sounds wrong and a valve that does not, with all that a page can tell of: URIs by stage."""

    root: str
    recordings: str
    scores: Output
    baseline: Output
    metrics: Output


def plant(root: str, recordings: str, labels: bool = True, name: str = "", thresholds: bool = True) -> Plant:
    """Recordings and everything made of them. Scores of fan anomalies exceed the threshold, those of valves do not.

    Every test clip's nearest neighbours are the first two training clips of its machine.
    """
    ingested = _ingested(root, recordings, labels)
    system = recipe("hubert")
    model = _trained(root, system.system + name, system, ingested)
    found = _scored(root, system.system + name, 0, ingested, labels, 0.2 if thresholds else None, model)
    baseline = _scored(root, BASELINE, None, ingested, labels, 0.2 if thresholds else None, None)
    metrics = evaluated(root, found, baseline) if labels else found
    return Plant(root, recordings, found, baseline, metrics)


def _ingested(root: str, recordings: str, labels: bool) -> Output:
    rows = [
        _recorded(recordings, machine, split, number, labels)
        for machine in ("fan", "valve")
        for split, count in (("train", 6), ("test", 24))
        for number in range(count)
    ]
    rejects = [
        {"uri": f"{recordings}/{name}", "reason": reason, "detail": f"{name} is bad", "size_bytes": 4}
        for name, reason in (("a.wav", "truncated"), ("b.wav", "truncated"), ("c.wav", "silent"))
    ]

    def work(attempt: Attempt) -> Outcome:
        files = [
            attempt.put_table("clips/00000.parquet", pa.Table.from_pylist(rows, schema=tables.CLIPS)),
            attempt.put_table("rejects/00000.parquet", pa.Table.from_pylist(rejects, schema=tables.REJECTS)),
        ]
        return Outcome(files, {"clips": len(rows), "rejects": len(rejects), "train": 12, "test": 48})

    return build.run(root, Key("ingest", "plant", 1, {"of": recordings, "labels": labels}, {}), work)


def _recorded(recordings: str, machine: str, split: str, number: int, labels: bool) -> dict[str, Any]:
    """A row of CLIPS whose recording is a tone, higher for anomalies; half of the test clips are."""
    label = tables.LABELS[number % 2] if split == "test" else "normal"
    time = np.arange(RATE) / RATE
    hertz = 3000 if label == "anomaly" else 500 + 10 * number
    noise = np.random.default_rng(number).normal(size=RATE)
    wave = 0.2 * np.sin(2 * np.pi * hertz * time) + 0.01 * noise
    data = audio.encode_wav(wave, RATE)
    uri = f"{recordings}/{machine}/{split}/{number}.wav"
    store.write(uri, data)
    return (
        {"clip_id": f"plant/{machine}/{split}/{number}", "machine_type": machine, "section": "00", "split": split}
        | {"domain": tables.DOMAINS[number // 2 % 2], "label": label if labels else None, "uri": uri}
        | {"dataset": "plant", "condition": f"{machine}|speed={number % 3}", "sample_rate": RATE, "channels": 1}
        | {"num_samples": RATE, "size_bytes": len(data), "content_hash": audio.content_hash(data)}
    )


def _trained(root: str, name: str, of: Recipe, ingested: Output) -> Output:
    card = ModelCard(
        system=name,
        recipe=of,
        checkpoint=None,
        conditions=[],
        held_out=[],
        steps=20,
        layer_weights=[0.1, 0.3, 0.6],
        versions={},
        weights_sha256="",
    )

    def work(attempt: Attempt) -> Outcome:
        files = [
            attempt.put(CARD, card.model_dump_json().encode()),
            attempt.put_table("curve/curve.parquet", pa.Table.from_pylist(CURVE)),
        ]
        return Outcome(files, {}, {"system": name, "seed": 0}, held=build.Held(cpus=2))

    return build.run(root, Key("train", "plant", 1, {"name": name}, {"clips": ingested.source}), work)


def _scored(
    root: str,
    system: str,
    seed: int | None,
    ingested: Output,
    labels: bool,
    threshold: float | None,
    model: Output | None,
) -> Output:
    sources = {"clips": ingested.source, "detector": _enrolled(root, model, ingested).source}
    heard = ingested.table(Folder.CLIPS).to_pylist()
    contents = {row["clip_id"]: row["content_hash"] for row in heard}
    rows = [_judged(row, system, seed, threshold, contents) for row in heard if _is_test(row)]
    fits = [
        {"machine_type": machine, "section": "00", "threshold": threshold, "method": "quantile", "num_clips": 0}
        | {"source": "none: all were trained on", "false_positive_rate": 0.1}
        | (LIMIT if threshold else {})
        for machine in ("fan", "valve")
    ]

    def work(attempt: Attempt) -> Outcome:
        files = [
            attempt.put_table("scores/00000.parquet", pa.Table.from_pylist(rows, schema=tables.SCORES)),
            attempt.put_table("thresholds/00000.parquet", pa.Table.from_pylist(fits, schema=tables.THRESHOLDS)),
        ]
        return Outcome(files, {"clips": len(rows)}, told(system, seed))

    return build.run(root, Key("score", "plant", 1, {"threshold": threshold}, sources), work)


def _is_test(row: dict[str, Any]) -> bool:
    return bool(row["split"] == "test")


def _judged(
    row: dict[str, Any], system: str, seed: int | None, threshold: float | None, contents: Mapping[str, str]
) -> dict[str, Any]:
    """A row of SCORES: fan anomalies lie beyond the threshold, the later the further; the baseline hears none."""
    number = int(row["clip_id"].rpartition("/")[2])
    heard = seed is not None and row["machine_type"] == "fan" and number % 2 == 1
    score = 0.1 + 0.001 * (number * 7 % 24) + (0.2 + 0.01 * number) * heard
    names = [f"plant/{row['machine_type']}/train/{place}" for place in (0, 1)]
    shared = ("clip_id", "machine_type", "section", "domain", "split", "label", "content_hash")
    return {name: row[name] for name in shared} | {
        "score": score,
        "threshold": threshold,
        "decision": None if threshold is None else int(score > threshold),
        "neighbours": names,
        "neighbour_hashes": [contents[name] for name in names],
        "distances": [score - 0.01, score + 0.01],
        "system": system,
        "model_digest": "made up",
    }

"""METRICS with all that lies behind them, made by hand: recordings that nobody made, models that nobody trained."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ray_asd import build, config, steps, tables
from ray_asd.build import Attempt, Key, Outcome, Output
from ray_asd.config import Recipe
from ray_asd.models.card import CARD, ModelCard
from ray_asd.stages import compare, evaluate, score
from ray_asd.stages.compare import Scored

FLOOR = score.FLOOR_SYSTEM


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
                | {"neighbours": [], "distances": [], "system": "made up", "model_digest": ""}
            )
    return pa.Table.from_pylist(rows, schema=tables.SCORES)


def scored(
    root: str, of: Recipe | None, table: pa.Table, seed: int = 0, weights: Sequence[float] | None = None, **data: Any
) -> Output:
    """The SCORES of a system that was trained on a GPU, or of the floor."""
    ingested = clips(root, **data)
    inputs: dict[str, build.Source] = {"clips": ingested.source}
    system = of.system if of else FLOOR
    if of:
        inputs["model"] = _model(root, of, seed, weights, ingested).source

    def work(attempt: Attempt) -> Outcome:
        file = attempt.put_table("scores/00000.parquet", table)
        return Outcome([file], {"clips": table.num_rows}, {"system": system, "seed": seed if of else None})

    return build.run(root, Key("score", "made-up", 1, {"scores": table["score"].to_pylist()}, inputs), work)


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


def evaluated(root: str, found: Output, floor: Output, variant: str = "") -> Output:
    """METRICS of one system and the floor."""
    return steps.ensure(evaluate.planned("made-up", [found], {"floor_a_b": floor}, 1, variant), root)


def compared(root: str, systems: Sequence[tuple[str, int | None, Output]]) -> Output:
    """CELLS and PAIRS of these."""
    return steps.ensure(compare.step("made-up", [Scored(*system) for system in systems]), root)

"""Scores against a brute-force reference, and where thresholds come from."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ray_asd import config, tables
from ray_asd.build import Output, steps
from ray_asd.data import audio, simulate
from ray_asd.engine.progress import silent
from ray_asd.errors import UserError
from ray_asd.models.card import CARD
from ray_asd.stages.detection import score
from ray_asd.tables import Folder
from stages import chain

K = chain.RECIPE.scoring.neighbours


def held_out(model: Output) -> set[str]:
    return set(json.loads(model.read(CARD))["held_out"])


def nearest(query: dict[str, Any], bank: list[dict[str, Any]]) -> list[tuple[float, str]]:
    """Cosine distances in Python's exact sums, nearest first."""

    def unit(row: dict[str, Any]) -> list[float]:
        norm = math.sqrt(math.fsum(value * value for value in row["embedding"]))
        return [value / norm for value in row["embedding"]]

    one = unit(query)
    found = [(1 - math.fsum(a * b for a, b in zip(one, unit(row), strict=True)), row["clip_id"]) for row in bank]
    return sorted(entry for entry in found if entry[1] != query["clip_id"])[:K]


def of_machine(rows: list[dict[str, Any]], machine: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["machine_type"] == machine]


def test_scores_are_those_of_brute_force(system: chain.Chain) -> None:
    embeddings = system.embeddings.table("embeddings").to_pylist()
    kept_back = held_out(system.model)
    bank = [row for row in embeddings if row["split"] == "train" and row["clip_id"] not in kept_back]
    queries = {row["clip_id"]: row for row in embeddings if row["split"] == "test"}
    table = system.scores.table(Folder.SCORES)
    assert table.schema.equals(tables.SCORES)
    assert (len(bank), table["clip_id"].to_pylist()) == (36, sorted(queries))
    for row in table.to_pylist():
        expected = nearest(queries[row["clip_id"]], of_machine(bank, row["machine_type"]))
        assert row["neighbours"] == [name for _, name in expected]
        np.testing.assert_allclose(row["distances"], [distance for distance, _ in expected], rtol=0, atol=1e-14)
        assert row["score"] == np.mean(row["distances"])
        assert row["decision"] == int(row["score"] > row["threshold"])
        assert (row["system"], row["model_digest"]) == (chain.RECIPE.system, system.model.marker.digest)
        known = queries[row["clip_id"]]
        for name in ("machine_type", "section", "machine_id", "domain", "split", "label"):
            assert row[name] == known[name]


def test_thresholds_come_from_clips_that_training_never_saw(system: chain.Chain) -> None:
    embeddings = system.embeddings.table("embeddings").to_pylist()
    kept_back = held_out(system.model)
    bank = [row for row in embeddings if row["split"] == "train" and row["clip_id"] not in kept_back]
    thresholds = system.scores.table(Folder.THRESHOLDS)
    assert thresholds.schema.equals(tables.THRESHOLDS)
    assert thresholds["machine_type"].to_pylist() == ["fan", "valve"]
    for row in thresholds.to_pylist():
        known = of_machine(bank, row["machine_type"])
        unseen = [clip for clip in of_machine(embeddings, row["machine_type"]) if clip["clip_id"] in kept_back]
        values = [np.mean([distance for distance, _ in nearest(clip, known)]) for clip in unseen]
        assert row["threshold"] == pytest.approx(max(values), abs=1e-14)  # of 2 clips, at a rate of 0.4
        assert (row["source"], row["method"], row["num_clips"]) == ("calibration", "quantile", 2)


def test_the_floor_leaves_each_of_its_clips_out(system: chain.Chain) -> None:
    settings = chain.RECIPE.model_copy(
        update={"scoring": config.Scoring(threshold=config.Threshold(method="quantile"))}
    )
    scores = chain.scored(None, system.clips, system.root, settings)
    embeddings = chain.parent(scores, "bank").table("embeddings").to_pylist()
    train = [row for row in embeddings if row["split"] == "train"]
    for row in scores.table(Folder.THRESHOLDS).to_pylist():
        known = of_machine(train, row["machine_type"])
        values = sorted(np.mean([distance for distance, _ in nearest(clip, known)]) for clip in known)
        assert row["threshold"] == pytest.approx(values[18], abs=1e-12)  # 2 of 21 may lie above, at a rate of 0.1
        assert (row["source"], row["num_clips"]) == ("leave_one_out", 20)
    assert set(scores.table(Folder.SCORES)["system"].to_pylist()) == {score.FLOOR_SYSTEM}


def test_too_few_clips_and_thresholds_by_hand(system: chain.Chain) -> None:
    def thresholds(threshold: config.Threshold) -> tuple[list[dict[str, Any]], pa.Table]:
        recipe = chain.RECIPE.model_copy(update={"scoring": config.Scoring(threshold=threshold)})
        scores = chain.scored(system.model, system.clips, system.root, recipe)
        return scores.table(Folder.THRESHOLDS).to_pylist(), scores.table(Folder.SCORES)

    rows, scores = thresholds(config.Threshold(method="gamma"))
    assert {row["threshold"] for row in rows} == {None}
    assert {row["source"] for row in rows} == {
        "calibration: 2 normal clips; gamma at a false positive rate of 0.1 needs 8"
    }
    assert scores["decision"].null_count == scores["threshold"].null_count == 24
    rows, scores = thresholds(config.Threshold(method="manual", value=0.01))
    assert [(row["threshold"], row["method"], row["source"]) for row in rows] == [(0.01, "manual", "manual")] * 2
    assert scores["decision"].to_pylist() == [int(value > 0.01) for value in scores["score"].to_pylist()]


@pytest.mark.usefixtures("ray_session")
def test_sections_and_banks_do_not_mix(system: chain.Chain, tmp_path: Path) -> None:
    def ingested(name: str, fleet: simulate.Fleet, section: str) -> Output:
        simulate.write(fleet, str(tmp_path / name))
        for path in list((tmp_path / name).rglob("section_00_*.wav")):
            if "000" in path.name:
                path.rename(path.with_name(path.name.replace("section_00", f"section_{section}", 1)))
        return chain.ingested(str(tmp_path / name), system.root)

    few = simulate.Fleet(machines=("fan",), train_source=13, train_target=3, test=1, seconds=1.0, seed=5)
    clips = ingested("two", few, "01")  # section 01 has clips 0 to 9, section 00 the training clips 10 to 12
    sections = {row["clip_id"]: row["section"] for row in clips.table(Folder.CLIPS).to_pylist()}
    own = chain.scored(None, clips, system.root).table(Folder.SCORES).to_pylist()
    assert len(own) == 4
    for row in own:
        assert {sections[name] for name in row["neighbours"]} == {row["section"]} == {"01"}

    enrolled = ingested("bank", few.__class__(**{**vars(few), "seed": 6}), "01")
    other = chain.scored(None, clips, system.root, bank=enrolled)
    names = [name for row in other.table(Folder.SCORES)["neighbours"].to_pylist() for name in row]
    assert {name.partition("/")[0] for name in names} == {"bank"}

    by_model = chain.scored(system.model, clips, system.root, bank=enrolled)
    thresholds = {row["section"]: row for row in by_model.table(Folder.THRESHOLDS).to_pylist()}
    threshold = thresholds["01"]  # the model never saw these clips either
    assert threshold["source"] == "leave_one_out"
    assert threshold["num_clips"] == 13

    with pytest.raises(UserError, match=r"fan section 01: 0 training clips to compare with; more than neighbours=2"):
        chain.scored(None, clips, system.root, bank=system.clips)


@pytest.mark.usefixtures("ray_session")
def test_nothing_to_score_or_to_compare_with(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, 16_000)
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.wav").write_bytes(audio.encode_wav(noise, 16_000))
    clips = {
        split: chain.ingested(str(tmp_path / split), str(tmp_path), layout="flat", machine_type="fan", split=split)
        for split in ("train", "test")
    }
    usage, heard = config.Usage(), config.Audio()
    with pytest.raises(UserError, match=r"holds no test clips; it has 1 train$"):
        score.step(None, clips["train"], clips["train"], usage, heard, silent)
    with pytest.raises(UserError, match=r"holds no training clips to compare with; it has 1 test$"):
        score.step(None, clips["test"], clips["test"], usage, heard, silent)
    step = score.step(None, clips["test"], clips["train"], usage, heard, silent)
    with pytest.raises(UserError, match=r"1 training clips to compare with; more than neighbours=2 are needed$"):
        steps.ensure(step, str(tmp_path))

"""Scores against a brute-force reference, what cannot be scored, and what streams or dies on the way."""

import math
import os
import random
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

import processes
from ray_asd import config, reasons, store, tables
from ray_asd.build import Output, steps
from ray_asd.build.steps import Step
from ray_asd.config import Resources, Worker
from ray_asd.data import audio, simulate
from ray_asd.data.source import Source
from ray_asd.engine import cutting
from ray_asd.engine.progress import silent
from ray_asd.errors import UserError
from ray_asd.scoring import backend
from ray_asd.stages.detection import bank_actors, detector, score
from ray_asd.stages.recordings import ingest
from ray_asd.tables import Folder
from stages import chain

ROUNDS = int(os.environ.get("KILL_ROUNDS", "1"))
ACTOR, WORKER = b"ray::Holder", b"ray::MapBatches(_in_task)"
K = 2
WITH_ACTORS = ("resources.index_workers=1",)


def resources(*overrides: str) -> Resources:
    return config.usage(config.Usage(), overrides).resources


def nearest(query: dict[str, Any], bank: list[dict[str, Any]]) -> list[tuple[float, str]]:
    """Cosine distances in Python's exact sums, nearest first."""

    def unit(row: dict[str, Any]) -> list[float]:
        norm = math.sqrt(math.fsum(value * value for value in row["embedding"]))
        return [value / norm for value in row["embedding"]]

    one = unit(query)
    found = [(1 - math.fsum(a * b for a, b in zip(one, unit(row), strict=True)), row["clip_id"]) for row in bank]
    return sorted(entry for entry in found if entry[1] != query["clip_id"])[:K]


def test_the_paper_is_scored_as_by_brute_force(system: chain.Chain) -> None:
    embeddings = system.embeddings.table("embeddings").to_pylist()
    kept_back = set(system.used.card().held_out)
    bank = [row for row in embeddings if row["split"] == "train" and row["content_hash"] not in kept_back]
    queries = {row["clip_id"]: row for row in embeddings if row["split"] == "test"}
    table = system.scores.table(Folder.SCORES)
    assert table.schema.equals(tables.SCORES)
    assert (len(bank), table["clip_id"].to_pylist()) == (36, sorted(queries))
    for row in table.to_pylist():
        known = queries[row["clip_id"]]
        expected = nearest(known, [clip for clip in bank if clip["machine_type"] == row["machine_type"]])
        assert row["neighbours"] == [name for _, name in expected]
        np.testing.assert_allclose(row["distances"], [distance for distance, _ in expected], rtol=0, atol=1e-14)
        assert row["score"] == np.mean(row["distances"])
        assert (row["system"], row["model_digest"]) == (chain.RECIPE.system, system.detector.marker.digest)
        assert (row["threshold"], row["decision"], row["p_value"]) == (None, None, None)  # 2 calibration clips each
        for name in ("machine_type", "section", "machine_id", "domain", "split", "label"):
            assert row[name] == known[name]
    counts = system.scores.marker.counts
    assert (counts["clips"], counts["unscored"], counts["decided"]) == (24, 0, 0)
    why = "calibration: 2 normal clips; quantile at a false positive rate of 0.1 needs 20"
    assert system.scores.marker.summary["learning"] == {"fan 00": why, "valve 00": why}


def test_spectral_scores_decide_and_say_how_rare_they_are(system: chain.Chain) -> None:
    made = chain.spectral(system.clips, system.root)
    output = chain.scored(made, system.clips, system.root)
    calibration = made.table(Folder.CALIBRATION).to_pylist()
    limits = {row["machine_type"]: row for row in output.table(Folder.THRESHOLDS).to_pylist()}
    assert {row["source"] for row in limits.values()} == {"leave_one_out"}
    table = output.table(Folder.SCORES).to_pylist()
    for row in table:
        healthy = sorted(clip["score"] for clip in calibration if clip["machine_type"] == row["machine_type"])
        assert len(healthy) == 20
        assert row["threshold"] == limits[row["machine_type"]]["threshold"] == healthy[18]
        assert row["decision"] == int(row["score"] > row["threshold"])
        assert row["p_value"] == (1 + sum(value >= row["score"] for value in healthy)) / 21
        assert row["system"] == "spectral"
    alarms = sum(row["decision"] for row in table)
    assert output.marker.counts == {"clips": 24, "unscored": 0, "decided": 24, "alarms": alarms, "audio_seconds": 48}


@pytest.mark.usefixtures("ray_session")
def test_clips_that_cannot_be_scored_hold_up_no_other(tmp_path: Path) -> None:
    recordings, rng = tmp_path / "plant", np.random.default_rng(0)

    def write(name: str, channels: int = 2) -> None:
        path = recordings / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(audio.encode_wav(rng.uniform(-0.5, 0.5, (16_000, channels)), 16_000))

    for number in range(6):
        write(f"fan/train/section_00_source_train_normal_{number:04d}_")
        write(f"fan/test/section_00_source_test_normal_{number:04d}_", channels=1 if number == 2 else 2)
    write("pump/train/section_00_source_train_normal_0000_")
    write("pump/test/section_00_source_test_normal_0000_")
    write("valve/test/section_00_source_test_normal_0000_")
    root = str(tmp_path / "root")
    clips = chain.ingested(str(recordings), root, dataset="plant", layout="dcase2023")
    by_hand = ("scoring.threshold.method=manual", "scoring.threshold.value=1")
    made = chain.spectral(clips, root, *by_hand)
    assert made.marker.summary["learning"].keys() == {"pump 00"}
    (recordings / "fan/test/section_00_source_test_normal_0000_.wav").unlink()
    write("fan/test/section_00_source_test_normal_0001_")
    second = chain.spectral(clips, root, *by_hand, "audio.channel=1")
    output = chain.scored(second, clips, root)
    found = {row["clip_id"].removeprefix("plant/"): row for row in output.table(Folder.UNSCORED).to_pylist()}
    test = "/test/section_00_source_test_normal_"
    assert {name.replace(test, " ").removesuffix("_.wav"): row["reason"] for name, row in found.items()} == {
        "fan 0000": "recording_gone",
        "fan 0001": "recording_changed",
        "fan 0002": "no_channel",
        "pump 0000": "learning",
        "valve 0000": "no_bank",
    }
    assert {row["reason"] for row in found.values()} <= set(reasons.UNSCORED)
    assert all("\n" not in row["detail"] for row in found.values())
    assert found[f"valve{test}0000_.wav"]["detail"] == "valve section 00 was not enrolled; allowed: fan, pump"
    scored = output.table(Folder.SCORES)["clip_id"].to_pylist()
    assert [name[-9:-5] for name in scored] == ["0003", "0004", "0005"]
    counts = output.marker.counts
    assert (counts["clips"], counts["unscored"], counts["unscored_recording_gone"]) == (3, 5, 1)
    assert chain.scored(second, clips, root).reused


@pytest.mark.usefixtures("ray_session")
def test_where_nothing_can_be_scored_there_are_no_scores(system: chain.Chain, tmp_path: Path) -> None:
    fleet = simulate.Fleet(machines=("bearing",), train_source=1, train_target=1, test=1, seconds=1.0)
    simulate.write(fleet, str(tmp_path / "others"))
    others = chain.ingested(str(tmp_path / "others"), str(tmp_path / "root"))
    output = chain.scored(chain.spectral(system.clips, system.root), others, str(tmp_path / "root"))
    assert output.table(Folder.SCORES).equals(tables.SCORES.empty_table())
    assert set(output.table(Folder.UNSCORED)["detail"].to_pylist()) == {
        "bearing section 00 was not enrolled; allowed: fan, valve"
    }
    counts = output.marker.counts
    assert (counts["clips"], counts["decided"], counts["unscored_no_bank"]) == (0, 0, 4)


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
    made = chain.spectral(clips["train"], str(tmp_path))
    why = f"1 training clips to compare with; {backend.needed(config.Backend())} are needed"
    assert made.marker.summary["learning"]["fan 00"] == why
    with pytest.raises(UserError, match=r"holds no test clips; it has 1 train$"):
        score.step(made, clips["train"], Resources(), silent)
    with pytest.raises(UserError, match=r"holds no healthy clips to enrol; allowed: clips of split train or calib"):
        chain.spectral(clips["test"], str(tmp_path))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("root"))


@pytest.fixture
def many_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "SMALLEST", 4)


def planned(system: chain.Chain, root: str, *overrides: str) -> Step:
    """The scoring of the test clips, to be done anew."""
    step = score.step(system.detector, system.clips, resources(*overrides), silent)
    store.remove(step.key(root).folder(root))
    return step


def judgement(output: Output) -> list[pa.Table]:
    return [output.table(folder) for folder in (Folder.SCORES, Folder.THRESHOLDS)]


@pytest.mark.usefixtures("many_shards")
@pytest.mark.parametrize(
    "overrides",
    [
        ("resources.embed_workers=2", "resources.index_workers=2"),
        ("resources.index_workers=1", "resources.index_replicas=2", "resources.index.memory_gb=0.5"),
    ],
)
def test_workers_and_actors_change_nothing(system: chain.Chain, place: str, overrides: Sequence[str]) -> None:
    output = steps.ensure(planned(system, place, *overrides), place)
    assert judgement(output) == judgement(system.scores)
    assert {file.path.partition("/")[0] for file in output.marker.files} == {Folder.SCORES, Folder.THRESHOLDS}
    assert "receipts" not in store.folders(store.join(output.uri, "parts"))


@pytest.mark.usefixtures("many_shards")
def test_packs_change_nothing(system: chain.Chain, bucket: str) -> None:
    root = store.join(bucket, "root")
    step = ingest.step(Source(system.recordings, dataset="fleet"), Worker(), silent, ingest.Options(pack=True))
    packed = steps.ensure(step, root)
    assert packed.source.digest == system.clips.source.digest
    rows = packed.table(Folder.CLIPS).drop_columns(["pack", "pack_row"])
    assert rows.equals(system.clips.table(Folder.CLIPS).drop_columns(["pack", "pack_row"]))
    assert judgement(chain.scored(system.detector, packed, root)) == judgement(system.scores)


@pytest.mark.slow
@pytest.mark.usefixtures("many_shards")
@pytest.mark.parametrize("victims", [(ACTOR, WORKER)] if ROUNDS == 1 else [(ACTOR,), (WORKER,), (ACTOR, WORKER)])
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_killed_on_the_way(system: chain.Chain, place: str, victims: Sequence[bytes], seed: int) -> None:
    step = planned(system, place, *WITH_ACTORS)
    receipts = store.join(step.key(place).folder(place), "parts", "receipts")
    killed, ended = list[int](), threading.Event()

    def kill() -> None:
        processes.wait_for(lambda: any(name.endswith(".json") for name in store.files(receipts)))
        time.sleep(random.Random(seed).uniform(0, 0.2))
        for title in victims:
            while not (running := processes.below_this_one(title)) and not ended.is_set():
                time.sleep(0.01)  # between two shards a worker has no title
            for process in running:
                os.kill(process, signal.SIGKILL)
                killed.append(process)

    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill)
        try:
            output = steps.ensure(step, place)
        finally:
            ended.set()
        killing.result()
    assert len(killed) >= len(victims)
    assert judgement(output) == judgement(system.scores)


def test_an_actor_that_died_answers_again(system: chain.Chain) -> None:
    made, card = system.detector, detector.read(system.detector)
    rows = system.embeddings.table(Folder.EMBEDDINGS).filter(pa.compute.field("machine_type") == "valve").slice(0, 5)
    vectors, groups = tables.vectors(rows), np.full(5, card.number("valve", "00"))
    with bank_actors.Pool(made, card, resources("resources.index_workers=2")) as pool:

        def search() -> tuple[list[float], list[list[str]]]:
            found = pool.compare(vectors, 0, groups, rows["content_hash"].to_pylist())
            return found.scores.tolist(), found.neighbours

        before, health = search(), pool.health()
        assert [one["shard"] for one in health] == [f"{made.marker.digest[:12]}:{number}" for number in (0, 1)]
        assert [one["answered"] for one in health] == [5, 5]
        os.kill(health[1]["pid"], signal.SIGKILL)
        assert search() == before
        again = pool.health()
        assert again[0]["pid"] == health[0]["pid"]
        assert again[1]["pid"] != health[1]["pid"]
        actors = [actor for replica in pool._actors for actor in replica]
    processes.wait_for(lambda: all(map(has_ended, actors)))


def has_ended(actor: ActorHandle) -> bool:
    try:
        ray.get(actor.health.remote())
    except RayActorError:
        return True
    return False


def test_groups_are_dealt_out_by_size(system: chain.Chain) -> None:
    card = detector.read(system.detector)
    assert bank_actors.dealt(card, resources()) == [[0, 1]]
    assert bank_actors.dealt(card, resources("resources.index_workers=5")) == [[0], [1]]
    one_group = 18 * chain.RECIPE.embedding.dim * 8 / 2**30
    assert bank_actors.dealt(card, resources(f"resources.index.memory_gb={one_group * 1.5}")) == [[0], [1]]
    with pytest.raises(
        UserError, match=r"^resources\.index\.memory_gb=1e-09: the bank of fan 00 takes 0\.00 GiB; allo"
    ):
        bank_actors.dealt(card, resources("resources.index.memory_gb=1e-9"))

"""Archive scoring: the same SCORES whatever streams through whatever, and whatever dies on the way."""

import os
import random
import signal
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

import processes
from ray_asd import config, store
from ray_asd.build import Output, steps
from ray_asd.build.steps import Step
from ray_asd.config import Recipe, Worker
from ray_asd.data.listing import Source
from ray_asd.engine import shards
from ray_asd.engine.progress import silent
from ray_asd.errors import UserError
from ray_asd.stages.detection import bank_actors, score
from ray_asd.stages.recordings import ingest
from ray_asd.tables import Folder
from stages import chain

ROUNDS = int(os.environ.get("KILL_ROUNDS", "1"))
ACTOR, WORKER = b"ray::Holder", b"ray::MapWorker"


def recipe(*overrides: str) -> Recipe:
    return config.load("tiny", (*chain.SETTINGS, *overrides))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A root where the bank is made once, since every test needs it."""
    return str(tmp_path_factory.mktemp("root"))


def planned(system: chain.Chain, root: str, *overrides: str) -> Step:
    """The scoring of the test clips, to be done anew."""
    used = recipe(*overrides)
    step = score.step(system.model, system.clips, system.clips, used, used.audio, silent)
    store.remove(step.key(root).folder(root))
    return step


def streamed(system: chain.Chain, root: str, *overrides: str) -> Output:
    return steps.ensure(planned(system, root, *overrides), root)


@pytest.fixture
def many_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SMALLEST", 4)


def judgement(output: Output) -> list[pa.Table]:
    return [output.table(folder) for folder in (Folder.SCORES, Folder.THRESHOLDS)]


def test_the_same_as_from_embeddings(system: chain.Chain, place: str) -> None:
    output = streamed(system, place)
    assert judgement(output) == judgement(system.scores)
    assert "queries" not in output.marker.inputs
    folders = {file.path.partition("/")[0] for file in output.marker.files}
    assert folders == {Folder.SCORES, Folder.THRESHOLDS}
    assert store.folders(output.uri) == ["parts"]
    assert "receipts" not in store.folders(store.join(output.uri, "parts"))


@pytest.mark.usefixtures("many_shards")
@pytest.mark.parametrize(
    "overrides",
    [
        ("resources.embed_workers=1",),
        ("resources.embed_workers=2", "resources.index_workers=2"),
        ("resources.index_workers=3", "resources.index_replicas=2"),
        ("resources.index.memory_gb=0.5",),
    ],
)
def test_workers_and_shards_change_nothing(system: chain.Chain, place: str, overrides: Sequence[str]) -> None:
    assert judgement(streamed(system, place, *overrides)) == judgement(system.scores)


@pytest.mark.usefixtures("many_shards")
def test_packs_change_nothing(system: chain.Chain, bucket: str) -> None:
    root = store.join(bucket, "root")
    step = ingest.step(Source(system.recordings, dataset="fleet"), Worker(), silent, ingest.Options(pack=True))
    packed = steps.ensure(step, root)
    assert packed.source.digest == system.clips.source.digest
    rows = packed.table(Folder.CLIPS).drop_columns(["pack", "pack_row"])
    assert rows.equals(system.clips.table(Folder.CLIPS).drop_columns(["pack", "pack_row"]))
    used = recipe()
    output = steps.ensure(score.step(system.model, packed, packed, used, used.audio, silent), root)
    assert judgement(output) == judgement(system.scores)


@pytest.mark.slow
@pytest.mark.usefixtures("many_shards")
@pytest.mark.parametrize("victims", [(ACTOR,), (WORKER,), (ACTOR, WORKER)])
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_killed_on_the_way(system: chain.Chain, place: str, victims: Sequence[bytes], seed: int) -> None:
    step = planned(system, place)
    receipts = store.join(step.key(place).folder(place), "parts", "receipts")
    killed: list[int] = []

    def kill() -> None:
        processes.wait_for(lambda: bool(store.files(receipts)))
        time.sleep(random.Random(seed).uniform(0, 0.2))
        for title in victims:
            for process in processes.below_this_one(title):
                os.kill(process, signal.SIGKILL)
                killed.append(process)

    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill)
        output = steps.ensure(step, place)
        killing.result()
    assert len(killed) >= len(victims)
    assert judgement(output) == judgement(system.scores)


def test_an_actor_that_died_answers_again(system: chain.Chain) -> None:
    bank = chain.parent(system.scores, "index")
    embeddings = system.embeddings.table("embeddings").slice(0, 5)
    with bank_actors.Pool(bank, config.Resources(index_workers=2)) as pool:

        def search() -> tuple[list[list[float]], list[list[str]]]:
            from ray_asd.tables import vectors

            found = pool.search(vectors(embeddings), [0] * 5, embeddings["clip_id"].to_pylist(), 3)
            return found.distances.tolist(), found.clip_ids

        before, health = search(), pool.health()
        assert [one["shard"] for one in health] == [
            f"{bank.marker.digest[:12]}:0",
            f"{bank.marker.digest[:12]}:18",
        ]
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


def test_a_bank_that_lacks_what_is_asked_for(system: chain.Chain, place: str) -> None:
    with pytest.raises(UserError, match=r"^fan section 00: 18 training clips to compare with; more than neighbours=18"):
        streamed(system, place, "scoring.neighbours=18")

"""The bank: what is enrolled, in which order it lies, and what approximate indexes say of themselves."""

import json

import numpy as np
import pytest

from ray_asd import config
from ray_asd.build import Output, steps
from ray_asd.engine.progress import silent
from ray_asd.errors import StageError
from ray_asd.scoring.bank import open_vectors
from ray_asd.stages.detection import index, score, search
from ray_asd.tables import Folder
from stages import chain


def bank(system: chain.Chain, *overrides: str) -> Output:
    return chain.parent(scores(system, *overrides), "index")


def scores(system: chain.Chain, *overrides: str) -> Output:
    recipe = config.load("tiny", (*chain.SETTINGS, *overrides))
    step = score.step(system.model, system.clips, system.clips, recipe, recipe.audio, silent, keep=True)
    return steps.ensure(step, system.root)


def test_the_training_clips_in_order_less_those_held_out(system: chain.Chain) -> None:
    output = bank(system)
    held_out = set(json.loads(system.base.read("model.json"))["held_out"])
    rows = {row["clip_id"]: row for row in system.embeddings.table(Folder.EMBEDDINGS).to_pylist()}
    wanted = [row for row in rows.values() if row["split"] == "train" and row["clip_id"] not in held_out]
    wanted.sort(key=lambda row: (row["machine_type"], row["section"], row["clip_id"]))
    keys = output.table(index.CLIPS).to_pylist()
    assert keys == [{name: row[name] for name in ("machine_type", "section", "clip_id")} for row in wanted]
    vectors = open_vectors(output.fetch(index.VECTORS), output.marker.summary["dim"])
    np.testing.assert_array_equal(vectors, np.array([row["embedding"] for row in wanted], np.float32))
    assert output.marker.counts == {"clips": 36}
    assert output.marker.summary["groups"] == [
        {"machine_type": "fan", "section": "00", "start": 0, "stop": 18},
        {"machine_type": "valve", "section": "00", "start": 18, "stop": 36},
    ]


@pytest.mark.parametrize("kind", ["ivf", "hnsw", "pq"])
def test_approximate_indexes_tell_what_they_find(system: chain.Chain, kind: str) -> None:
    # So few rows are all looked at: what is proposed is what is nearest.
    settings = (f"scoring.index.kind={kind}", "scoring.index.beyond=4", "scoring.index.lists=1")
    output = scores(system, *settings)
    groups = chain.parent(output, "index").marker.summary["groups"]
    assert [group["recall"] for group in groups] == [1.0, 1.0]
    assert [group["file"].partition("-")[0] for group in groups] == [
        "approximate/00000.faiss",
        "approximate/00001.faiss",
    ]
    assert output.table(Folder.SCORES).equals(system.scores.table(Folder.SCORES))
    few = bank(system, f"scoring.index.kind={kind}", "scoring.index.beyond=18")
    assert all("file" not in group for group in few.marker.summary["groups"])


def test_shards_do_not_cut_a_group_with_an_approximate_index(system: chain.Chain) -> None:
    approximate = bank(system, "scoring.index.kind=hnsw", "scoring.index.beyond=4")
    assert search.bounds(approximate, 5) == [(0, 18), (18, 36)]
    assert search.bounds(bank(system), 5) == [(0, 7), (7, 14), (14, 21), (21, 28), (28, 36)]
    assert len(search.bounds(bank(system), 100)) == 36


def test_an_embedding_without_direction_is_named(system: chain.Chain) -> None:
    here = search.Here(bank(system))
    vectors = np.ones((2, chain.RECIPE.embedding.dim), np.float32)
    vectors[1] = np.nan
    with pytest.raises(StageError, match=r"^the embedding of b\.wav is zero or not finite$"):
        here.search(vectors, [0, 0], ["a.wav", "b.wav"], 2)

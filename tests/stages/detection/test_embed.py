"""Embeddings: one per clip, as the model gives them, whatever the number of workers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from ray_asd import config, tables
from ray_asd.build import Output, steps
from ray_asd.data import features, recordings, simulate
from ray_asd.data.training_set import TrainingSet
from ray_asd.engine.progress import silent
from ray_asd.models import model_folder
from ray_asd.models.card import CARD, WEIGHTS
from ray_asd.models.embedder import ClipEmbedder
from ray_asd.stages.detection import embed
from ray_asd.stages.training import usage
from ray_asd.tables import Folder
from stages import chain

DIM = chain.RECIPE.embedding.dim


def loaded(model: Output) -> ClipEmbedder:
    torch.set_num_threads(1)  # as the workers
    return model_folder.load(model.fetch(CARD), model.fetch(WEIGHTS)).system


def vectors(table: pa.Table) -> np.ndarray:
    flat: np.ndarray = table["embedding"].combine_chunks().flatten().to_numpy()
    return flat.reshape(table.num_rows, -1)


def shards(output: Output, folder: str) -> list[pa.Table]:
    """The table as its files hold it."""
    import pyarrow.parquet as pq

    return [pq.read_table(pa.BufferReader(output.read(file.path))) for file in output.files(folder)]


def test_one_row_per_clip_that_keeps_what_is_known_of_it(system: chain.Chain) -> None:
    clips = {row["clip_id"]: row for row in system.clips.table(Folder.CLIPS).to_pylist()}
    table = system.embeddings.table(Folder.EMBEDDINGS)
    assert table.schema.equals(tables.embeddings(DIM))
    found = {row["clip_id"]: row for row in table.to_pylist()}
    assert (set(found), table.num_rows) == (set(clips), len(clips))  # augmented clips are not among them
    for clip_id, row in found.items():
        known = {name: value for name, value in row.items() if name != "embedding"}
        assert known == {name: clips[clip_id][name] for name in known}
    np.testing.assert_allclose(np.linalg.norm(vectors(table), axis=1), 1, atol=1e-6)


def test_embeddings_are_those_of_the_model(system: chain.Chain) -> None:
    model = loaded(system.model)
    model.pack()
    clips = {row["clip_id"]: row for row in system.clips.table(Folder.CLIPS).to_pylist()}
    for shard in shards(system.embeddings, Folder.EMBEDDINGS):
        waves = [recordings.waveform(clips[clip_id], 0) for clip_id in shard["clip_id"].to_pylist()]
        np.testing.assert_array_equal(vectors(shard), model.embed(waves))


def test_chunks_are_those_of_the_fine_tuned_model(system: chain.Chain) -> None:
    model, pooled = loaded(system.base), loaded(system.model)
    model.pack()
    data = TrainingSet([system.originals, system.variants], json.loads(system.base.read(CARD))["held_out"])
    conditions = dict(zip(data.rows["clip_id"].to_pylist(), data.rows["condition"].to_pylist(), strict=True))
    place = {clip_id: number for number, clip_id in enumerate(data.rows["clip_id"].to_pylist())}
    found = []
    for shard in shards(system.chunks, Folder.CHUNKS):
        assert shard["chunks"].type == pa.list_(pa.list_(pa.float32(), DIM))
        clip_ids = shard["clip_id"].to_pylist()
        found += clip_ids
        waves = [data.waveform(place[clip_id]) for clip_id in clip_ids]
        for row, expected in zip(shard.to_pylist(), model.embed_chunks(waves, pooled.chunking), strict=True):
            np.testing.assert_array_equal(np.array(row["chunks"], np.float32), expected)
            assert row["condition"] == conditions[row["clip_id"]]
    assert sorted(found) == sorted(place)
    assert len(found) == 72  # 4 of the 40 clips are held out, and with them their variants


@pytest.mark.parametrize(
    ("name", "embedding"),
    [(usage.SPECTRAL, features.spectral_embedding), (usage.LOG_MEL, features.log_mel_embedding)],
)
def test_features_need_no_model(system: chain.Chain, name: usage.Features, embedding: Any) -> None:
    output = steps.ensure(embed.clips(usage.features(name), system.clips, silent, ("test",)), system.root)
    assert list(output.marker.inputs) == ["clips"]
    clips = {row["clip_id"]: row for row in system.clips.table(Folder.CLIPS).to_pylist()}
    table = output.table(Folder.EMBEDDINGS)
    expected = [embedding(recordings.waveform(clips[name], 0)) for name in table["clip_id"].to_pylist()]
    assert len(expected) == 24
    np.testing.assert_allclose(vectors(table), expected, rtol=1e-5)


def test_tables_are_read_without_ray(system: chain.Chain) -> None:
    code = (
        "import sys, pyarrow.parquet as pq; schema = pq.read_table(sys.argv[1]).schema;"
        "print(schema.field('embedding').type, 'ray' in sys.modules, *(schema.metadata or {}))"
    )
    uri = system.embeddings.file_uri(system.embeddings.files(Folder.EMBEDDINGS)[0].path)
    done = subprocess.run([sys.executable, "-c", code, uri], capture_output=True, text=True, check=True)
    assert done.stdout.split(" not null")[0].replace("item", "element").strip() == (
        f"fixed_size_list<element: float>[{DIM}] False"
    )


def test_the_number_of_workers_changes_no_byte(system: chain.Chain, tmp_path: Path) -> None:
    found = []
    for workers in (1, 2):
        changed = config.load("tiny", (*chain.SETTINGS, f"resources.embed_workers={workers}"))
        step = embed.clips(usage.planned(system.base, changed, system.clips), system.clips, silent)
        found.append(steps.ensure(step, str(tmp_path / str(workers))))
    assert found[0].marker.digest == found[1].marker.digest
    assert chain.contents(found[0]) == chain.contents(found[1])
    assert [path.partition("-")[0] for path in sorted(chain.contents(found[0]))] == [
        "embeddings/00000",
        "embeddings/00001",
    ]


@pytest.mark.usefixtures("ray_session")
def test_a_recording_that_was_lost_or_changed_is_named(tmp_path: Path) -> None:
    fleet = simulate.Fleet(machines=("fan",), train_source=2, train_target=1, test=1, seconds=1.0)
    simulate.write(fleet, str(tmp_path / "fleet"))
    clips = chain.ingested(str(tmp_path / "fleet"), str(tmp_path / "root"))
    lost, changed = (Path(uri) for uri in clips.table(Folder.CLIPS)["uri"].to_pylist()[2:4])
    lost.unlink()
    changed.write_bytes(changed.read_bytes()[:-100])
    output = steps.ensure(embed.clips(usage.features(usage.SPECTRAL), clips, silent), str(tmp_path / "root"))
    told = {(row["reason"], row["detail"]) for row in output.table(Folder.UNSCORED).to_pylist()}
    assert told == {
        ("recording_gone", f"missing: {lost}"),
        ("recording_changed", f"{changed}: the recording has changed since it was ingested; ingest it again"),
    }
    assert output.marker.counts["clips"] == 5
    assert (output.marker.counts["unscored"], output.marker.counts["unscored_recording_gone"]) == (2, 1)

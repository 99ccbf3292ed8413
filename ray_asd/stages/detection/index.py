"""The bank: embeddings of healthy clips laid out for search, saved once, found again by its digest.

Vectors lie in one file, ordered by machine type, section and clip_id, so that every group of clips that are compared
with each other is one run of rows, and any run of rows is a shard. Groups beyond a size may get an approximate index.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_asd import tables
from ray_asd.build import Attempt, File, Outcome, Output
from ray_asd.build.steps import Step
from ray_asd.config import Index
from ray_asd.errors import UserError
from ray_asd.models.card import CARD, read_card
from ray_asd.stages.training.usage import name_of
from ray_asd.tables import Folder

CODE_VERSION = 1
VECTORS = "vectors.f32"  # float32 [N, E], little-endian
CLIPS = "clips"  # folder of the rows' keys
APPROXIMATE = "approximate"  # folder of the indexes of groups that have one
GROUP = ("machine_type", "section")
RECALL_NEIGHBOURS = 2  # of an approximate index: as many as the paper compares with

Group = dict[str, Any]
"""An entry of the marker's summary: machine type, section, its rows ``start`` to ``stop``, and of an approximate index
its ``file`` and ``recall``."""


def step(model: Step | Output | None, bank: Step, settings: Index) -> Step:
    """The bank of the training clips among the EMBEDDINGS ``bank``, less those that the model's training held out."""
    return Step(
        stage="index",
        name=name_of(model),
        code_version=CODE_VERSION,
        config=settings.model_dump(mode="json"),
        inputs={"bank": bank} | ({"model": model} if model else {}),
        work=lambda attempt, inputs: _work(attempt, inputs, settings),
        units=bank.units,
        on_ray=False,
    )


def _work(attempt: Attempt, inputs: Mapping[str, Output], settings: Index) -> Outcome:
    bank = inputs["bank"]
    rows = _enrolled(bank, held_out(inputs.get("model")))
    if not rows.num_rows:
        raise UserError(f"{bank.uri} holds no training clips to compare with")
    groups = _groups(rows)
    with TemporaryDirectory() as folder:
        local = Path(folder) / "vectors"
        vectors = _laid_out(bank, rows, local)
        files = [
            attempt.put_file(VECTORS, local, rows.num_rows),
            attempt.put_table(f"{CLIPS}/00000.parquet", rows.select([*GROUP, "clip_id"])),
            *_approximate(attempt, vectors, groups, settings, Path(folder)),
        ]
    return Outcome(files, {"clips": rows.num_rows}, {"dim": int(vectors.shape[1]), "groups": groups})


def held_out(model: Output | None) -> pa.Array:
    """clip_ids that the model's training held out; none for the floor."""
    return pa.array([] if model is None else read_card(model.fetch(CARD)).held_out, pa.string())


def _enrolled(bank: Output, kept_back: pa.Array) -> pa.Table:
    """Keys of the bank's rows in their order, and the ``file`` and ``row`` that each is found at."""
    parts = []
    for number, file in enumerate(bank.files(Folder.EMBEDDINGS)):
        keys = bank.part(file.path, [*GROUP, "clip_id", "split"])
        keys = keys.append_column("file", pa.array(np.full(keys.num_rows, number)))
        keys = keys.append_column("row", pa.array(np.arange(keys.num_rows)))
        parts.append(keys.filter((pc.field("split") == "train") & ~pc.field("clip_id").isin(kept_back)))
    return pa.concat_tables(parts).sort_by([(name, "ascending") for name in (*GROUP, "clip_id")])


def _laid_out(bank: Output, rows: pa.Table, local: Path) -> np.memmap:
    """The vectors of ``rows`` in one mapped file, read from the bank file by file."""
    from ray_asd.scoring.bank import create_vectors

    files, origin = bank.files(Folder.EMBEDDINGS), rows["file"].to_numpy()
    dim = bank.part(files[0].path, ["embedding"]).schema.field("embedding").type.list_size
    vectors = create_vectors(local, rows.num_rows, dim)
    for number, file in enumerate(files):
        places = np.flatnonzero(origin == number)
        if len(places):
            vectors[places] = tables.vectors(bank.part(file.path, ["embedding"]))[rows["row"].to_numpy()[places]]
            vectors.flush()
    return vectors


def _groups(rows: pa.Table) -> list[Group]:
    counted = rows.group_by(list(GROUP)).aggregate([([], "count_all")])
    counted = counted.sort_by([(name, "ascending") for name in GROUP])
    groups, start = [], 0
    for group in counted.to_pylist():
        stop = start + group.pop("count_all")
        groups.append(group | {"start": start, "stop": stop})
        start = stop
    return groups


def _approximate(
    attempt: Attempt, vectors: np.ndarray, groups: Sequence[Group], settings: Index, folder: Path
) -> list[File]:
    """The indexes of groups larger than the settings say; each of these is told its file and its recall."""
    from ray_asd.scoring import knn
    from ray_asd.scoring.bank import Bank

    files: list[File] = []
    for number, group in enumerate(groups):
        rows = vectors[group["start"] : group["stop"]]
        if settings.kind == "exact" or len(rows) <= settings.beyond:
            continue
        proposing = knn.build_approximate(rows, settings)
        knn.save(proposing, folder / "index")
        files.append(attempt.put_file(f"{APPROXIMATE}/{number:05d}.faiss", folder / "index"))
        bank = Bank(rows, [(0, len(rows))])
        bank.attach(0, proposing, settings.refine)
        group |= {"file": files[-1].path, "recall": bank.recall(0, RECALL_NEIGHBOURS)}
    return files

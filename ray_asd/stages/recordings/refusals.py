"""What CLIPS already say against a step that would work on them: refused before anything is decoded."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from ray_asd import tables
from ray_asd.build import Output
from ray_asd.config import Augmentation, Backend
from ray_asd.data import training_set
from ray_asd.data.recordings import Channel
from ray_asd.errors import UserError
from ray_asd.tables import Folder


def channel(clips: Output, wanted: Channel, splits: Sequence[str]) -> None:
    """
    Raises:
        UserError: no clip of these ``splits`` has the ``wanted`` channel.
    """
    most = pc.max(_rows(clips, splits, "channels")["channels"]).as_py()
    if wanted == "mean" or most is None or wanted < most:
        return
    allowed = ", ".join(map(str, [*range(most), "mean"]))
    raise UserError(
        f"audio.channel={wanted}: no clip of {clips.uri} has more than {most} channel(s); allowed: {allowed}"
    )


def conditions(clips: Output, augmentation: Augmentation | None) -> None:
    """
    Raises:
        UserError: a training clip has no condition, or all of them, and their variants, have the same.
    """
    rows = _rows(clips, ["train"], "clip_id", "machine_type", "section", "attributes", "condition")
    training_set.check_conditions(rows)
    found = set(rows["condition"].to_pylist())
    if len(found) == 1 and augmentation:
        from ray_asd.data import augment  # and scipy with it

        policies = augmentation.label_policy.model_dump()
        first = rows.slice(0, 1).to_pylist()[0]
        found |= {
            augment.condition(first, speed, mode, policies[mode]) for speed, mode in augment.variants(augmentation)
        }
    if len(found) < 2:
        raise UserError(
            f"{len(found)} condition in the training clips of {clips.uri}; at least 2 are needed to tell machine types "
            "or attribute values apart; allowed: --model spectral, which needs none, or CLIPS of more conditions"
        )


def neighbours(clips: Output, settings: Backend, splits: Sequence[str]) -> None:
    """
    Raises:
        UserError: no machine type and section has healthy clips enough to compare one of them with the others.
    """
    from ray_asd.scoring import backend  # and faiss with it

    groups = _rows(clips, splits, "machine_type", "section").group_by(["machine_type", "section"])
    sizes = groups.aggregate([([], "count_all")]).sort_by([("count_all", "descending")]).slice(0, 1).to_pylist()
    needed = backend.needed(settings)
    if sizes and sizes[0]["count_all"] < needed:
        largest = sizes[0]
        raise UserError(
            f"scoring.backend with neighbours={settings.neighbours} needs {needed} healthy clips of a machine type and "
            f"section; {clips.uri} has at most {largest['count_all']} (of {largest['machine_type']} section "
            f"{largest['section']}); allowed: more clips, or fewer neighbours"
        )


def _rows(clips: Output, splits: Sequence[str], *columns: str) -> pa.Table:
    table = clips.table(Folder.CLIPS, tables.CLIPS, ["split", *columns])
    return table.filter(pc.is_in(table["split"], pa.array(splits)))

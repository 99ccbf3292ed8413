"""Nights that an earlier version made count among those before a night, as far as they tell."""

from datetime import date
from pathlib import Path

import pyarrow as pa

from ray_asd import build
from ray_asd.build import Attempt, Key, Outcome, Output
from ray_asd.fleet_tables import NIGHTS, SOUNDS, Folder
from ray_asd.stages.fleet.deciding import Past


def night(root: Path, day: date, *lacking: str) -> tuple[date, Output]:
    """One with a row of NIGHTS and of SOUNDS, without some columns."""
    named = {"machine_type": "fan", "section": "00", "night": day, "clips": 1}
    heard = named | {"unscored": 0, "repeated": 0, "contents": "c"}
    scored = named | {"model_digest": "d", "mean": 0.5, "deviations": 0.0, "nearest": ["h"]}

    def work(attempt: Attempt) -> Outcome:
        rows = ((Folder.NIGHTS, scored, NIGHTS), (Folder.SOUNDS, heard, SOUNDS))
        tables = {folder: pa.Table.from_pylist([row], schema) for folder, row, schema in rows}
        return Outcome(
            [
                attempt.put_table(f"{folder}/0.parquet", table.drop_columns([name for name in lacking if name in row]))
                for (folder, table), (_, row, _) in zip(tables.items(), rows, strict=True)
            ],
            {},
        )

    return day, build.run(str(root), Key("night", day.isoformat(), 1, {}, {}), work)


def test_what_an_earlier_version_did_not_write_is_unknown(tmp_path: Path) -> None:
    old, new = night(tmp_path, date(2026, 11, 24), "nearest", "contents"), night(tmp_path, date(2026, 11, 25))
    past = Past([old, new])
    nights, sounds = past.table(Folder.NIGHTS, NIGHTS), past.table(Folder.SOUNDS, SOUNDS)
    assert (nights.schema, sounds.schema) == (NIGHTS, SOUNDS)
    assert nights["nearest"].to_pylist() == [None, ["h"]]
    assert sounds["contents"].to_pylist() == [None, "c"]
    assert Past([old]).table(Folder.NIGHTS, NIGHTS)["nearest"].to_pylist() == [None]

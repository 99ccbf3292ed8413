"""`score --submission` names its files as the year of the clips' layout wants them."""

from pathlib import Path

import pyarrow as pa
import pytest

from ray_asd import build, store, tables
from ray_asd.build import Attempt, Key, Outcome, Output
from ray_asd.cli.console import Result
from ray_asd.cli.detection import _submit

NAMES = {
    "dcase2020": ["anomaly_score_valve_id_03.csv"],
    "dcase2021": ["anomaly_score_valve_section_03_source_test.csv", "anomaly_score_valve_section_03_target_test.csv"],
    "dcase2022": ["anomaly_score_valve_section_03_test.csv"],
    "dcase2025": ["anomaly_score_valve_section_03_test.csv"],
    "csv": ["anomaly_score_valve_section_03_test.csv"],
    "flat": ["anomaly_score_valve_section_03_test.csv"],
}


def output(root: Path, name: str, table: pa.Table | None, summary: dict[str, str]) -> Output:
    def work(attempt: Attempt) -> Outcome:
        files = [attempt.put_table("scores/00000.parquet", table)] if table else []
        return Outcome(files, {}, summary)

    return build.run(str(root), Key("score", name, 1, {}, {}), work)


@pytest.mark.parametrize("layout", NAMES)
def test_names_follow_the_layout(layout: str, tmp_path: Path) -> None:
    columns = {"clip_id": ["d/a.wav", "d/b.wav"], "machine_type": ["valve"] * 2, "section": ["03"] * 2}
    columns |= {"domain": list(tables.DOMAINS), "score": [0.5, 0.25], "decision": [1, 0]}
    table = pa.table({name: pa.array(values, tables.SCORES.field(name).type) for name, values in columns.items()})
    scores, clips = output(tmp_path, "s", table, {}), output(tmp_path, "c", None, {"layout": layout})
    _submit(scores, clips, str(tmp_path / "out"), result := Result())
    decisions = (
        [] if layout == "dcase2020" else [name.replace("anomaly_score", "decision_result") for name in NAMES[layout]]
    )
    assert store.files(str(tmp_path / "out")) == sorted([*NAMES[layout], *decisions])
    assert result.outputs == {"submission": str(tmp_path / "out")}

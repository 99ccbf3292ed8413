"""The paper's table, and when it may stand beside ours."""

import pytest

from made_up import clips, recipe
from ray_asd.report import paper
from ray_asd.report.rows import Parts


def test_all_rows_are_there_and_find_their_systems() -> None:
    rows = paper.table()
    assert [row.system for row in rows[:3]] == ["AutoEncoder", "MobileNet", "wav2vec2"]
    assert len(rows) == 18
    best = max(rows, key=lambda row: row.score)
    assert (best.system, best.switches, best.score) == ("wav2vec2", (True, True, True), pytest.approx(0.6431))
    ours = Parts.of(recipe("wav2vec2", ws=True, sa=True, tfp=True))
    assert [row for row in rows if row.is_of(ours)] == [best]
    baseline = Parts.of(recipe("hubert", method="mobilenet"))
    assert [row.system for row in rows if row.is_of(baseline)] == ["MobileNet"]
    assert not [row for row in rows if row.is_of(Parts.of(recipe("hubert", ws=False, sa=True)))]


def test_only_the_papers_recordings_are_its_data(tmp_path_factory: pytest.TempPathFactory) -> None:
    def judged(**changes: object) -> bool:
        data = {"dataset": paper.DATASET, "machines": paper.MACHINES, "count": 1000} | changes
        return paper.is_its_data(clips(str(tmp_path_factory.mktemp("root")), **data))  # type: ignore[arg-type]

    assert judged()
    assert not judged(dataset="fleet")
    assert not judged(count=995)
    assert not judged(machines=(*paper.MACHINES[:-1], "pump"))

"""METRICS: the official figures, with the floor always among them."""

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ray_asd import tables
from ray_asd.build import Output, steps
from ray_asd.config import Scoring
from ray_asd.data import audio
from ray_asd.engine.progress import silent
from ray_asd.errors import UserError
from ray_asd.scoring import bootstrap, metrics
from ray_asd.stages.comparison import evaluate
from ray_asd.stages.detection import score
from ray_asd.tables import Folder
from stages import chain

OFFICIAL = Path(__file__).parents[2] / "scoring" / "official_evaluator"
SYSTEM, FLOOR = chain.RECIPE.system, score.FLOOR_SYSTEM


def floor_of(output: Output) -> Output:
    (name,) = (name for name in output.marker.inputs if name.startswith("floor"))
    return chain.parent(output, name)


def test_figures_are_the_official_ones_and_the_floor_is_there(system: chain.Chain) -> None:
    table = system.metrics.table(Folder.METRICS)
    assert table.schema.equals(tables.METRICS)
    floor = floor_of(system.metrics)
    expected = [
        metrics.evaluate(system.scores.table(Folder.SCORES), SYSTEM, 0),
        metrics.evaluate(floor.table(Folder.SCORES), FLOOR, None),
    ]
    assert table.to_pylist() == pa.concat_tables(expected).to_pylist()
    summaries = system.metrics.marker.summary["systems"]
    for figures, output, summary in zip(expected, (system.scores, floor), summaries, strict=True):
        low, high = bootstrap.interval(output.table(Folder.SCORES), evaluate.RESAMPLES, level=evaluate.LEVEL)
        assert summary["score"] == metrics.official_score(figures)
        assert (summary["low"], summary["high"]) == (low, high)
    assert system.metrics.marker.counts == {"systems": 2, "sections": 4}
    assert [file.path for file in system.metrics.files("official")] == ["official/00.csv", "official/01.csv"]


def test_the_floor_is_of_the_same_clips_bank_and_settings(system: chain.Chain) -> None:
    floor = floor_of(system.metrics)
    assert floor.marker.config == system.scores.marker.config
    for name in ("queries", "bank"):
        inputs = [chain.parent(scores, name).marker.inputs["clips"] for scores in (floor, system.scores)]
        assert inputs[0] == inputs[1]


def test_several_systems_share_one_floor(system: chain.Chain) -> None:
    without_pooling = chain.scored(system.base, system.clips, system.root)
    output = steps.ensure(evaluate.step([system.scores, without_pooling], silent), system.root)
    names = [summary["system"] for summary in output.marker.summary["systems"]]
    assert sorted(names) == sorted([SYSTEM, SYSTEM.replace("+TFP", ""), FLOOR])
    assert steps.ensure(evaluate.step([floor_of(output)], silent), system.root).marker.counts["systems"] == 1
    three = chain.RECIPE.model_copy(update={"scoring": Scoring(neighbours=3)})
    other_settings = chain.scored(system.model, system.clips, system.root, three)
    with pytest.raises(
        UserError, match=r"two of the SCORES are of .* with seed 0; one METRICS table takes one of each"
    ):
        steps.ensure(evaluate.step([system.scores, other_settings], silent), system.root)


def test_the_systems_behind_metrics_are_those_with_an_all_machine_figure(system: chain.Chain) -> None:
    floor = floor_of(system.metrics)
    found = [(name, scores.uri) for name, scores in evaluate.systems(system.metrics)]
    assert found == [(SYSTEM, system.scores.uri), (FLOOR, floor.uri)]
    ours, floors = system.metrics.marker.summary["systems"]
    without = system.metrics.marker.model_copy(update={"summary": {"systems": [ours | {"score": None}, floors]}})
    left = [name for name, _ in evaluate.systems(Output(system.metrics.uri, without))]
    assert left == [FLOOR]


def test_a_variant_stands_behind_the_names_of_systems_only(system: chain.Chain) -> None:
    floors = {evaluate.floor_name(system.clips, system.clips): floor_of(system.metrics)}
    step = evaluate.planned("varied", [system.scores], floors, 1, " [x=1]")
    varied = steps.ensure(step, system.root)
    names = [summary["system"] for summary in varied.marker.summary["systems"]]
    assert names == [f"{SYSTEM} [x=1]", FLOOR]
    assert [name for name, _ in evaluate.systems(varied)] == names
    assert steps.ensure(evaluate.planned("varied", [system.scores], floors, 1), system.root).uri != varied.uri


def test_a_submission_folder_has_the_official_score(tmp_path: Path) -> None:
    step = evaluate.submission_step(str(OFFICIAL / "scores"), str(OFFICIAL))
    output = steps.ensure(step, str(tmp_path))
    with (OFFICIAL / "expected_result.csv").open(newline="") as file:
        (expected,) = (float(row[2]) for row in csv.reader(file) if row and row[0] == "official score")
    (summary,) = output.marker.summary["systems"]
    assert (summary["system"], summary["seed"]) == ("scores", None)
    assert summary["score"] == pytest.approx(expected, rel=1e-12)
    assert summary["low"] < expected < summary["high"]
    assert output.marker.counts == {"systems": 1, "sections": 7}
    written = list(csv.reader(output.read("official/00.csv").decode().splitlines()))
    assert float(written[-1][2]) == summary["score"]
    assert steps.ensure(step, str(tmp_path)).reused


def test_the_protocol_of_another_year_is_named_and_counts(tmp_path: Path) -> None:
    official = steps.ensure(evaluate.submission_step(str(OFFICIAL / "scores"), str(OFFICIAL)), str(tmp_path))
    step = evaluate.submission_step(str(OFFICIAL / "scores"), str(OFFICIAL), "dcase2021")
    output = steps.ensure(step, str(tmp_path))
    assert output.uri != official.uri
    assert set(output.table(Folder.METRICS)["protocol"].to_pylist()) == {"dcase2021"}
    (summary,), (auto,) = output.marker.summary["systems"], official.marker.summary["systems"]
    assert (summary["protocol"], auto["protocol"]) == ("dcase2021", "dcase2023")
    assert summary["score"] == metrics.official_score(output.table(Folder.METRICS)) != auto["score"]
    assert summary["low"] < summary["score"] < summary["high"]


def test_a_protocol_that_does_not_fit_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown protocol 'dcase1999'; allowed: auto, dcase2020, dcase2021, dcase2023"):
        evaluate.submission_step(str(OFFICIAL / "scores"), str(OFFICIAL), "dcase1999")
    step = evaluate.submission_step(str(OFFICIAL / "scores"), str(OFFICIAL), "dcase2020")
    with pytest.raises(UserError, match="^ToyCar section 00: protocol dcase2020 on clips with domains; allowed") as no:
        steps.ensure(step, str(tmp_path))
    assert "\n" not in str(no.value)


@pytest.mark.usefixtures("ray_session")
def test_clips_without_labels_cannot_be_judged(tmp_path: Path) -> None:
    source, rng = tmp_path / "new", np.random.default_rng(0)
    names = [f"fan/train/section_00_source_train_normal_{number:04d}.wav" for number in range(4)]
    for name in [*names, "fan/test/section_00_0001.wav", "fan/test/section_00_0002.wav"]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(audio.encode_wav(rng.uniform(-0.5, 0.5, 16_000), 16_000))
    root = str(tmp_path / "root")
    scores = chain.scored(None, chain.ingested(str(source), root), root)
    assert scores.table(Folder.SCORES)["label"].null_count == 2
    with pytest.raises(UserError, match=r"^fan section 00: 0 normal, 0 anomaly, 2 unlabelled clips; both labels"):
        steps.ensure(evaluate.step([scores], silent), root)

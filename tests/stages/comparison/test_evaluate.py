"""METRICS: the official figures, with the baseline always among them."""

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from official_years import YEARS
from ray_asd import report, tables
from ray_asd.build import Output, steps
from ray_asd.data import audio
from ray_asd.engine.progress import silent
from ray_asd.errors import UserError
from ray_asd.scoring import bootstrap, comparison, metrics
from ray_asd.stages.comparison import evaluate
from ray_asd.stages.detection import detector
from ray_asd.tables import Folder
from stages import chain

OFFICIAL = Path(__file__).parents[2] / "scoring" / "official_evaluator"
SYSTEM, BASELINE = chain.RECIPE.system, "spectral"


def baseline_of(output: Output) -> Output:
    (name,) = (name for name in output.marker.inputs if name.startswith("baseline"))
    return chain.parent(output, name)


def test_figures_are_the_official_ones_and_the_baseline_is_there(system: chain.Chain) -> None:
    table = system.metrics.table(Folder.METRICS)
    assert table.schema.equals(tables.METRICS)
    baseline = baseline_of(system.metrics)
    expected = [
        metrics.evaluate(system.scores.table(Folder.SCORES), SYSTEM, 0),
        metrics.evaluate(baseline.table(Folder.SCORES), BASELINE, 0),
    ]
    assert table.to_pylist() == pa.concat_tables(expected).to_pylist()
    summaries = system.metrics.marker.summary["systems"]
    for figures, output, summary in zip(expected, (system.scores, baseline), summaries, strict=True):
        low, high = bootstrap.interval(output.table(Folder.SCORES), evaluate.RESAMPLES, level=evaluate.LEVEL)
        assert summary["score"] == metrics.official_score(figures)
        assert (summary["low"], summary["high"]) == (low, high)
    both = {SYSTEM: {0: system.scores.table(Folder.SCORES)}, BASELINE: {0: baseline.table(Folder.SCORES)}}
    (pair,) = comparison.compare(both, evaluate.RESAMPLES, level=evaluate.LEVEL).pairs.to_pylist()
    against = {"system": BASELINE, "seed": 0, **{name: pair[name] for name in ("difference", "low", "high")}}
    assert [summary.get("against") for summary in summaries] == [against, None]
    assert system.metrics.marker.counts == {"systems": 2, "sections": 4}
    assert [file.path for file in system.metrics.files("official")] == ["official/00.csv", "official/01.csv"]


def test_the_baseline_is_of_the_same_clips_and_bank(system: chain.Chain) -> None:
    baseline = baseline_of(system.metrics)
    assert baseline.marker.inputs["clips"] == system.scores.marker.inputs["clips"]
    assert baseline.marker.summary["seed"] == 0, "whose training held out what is not in its bank"
    banks = []
    for scores in (baseline, system.scores):
        healthy = chain.parent(scores, "detector").table("members/0/healthy")
        banks.append([(row["clip_id"], row["role"] == "unseen") for row in healthy.to_pylist()])
    assert banks[0] == banks[1]
    assert sum(unseen for _, unseen in banks[0]) == 4


def test_systems_and_baselines_that_are_asked_for(system: chain.Chain) -> None:
    spectral = chain.scored(chain.spectral(system.clips, system.root), system.clips, system.root)
    step = evaluate.step([system.scores, spectral], silent, names=["log-mel"])
    output = steps.ensure(step, system.root)
    found = [(summary["system"], summary["seed"]) for summary in output.marker.summary["systems"]]
    assert found == [(SYSTEM, 0), ("spectral", None), ("log-mel", 0), ("log-mel", None)]
    against = [summary.get("against", {}).get("seed", "none") for summary in output.marker.summary["systems"]]
    assert against == [0, None, "none", "none"]
    other = chain.spectral(system.clips, system.root, "scoring.backend.neighbours=3")
    assert detector.read(other).system == "spectral [neighbours=3]"
    with pytest.raises(UserError, match=r"two of the SCORES are of spectral with seed None; one METRICS table takes"):
        steps.ensure(evaluate.planned("twice", [spectral, _again(spectral)], [], 1), system.root)


def _again(scores: Output) -> Output:
    return Output(scores.uri, scores.marker.model_copy(update={"digest": "0" * 64, "content": "1" * 64}))


def test_the_systems_behind_metrics_are_those_with_an_all_machine_figure(system: chain.Chain) -> None:
    baseline = baseline_of(system.metrics)
    found = [(name, scores.uri) for name, scores in evaluate.systems(system.metrics)]
    assert found == [(SYSTEM, system.scores.uri), (BASELINE, baseline.uri)]
    ours, baselines = system.metrics.marker.summary["systems"]
    without = system.metrics.marker.model_copy(update={"summary": {"systems": [ours | {"score": None}, baselines]}})
    left = [name for name, _ in evaluate.systems(Output(system.metrics.uri, without))]
    assert left == [BASELINE]


def test_a_variant_stands_behind_the_names_of_systems_only(system: chain.Chain) -> None:
    baselines = [baseline_of(system.metrics)]
    step = evaluate.planned("varied", [system.scores], baselines, 1, " [x=1]")
    varied = steps.ensure(step, system.root)
    names = [summary["system"] for summary in varied.marker.summary["systems"]]
    assert names == [f"{SYSTEM} [x=1]", BASELINE]
    assert [name for name, _ in evaluate.systems(varied)] == names
    assert steps.ensure(evaluate.planned("varied", [system.scores], baselines, 1), system.root).uri != varied.uri


def test_a_submission_folder_has_the_official_score(tmp_path: Path) -> None:
    step = evaluate.submission_step(str(OFFICIAL / "scores"), str(OFFICIAL))
    output = steps.ensure(step, str(tmp_path))
    with (OFFICIAL / "expected_result.csv").open(newline="") as file:
        (expected,) = (float(row[2]) for row in csv.reader(file) if row and row[0] == "official score")
    (summary,) = output.marker.summary["systems"]
    assert (summary["system"], summary["seed"]) == ("scores", None)
    assert "against" not in summary
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
    clips = chain.ingested(str(source), root)
    scores = chain.scored(chain.spectral(clips, root), clips, root)
    assert scores.table(Folder.SCORES)["label"].null_count == 2
    step = evaluate.step([scores], silent)
    with pytest.raises(UserError, match=r"^fan section 00: 0 normal, 0 anomaly, 2 unlabelled clips; both labels"):
        steps.check(steps.plan(step, root))  # before the baselines beside it are scored


def test_a_machine_without_anomalies_costs_the_all_machine_figure_alone(tmp_path: Path) -> None:
    YEARS["2023"][0](tmp_path)
    truth = tmp_path / "ground_truth_data" / "ground_truth_grinder_section_00_test.csv"
    truth.write_text(truth.read_text().replace(",1\n", ",0\n"))
    output = steps.ensure(evaluate.submission_step(str(tmp_path / "teams"), str(tmp_path)), str(tmp_path / "root"))
    (summary,) = output.marker.summary["systems"]
    why = "grinder section 00: 16 normal, 0 anomaly, 0 unlabelled clips; both labels are needed on all"
    assert (summary["score"], summary["why"]) == (None, why)
    assert output.table(Folder.METRICS)["machine_type"].to_pylist() == ["Vacuum"]
    assert f"we/one: no all-machine figure: {why}" in report.overview_of([output])

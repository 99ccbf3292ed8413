"""The command line: its help, the whole flow at toy size, what a rerun and a changed setting cost, every refusal."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import huggingface_hub.constants
import numpy as np
import pytest
import ray

from commands import Run, run
from ray_asd import __version__, build, cli, report, store
from ray_asd.build import archive
from ray_asd.cli import pages
from ray_asd.data import audio
from ray_asd.errors import StageError
from ray_asd.stages.recordings import ingest

COMMANDS = sorted(cli.cli.commands)
SUMMARY = ["command", "status", "outputs", "counts", "seconds", "reused"]
FLEET = ["--machines", "fan", "--train", "18", "--train-target", "2", "--test", "3", "--seconds", "2"]
SETTINGS = {
    "training": "{steps: 4, batch_size: 8, workers: 1}",
    "augmentation": "{speeds: [0.9], modes: [resample]}",
    "transformer_pooling": "null",
    "embedding.dim": "32",
}
TINY = ["--recipe", "tiny", *(part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}"))]


def done(*arguments: str) -> Run:
    result = run(*arguments, "--json")
    assert result.code == 0, result.err
    return result


def folders(root: str) -> dict[str, set[str]]:
    """The stage folders below a root, by stage."""
    return {stage: set(store.folders(f"{root}/{stage}")) for stage in store.folders(root) if stage != "status"}


def new(root: str, before: dict[str, set[str]]) -> dict[str, int]:
    """How many folders each stage has got since."""
    grown = {stage: len(names - before.get(stage, set())) for stage, names in folders(root).items()}
    return {stage: count for stage, count in grown.items() if count}


@dataclass(frozen=True)
class Flow:
    """The documented commands one after the other, each fed with what the ones before it said."""

    root: str
    fleet: str
    runs: dict[str, Run]
    arguments: dict[str, list[str]]

    def uri(self, name: str) -> str:
        """What a command wrote: clips, model, embeddings, detector, scores or metrics."""
        return next(uri for run in self.runs.values() if (uri := run.summary["outputs"].get(name)))


@pytest.fixture(scope="module")
def flow(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Flow:
    folder = tmp_path_factory.mktemp("flow")
    root, fleet = str(folder / "runs"), str(folder / "fleet")
    made = Flow(root, fleet, {}, {})

    def call(name: str, *arguments: str) -> None:
        made.arguments[name] = [name, *arguments]
        made.runs[name] = done(name, *arguments)

    call("simulate", fleet, *FLEET)
    call("ingest", fleet, "--out", root)
    call("train", *TINY, "--clips", made.uri("clips"), "--out", root)
    used = ["--model", made.uri("model"), "--clips", made.uri("clips"), "--out", root]
    call("embed", *used)
    call("enroll", "--model", "spectral", *used[2:])
    given = ["--detector", made.uri("detector"), "--max-unscored", "0"]
    call("score", *given, *used[2:], "--submission", str(folder / "submission"))
    call("evaluate", "--scores", made.uri("scores"), "--out", root, "--baseline", "log-mel")
    call("report", "--runs", root, "--out", str(folder / "report"))
    call("ls", root)
    call("show", made.uri("scores"))
    call("gc", root, "--dry-run")
    return made


def test_a_report_on_a_cluster_is_the_same(flow: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pages are a task where all nodes see them; elsewhere only this process could write them."""
    here, shared = tmp_path / "report", Path(flow.root, "report")
    done("report", "--runs", flow.root, "--out", str(here))
    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    monkeypatch.setattr(pages.Pages, "__call__", lambda *given: pytest.fail("done by the driver"))
    done("report", "--runs", flow.root, "--out", str(shared))
    contents = [
        {str(file.relative_to(place)): file.read_bytes() for file in place.rglob("*.*")} for place in (here, shared)
    ]
    assert contents[0] == contents[1]
    assert contents[0]["report.md"]
    shutil.rmtree(shared)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example_that_parses(name: str) -> None:
    text = run(name, "--help").out
    examples = [line for line in text.splitlines() if "Example: " in line]
    assert len(examples) == 1, "on one line, to be copied"
    words = shlex.split(examples[0].partition("Example: ")[2])
    assert words[:2] == ["ray-asd", name]
    command = cli.cli.commands[name]
    command.make_context(name, words[2:])
    assert command.help
    undocumented = [option.name for option in command.params if isinstance(option, click.Option) and not option.help]
    assert undocumented in ([], ["seed"])


def test_help_lists_the_commands_in_order_of_use() -> None:
    listed = run("--help").out.partition("Commands:")[2]
    assert [line.split()[0] for line in listed.strip().splitlines()] == list(cli.cli.commands)
    assert run("--version").out == f"ray-asd, version {__version__}\n"


def test_every_command_can_speak_to_a_machine() -> None:
    assert [name for name in COMMANDS if "--json" not in run(name, "--help").out] == []


def test_the_flow_ends_in_a_table_with_the_baseline(flow: Flow) -> None:
    assert {name: run.summary["status"] for name, run in flow.runs.items()} == dict.fromkeys(flow.runs, "done")
    for name, finished in flow.runs.items():
        assert list(finished.summary) == SUMMARY
        assert finished.summary["command"] == name
        assert finished.summary["reused"] is False
        assert finished.summary["seconds"] >= 0
    clips = 18 + 2 + 4 * 3
    assert flow.runs["simulate"].summary["counts"] == {"clips": clips}
    assert flow.runs["ingest"].summary["counts"]["clips"] == clips
    assert flow.runs["ingest"].summary["counts"]["rejects"] == 0
    assert flow.runs["embed"].summary["counts"] == {"clips": clips, "unscored": 0}
    assert flow.runs["enroll"].summary["counts"]["calibration"] == 20
    counts = flow.runs["score"].summary["counts"]
    assert (counts["clips"], counts["unscored"], counts["decided"]) == (12, 0, 12)
    assert flow.runs["evaluate"].summary["counts"] == {"systems": 2, "sections": 2}
    assert "| spectral " in flow.runs["evaluate"].err
    assert "| log-mel " in flow.runs["evaluate"].err
    text = Path(flow.runs["report"].summary["outputs"]["markdown"]).read_text()
    table = report.overview_of([archive.find(flow.uri("metrics"))])
    assert table in text
    assert table in flow.runs["evaluate"].err


def test_what_a_command_names_is_there(flow: Flow) -> None:
    for finished in flow.runs.values():
        assert [uri for uri in finished.summary["outputs"].values() if not store.exists(uri)] == []
    submission = Path(flow.runs["score"].summary["outputs"]["submission"])
    names = [f"{what}_fan_section_00_test.csv" for what in ("anomaly_score", "decision_result")]
    assert store.files(str(submission)) == names
    assert [len((submission / name).read_text().splitlines()) for name in names] == [12, 12]
    listed = flow.runs["ls"].summary["outputs"]
    assert sorted(listed) == sorted(f"{stage}/{name}" for stage, found in folders(flow.root).items() for name in found)
    origins = set(flow.runs["show"].summary["outputs"].values())
    assert {flow.uri(name) for name in ("clips", "detector", "scores")} <= origins
    assert json.loads(flow.runs["show"].out.rpartition("\n{")[0])["stage"] == "score"


def test_the_summary_is_kept_below_the_root(flow: Flow) -> None:
    names = store.files(f"{flow.root}/status")
    for command in ("ingest", "train", "embed", "enroll", "score", "evaluate"):
        kept = [name for name in names if name.startswith(f"{command}-")]
        record = json.loads(store.read(f"{flow.root}/status/{kept[0]}"))
        assert record.items() >= flow.runs[command].summary.items()


def test_lists_are_also_for_people(flow: Flow) -> None:
    lines = run("ls", flow.root).out.splitlines()
    assert len(lines) == len(flow.runs["ls"].summary["outputs"])
    assert f" s  {flow.uri('clips')}  clips 32, decoded 32, rejects 0, " in lines[0]
    shown = run("show", flow.uri("scores"))
    assert json.loads(shown.out)["name"] == "spectral"
    assert shown.err.startswith("from 1: ")
    again = run(*flow.arguments["score"])
    assert f"scores: {flow.uri('scores')}\n" in again.out
    assert "clips 12, decided 12, unscored 0\nnothing to do: the output was already there\n" in again.out


STAGES = ("ingest", "train", "embed", "enroll", "score", "evaluate")


@pytest.mark.parametrize("name", [*STAGES, "report", "ls", "show", "gc"])
def test_a_rerun_needs_neither_ray_nor_torch(flow: Flow, name: str) -> None:
    program = (
        "import sys; from ray_asd import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit as ended: code = ended.code\n"
        "sys.exit(code or sorted({'ray', 'torch', 'transformers', 'faiss'} & set(sys.modules)) or 0)"
    )
    command = [sys.executable, "-c", program, *flow.arguments[name], "--json"]
    before = folders(flow.root)
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    first, second = flow.runs[name].summary, json.loads(finished.stdout.splitlines()[-1])
    assert second["reused"] is (name in STAGES)
    assert (second["outputs"], second["counts"]) == (first["outputs"], first["counts"])
    assert folders(flow.root) == before


def test_a_rerun_says_what_the_marker_says(flow: Flow) -> None:
    place = f"{flow.uri('clips')}/{build.MARKER}"
    marker = store.read(place)
    store.write(place, marker.replace(b'"rejects": 0', b'"rejects": 7'))
    try:
        gated = run(*flow.arguments["ingest"], "--max-rejects", "6", "--json")
    finally:
        store.write(place, marker)
    assert gated.code == 3
    assert gated.summary["counts"]["rejects"] == 7
    assert gated.summary["status"] == "gate"
    assert gated.summary["error"] == "7 files were rejected; --max-rejects allows 6"
    assert gated.complaint == "ray-asd: 7 files were rejected; --max-rejects allows 6"


def test_a_changed_setting_costs_what_depends_on_it(flow: Flow) -> None:
    before = folders(flow.root)
    done(*flow.arguments["enroll"], "--set", "scoring.backend.neighbours=1")
    assert new(flow.root, before) == {"enroll": 1}
    before = folders(flow.root)
    by_name = done("score", "--model", "spectral", *flow.arguments["score"][-6:-2])
    assert new(flow.root, before) == {}, "the detector and its scores were there"
    assert by_name.summary["outputs"]["scores"] == flow.uri("scores")
    assert done(*flow.arguments["train"], "--set", "training.checkpoint_every=1").summary["reused"]
    assert new(flow.root, before) == {}


def test_scores_that_nobody_can_decide_on_say_so_first(flow: Flow) -> None:
    """The model's training kept three clips, which are no calibration set."""
    used = ["--model", flow.uri("model"), "--clips", flow.uri("clips"), "--out", flow.root]
    for _ in range(2):
        gated = run("score", *used)
        why = "calibration: 3 normal clips; quantile at a false positive rate of 0.1 needs 20"
        first = f"ray-asd: no clip was decided on, for no threshold could be set: {why}"
        assert (gated.code, [line for line in gated.err.splitlines() if line.startswith("ray-asd")]) == (3, [first])
    submission = ["--submission", str(Path(flow.root).with_name("undecided"))]
    told = "no decision_result_fan_section_00_test.csv: without a threshold there are no decisions"
    assert told in run("score", *used, *submission).err


def test_a_dry_run_tells_and_does_nothing(flow: Flow) -> None:
    before, status = folders(flow.root), store.files(f"{flow.root}/status")
    told = run(*flow.arguments["train"], "--set", "seed=2", "--dry-run", "--json")
    assert told.code == 0
    *plan, summary = told.out.splitlines()
    assert [line.split()[0] for line in plan] == ["done", "done", "to"]
    assert all("/augment/" in line for line in plan[:2])
    assert "/train/hubert-WS-SA-seed2-" in plan[2]
    assert "4 units, 1 worker(s) of 1 CPU, 0 GPU" in plan[2]
    assert plan[2].endswith("no estimate: none of its kind has run below this root")
    assert json.loads(summary)["outputs"] == {}
    again = run(*flow.arguments["train"], "--set", "training.weight_decay=0.5", "--dry-run").out.splitlines()[-1]
    assert again.startswith("to do ")
    assert again.endswith(" h, 0.00 GPU-hours")
    assert run(*flow.arguments["ingest"], "--dry-run").out == f"done   {flow.uri('clips')}\n"
    assert (folders(flow.root), store.files(f"{flow.root}/status")) == (before, status)


def test_gc_removes_what_the_kept_do_not_need(flow: Flow, tmp_path: Path) -> None:
    root = str(tmp_path / "runs")
    clips = done("ingest", flow.fleet, "--out", root).summary["outputs"]["clips"]
    other = done("ingest", flow.fleet, "--out", root, "--dataset", "other").summary["outputs"]["clips"]
    arguments = ["gc", root, "--keep", clips, "--older-than", "0"]
    dry = done(*arguments, "--dry-run")
    assert dry.summary["counts"] == {"removed": 0, "found": 1}
    assert dry.err == f"would remove {other}: not needed by what is kept\n"
    assert done(*arguments).summary["counts"] == {"removed": 1, "found": 1}
    assert [store.exists(uri) for uri in (clips, other)] == [True, False]


def test_a_failure_is_one_line_an_exit_code_and_a_status(
    flow: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise StageError("the disk\nis full")

    monkeypatch.setattr(ingest, "_work", fail)
    root = str(tmp_path / "runs")
    failed = run("ingest", flow.fleet, "--out", root, "--json")
    assert failed.code == 1
    assert failed.complaint == "ray-asd: the disk is full"
    assert list(failed.summary) == [*SUMMARY, "error"]
    assert failed.summary["status"] == "failed"
    (kept,) = store.files(f"{root}/status")
    record = json.loads(store.read(f"{root}/status/{kept}"))
    assert record.items() >= failed.summary.items()
    assert record["exit_code"] == 1
    assert "the disk" in record["traceback"]


REFUSED = {
    "unknown command": ("nonsense", "No such command 'nonsense'"),
    "unknown option": ("train --epochs 3", "No such option"),
    "missing option": ("train --recipe tiny --out {root}", "Missing option '--clips'"),
    "unknown recipe": (
        "train --recipe big --clips {clips} --out {root}",
        "unknown recipe 'big'; allowed: frozen, paper, release, tiny",
    ),
    "missing recipe file": ("train --recipe my.yaml --clips {clips} --out {root}", "no recipe file 'my.yaml'"),
    "unknown key": ("{train} --set training.epochs=3", "unknown key 'training.epochs'; allowed: steps, batch_size"),
    "bad value": ("{train} --set training.steps=many", "training.steps: 'many': Input should be a valid integer"),
    "negative value": ("{train} --set training.steps=-1", "training.steps: -1: Input should be greater than"),
    "bad word": ("{train} --set backbone.family=bert", "backbone.family: 'bert': Input should be 'wav2vec2', "),
    "combination": ("{train} --set training.workers=3", "batch_size 8 is not a multiple of workers 3"),
    "no value": ("{train} --set seed", "--set 'seed' is not of the form key=value"),
    "no weights": ("{train} --set backbone.source=/nonexistent", "/nonexistent: no config.json"),
    "no hub": ("{train} --set backbone.source=null", "facebook/hubert-base-ls960: not found on the Hugging Face hub"),
    "random size": ("{train} --set backbone.source=random:huge", "unknown random size 'huge'; allowed: tiny, small"),
    "absent clips": (
        "train --recipe tiny --clips {root}/x --out {root}",
        "/x holds no finished stage (no marker.json)",
    ),
    "model as clips": ("train --recipe tiny --clips {model} --out {root}", "the output of 'train'; allowed: ingest"),
    "no bucket": ("ingest s3://no-such-bucket-here/x --out {root}", "s3://no-such-bucket-here: no such bucket"),
    "no bucket to write": (
        "ingest {fleet} --out s3://no-such-bucket-here/x",
        "s3://no-such-bucket-here: no such bucket",
    ),
    "scheme": ("ingest gs://bucket/x --out {root}", "unknown scheme 'gs://'; allowed: s3://bucket/key, a local path"),
    "layout": ("ingest {fleet} --out {root} --layout dcase1999", "unknown layout 'dcase1999'; allowed: auto, "),
    "pattern": ("ingest {fleet} --out {root} --pattern {{machine_id}}/*.mp3", "it ends like no recording; allowed: .w"),
    "no source": (
        "ingest {fleet}/none --out {root}",
        "/none: nothing is there; allowed: a folder, a zip file or a CSV file",
    ),
    "empty source": ("ingest {empty} --out {root}", "no layout"),
    "split": ("ingest {fleet} --out {root} --split exam", "'exam' is not one of 'train', 'calibration', 'test'"),
    "no resource": (
        "ingest {fleet} --out {root} --set a=1",
        "--set a=1: no recipe is used; allowed: resources",
    ),
    "rejects": ("ingest {fleet} --out {root} --max-rejects -1", "'--max-rejects': -1 is not in the range x>=0"),
    "clips as model": ("embed --model {clips} --clips {clips} --out {root}", "'ingest'; allowed: train, tfp"),
    "absent model": (
        "embed --model {root}/x --clips {clips} --out {root}",
        "allowed: the URI of a train or tfp output",
    ),
    "new training": (
        "{score} --set training.steps=9",
        "unknown key 'training'; allowed: inference, scoring, resources",
    ),
    "threshold": ("{score} --set scoring.threshold.method=manual", "threshold.value belongs to method manual"),
    "back-end": ("{score} --set scoring.backend=best", "unknown back-end; allowed: paper, or a mapping of settings"),
    "index": ("{score} --set scoring.index.kind=ivf", "index.kind 'ivf' needs scoring.backend paper; allowed: exact"),
    "detector's settings": ("{given} --set scoring.backend=paper", "says how it scores; allowed: resources.KEY=VALUE"),
    "detector and model": ("{given} --model spectral", "--detector has its models and its bank; leave --model"),
    "neither": ("score --clips {clips} --out {root}", "--detector or --model is needed: an output of enroll, or of"),
    "unscored below nothing": (
        "{given} --max-unscored -1%",
        "--max-unscored '-1%'; allowed: a number of clips",
    ),
    "unscored without end": (
        "{given} --max-unscored inf%",
        "--max-unscored 'inf%'; allowed: a number of clips such as",
    ),
    "unscored": ("{given} --max-unscored many", "--max-unscored 'many'; allowed: a number of clips such as 0, or a s"),
    "nothing to enrol": ("enroll --model spectral --out {root}", "--model and --clips are needed, or --detector with"),
    "enrolled twice": ("enroll --model spectral --model spectral --clips {clips} --out {root}", "stands there twice"),
    "add to nothing": ("enroll --add {clips} --out {root}", "--detector goes with --add, --withdraw or both"),
    "extended otherwise": (
        "enroll --detector {detector} --add {clips} --model spectral --out {root}",
        "--detector says which models it has and how they are used; leave --model, --clips and --recipe",
    ),
    "not enrolled": (
        "enroll --detector {detector} --withdraw {stranger} --out {root}",
        "holds no clip 'stranger'; allowed: clip_ids of its 20 healthy clips",
    ),
    "withdrawn in Latin-1": (
        "enroll --detector {detector} --withdraw {latin} --out {root}",
        "/latin.txt: line 2 is not UTF-8; allowed: text in UTF-8",
    ),
    "scores as detector": ("score --detector {scores} --clips {clips} --out {root}", "'score'; allowed: enroll"),
    "bank": ("{score} --bank {scores}", "the output of 'score'; allowed: ingest"),
    "two with truth": (
        "evaluate --scores a --scores b --truth c --out {root}",
        "--truth goes with one --scores folder",
    ),
    "no truth": ("evaluate --scores {submission} --truth {empty} --out {root}", "no ground truth"),
    "no scores": ("evaluate --scores {clips} --out {root}", "the output of 'ingest'; allowed: score"),
    "no metrics": ("report --runs {empty} --out {root}", "/empty holds no METRICS; run `ray-asd evaluate` first"),
    "grid": ("{sweep} --grid huge", "unknown grid 'huge'; allowed: full, paper, a path ending in .yaml"),
    "seeds": ("{sweep} --seeds 0,one", "--seeds '0,one': whole numbers with commas between them are needed, e.g. 0,1"),
    "same seeds": ("{sweep} --seeds 1,1", "grid paper: AutoEncoder (MSE) seed 1 stands there more than once"),
    "sweep of scores": ("sweep --recipe tiny --clips {scores} --out {root}", "'score'; allowed: ingest"),
    "too large": ("{sweep} --set resources.train.cpus=99", " needs 1 x (99 CPU); the cluster has 1 node of 2 CPU"),
    "method": ("{train} --set method=forest", "method: 'forest': Input should be 'backbone', 'autoencoder' or"),
    "machine": ("simulate {root} --machines fan,pump", "unknown machine"),
    "negative": ("simulate {root} --train -5", "-5"),
    "units": ("simulate {root} --units 0", "units 0: allowed: 1 to 100000"),
    "plant and data set": (
        "simulate {root} --units 3 --train 5",
        "--train is a setting of a data set without --units; allowed here: --units, --nights, ",
    ),
    "data set and plant": (
        "simulate {root} --enrol-nights 3",
        "--enrol-nights is a setting of a plant, with --units; a",
    ),
    "short": ("simulate {root} --seconds 0", "0"),
    "seed": ("demo --out {root} --seed -1", "seed: -1"),
    "no root": ("ls {root}", "/root: no such folder; allowed: a ROOT that earlier commands wrote to"),
    "nothing to collect": ("gc {root}", "/root: no such folder"),
    "negative age": ("gc {root} --older-than -1", "'--older-than': -1.0 is not in the range x>=0"),
    "no output": ("show {root}/x", "holds no finished stage (no marker.json); allowed: a URI that `ls` prints"),
    "not kept": ("gc {empty} --keep {root}/x", "no finished stage below"),
    "no hub to mirror": ("fetch-weights someone/model --to {root}", "someone/model: not found on the Hugging Face hub"),
    "random mirror": ("fetch-weights random:tiny --to {root}", "random:tiny has no files to copy"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_mistake_is_one_line_that_names_it(
    flow: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    command, message = REFUSED[case]
    (tmp_path / "empty").mkdir()
    root = str(tmp_path / "root")
    names = {name: flow.uri(name) for name in ("clips", "model", "detector", "scores", "submission")}
    (tmp_path / "stranger").write_text("stranger\n")
    names["stranger"] = str(tmp_path / "stranger")
    (tmp_path / "latin.txt").write_bytes("one\nGeräusch\n".encode("latin-1"))
    names["latin"] = str(tmp_path / "latin.txt")
    used = f"--clips {names['clips']} --out {root}"
    train = shlex.join([*TINY, "--clips", names["clips"], "--out", root])
    names |= {"train": f"train {train}", "score": f"score --model {names['model']} {used}"}
    names["given"] = f"score --detector {names['detector']} {used}"
    names["sweep"] = f"sweep --recipe tiny {used}"
    words = shlex.split(command.format(root=root, fleet=flow.fleet, empty=tmp_path / "empty", **names))
    refused = run(*words)
    assert refused.code == 2
    assert message in refused.err.splitlines()[-1]
    assert "Traceback" not in refused.err
    assert refused.complaint
    assert store.files(f"{root}/status") == []


def test_a_model_whose_clips_are_gone_needs_a_bank(flow: Flow, tmp_path: Path) -> None:
    model, clips = flow.uri("model"), flow.uri("clips")
    shutil.copytree(model, tmp_path / "model")
    marker = tmp_path / "model" / "marker.json"
    marker.write_text(marker.read_text().replace(clips, f"{clips}-gone"))
    refused = run("score", "--model", str(tmp_path / "model"), "--clips", clips, "--out", str(tmp_path / "runs"))
    why = "the clips that hubert-WS-SA-seed0 was trained on are gone"
    assert refused.complaint == f"ray-asd: --bank is needed: {why}; allowed: an output of ingest"
    assert refused.code == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_refuses_an_argument_too_many_and_an_option_it_does_not_have(name: str) -> None:
    needed = [part for option in cli.cli.commands[name].params if option.required for part in _given(option)]
    for wrong in (["one", "too", "many"], ["--no-such-option"]):
        refused = run(name, *needed, *wrong)
        assert refused.code == 2
        assert wrong[0] in refused.complaint


def _given(option: click.Parameter) -> list[str]:
    return [option.opts[0], "value"] if isinstance(option, click.Option) else ["value"]


def test_a_refusal_for_a_machine_has_the_same_keys() -> None:
    refused = run("train", "--recipe", "nonsense", "--clips", "c", "--out", "o", "--json")
    assert refused.code == 2
    assert list(refused.summary) == [*SUMMARY, "error"]
    assert refused.summary["status"] == "refused"
    assert f"ray-asd: {refused.summary['error']}" == refused.complaint


def test_the_installed_command_ends_with_the_exit_code(tmp_path: Path) -> None:
    command = [
        str(Path(sys.executable).with_name("ray-asd")),
        "report",
        "--runs",
        str(tmp_path),
        "--out",
        str(tmp_path),
    ]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr == f"ray-asd: {tmp_path} holds no METRICS; run `ray-asd evaluate` first\n"


def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    fleet = str(tmp_path / "fleet")
    assert run("simulate", fleet, *FLEET).code == 0
    command = [str(Path(sys.executable).with_name("ray-asd")), "ingest", fleet, "--out", str(tmp_path / "runs")]
    environment = os.environ | {"RAY_ADDRESS": "127.0.0.1:1"}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 2
    message = r"ray-asd: RAY_ADDRESS='127\.0\.0\.1:1': no Ray cluster answers there \(.*: Connection refused\)\n"
    assert re.fullmatch(message, finished.stderr)


@pytest.mark.usefixtures("ray_session")
def test_embeddings_that_say_nothing_are_warned_of_by_all_that_enrols(tmp_path: Path) -> None:
    """Recordings of one and the same noise, which differ in their last bits alone."""
    random = np.random.default_rng(0)
    noise = random.uniform(-0.5, 0.5, 16_000)
    for number in range(24):
        split = "test" if number < 2 else "train"
        place = tmp_path / "fleet" / "fan" / split / f"section_00_source_{split}_normal_{number:04d}_x_1.wav"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(audio.encode_wav(noise + 1e-5 * random.standard_normal(16_000), 16_000))
    root = str(tmp_path / "runs")
    clips = done("ingest", str(tmp_path / "fleet"), "--out", root).summary["outputs"]["clips"]
    used = ["--model", "spectral", "--clips", clips, "--out", root]
    warned = "warning: the embeddings of fan 00 are all but equal: its scores are mostly rounding"
    assert warned in done("score", *used).err.splitlines()
    assert warned in done("enroll", *used).err.splitlines()

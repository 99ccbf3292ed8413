"""What is known before any work is said before any: on CLIPS of 200 recordings of which none is there to be decoded."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from ray_asd import build, store, tables
from ray_asd.build import Attempt, Key, Outcome, Output
from ray_asd.tables import Folder
from training_clips import row

TRAIN = "train --recipe tiny --clips {clips} --out {root} --set augmentation=null --set transformer_pooling=null"
MACHINES = ("fan", "pump", "valve", "slider", "gearbox")


def committed(root: str, name: str, rows: list[dict[str, object]]) -> Output:
    """CLIPS of these rows, as ingest would have left them."""

    def work(attempt: Attempt) -> Outcome:
        table = tables.conform(pa.Table.from_pylist(rows, schema=tables.CLIPS), tables.CLIPS)
        counts = {"clips": len(rows), "rejects": 0}
        for split in ("train", "test"):
            own = [each for each in rows if each["split"] == split]
            counts |= {split: len(own), f"{split}_samples": 16_000 * len(own)}
        return Outcome([attempt.put_table(f"{Folder.CLIPS}/00000.parquet", table)], counts, {"layout": "csv"})

    return build.run(root, Key("ingest", name, 1, {}, {}), work)


def fleet(**values: object) -> list[dict[str, object]]:
    """200 clips: of each of five machines 30 to train on and 10 to test."""
    return [
        row(f"{machine}/{split}/{number:03d}.wav", machine_type=machine, split=split, condition=machine, **values)
        for machine in MACHINES
        for split, count in (("train", 30), ("test", 10))
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("refusals")
    root = str(folder / "runs")
    one = [each | {"condition": "fan", "machine_type": "fan"} for each in fleet()]
    some = [each | ({"condition": None} if str(each["clip_id"]).endswith("7.wav") else {}) for each in fleet()]
    twins = [
        each | {"clip_id": str(each["clip_id"]).replace("test/", f"test/{n % 5}/")} for n, each in enumerate(fleet())
    ]
    equal = [each | {"clip_id": str(each["clip_id"])[:-6] + "00.wav"} for each in twins]
    made = {"clips": fleet(), "one": one, "some": some, "equal": equal, "stereo": fleet(channels=2)}
    found = {name: committed(root, name, rows).uri for name, rows in made.items()}
    (folder / "file").touch()
    (folder / "grid.yaml").write_text("- {backbone: hubert, SA: false, TFP: false}\n- {method: mobilenet}\n")
    weights = folder / "pointer"
    weights.mkdir()
    (weights / "config.json").write_text('{"model_type": "hubert"}')
    (weights / "pytorch_model.bin").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    return found | {
        "grid": str(folder / "grid.yaml"),
        "root": root,
        "file": str(folder / "file"),
        "weights": str(weights),
    }


REFUSED = {
    "one condition": (TRAIN.replace("{clips}", "{one}"), "1 condition in the training clips of "),
    "one condition for MobileNet": (
        "train --recipe tiny --clips {one} --out {root} --set method=mobilenet",
        "1 condition in the training clips of ",
    ),
    "no condition": (
        TRAIN.replace("{clips}", "{some}"),
        "15 of 150 training clips have no condition, the first one is fan/train/007.wav; allowed: a known condition",
    ),
    "channel to train on": (
        TRAIN.replace("{clips}", "{stereo}") + " --set audio.channel=2",
        "audio.channel=2: no clip of {stereo} has more than 2 channel(s); allowed: 0, 1, mean",
    ),
    "channel to enrol": (
        "enroll --model log-mel --clips {clips} --out {root} --set audio.channel=7",
        "audio.channel=7: no clip of {clips} has more than 1 channel(s); allowed: 0, mean",
    ),
    "neighbours": (
        "enroll --model spectral --clips {clips} --out {root} --set scoring.backend.neighbours=30",
        "neighbours=30 needs 31 healthy clips of a machine type and section; {clips} has at most 30 (of ",
    ),
    "density": (
        "score --model spectral --clips {clips} --out {root} --set scoring.backend.density_neighbours=40",
        "needs 42 healthy clips",
    ),
    "GPUs": (TRAIN + " --set resources.train.gpus=1", "needs 2 x (1 CPU, 1 GPU); the cluster has 1 node of "),
    "memory": (
        "enroll --model spectral --clips {clips} --out {root} --set resources.embed.memory_gb=9000",
        "needs 1 x (1 CPU, 9000.0 GiB memory)",
    ),
    "equal names": (
        "score --model spectral --clips {equal} --out {root} --submission {root}/submission",
        "--submission: fan_section_00_test.csv: 1 file names occur more than once, the first is '000.wav'",
    ),
    "submission into a file": (
        "score --model spectral --clips {clips} --out {root} --submission {file}/x",
        "{file} is no folder; allowed: a folder that is there or can be made",
    ),
    "LFS pointer": (
        TRAIN + " --set backbone.family=hubert --set backbone.source={weights}",
        "{weights}: pytorch_model.bin is a Git LFS pointer to weights",
    ),
    "weights of nobody": ("fetch-weights {weights} --to {root}/weights", "is a Git LFS pointer to weights"),
    "mirror into a file": ("fetch-weights {weights} --to {file}", "{file} is no folder"),
    "root below a file": (TRAIN.replace("{root}", "{file}/runs"), "{file}/runs: conditional writes are refused there"),
    "root in a name too long": (TRAIN.replace("{root}", "{root}/" + "n" * 300), "File name too long"),
    "simulated into a file": ("simulate {file}/fleet", "{file} is no folder"),
    "report into a file": ("report --runs {root} --out {file}", "no METRICS"),
    "every cell of a sweep": (
        "sweep --recipe tiny --grid {grid} --clips {one} --out {root}",
        "none of 2 cells can be planned, the first one: 1 condition in the training clips of {one}",
    ),
    "sweep": ("sweep --recipe tiny --clips {one} --out {root} --report {file}", "{file} is no folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_known_before_any_work_is_said_before_any(
    places: dict[str, str], case: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from ray_asd import cli
    from ray_asd.engine import connection

    def start(*given: object, **settings: object) -> None:
        raise AssertionError("a Ray was started")

    monkeypatch.setattr(connection.ray, "init", start)
    monkeypatch.setattr(connection.ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    command, message = (text.format(**places) for text in REFUSED[case])
    with pytest.raises(SystemExit) as ended:
        cli.main([*command.split(), "--json"])
    out, err = capfd.readouterr()
    told = json.loads(out)
    assert (ended.value.code, told["status"]) == (2, "refused"), err
    assert err == f"ray-asd: {told['error']}\n"
    assert message in told["error"]
    assert set(store.folders(places["root"])) <= {"ingest", "status", "events"}


def test_a_dry_run_is_refused_likewise(places: dict[str, str]) -> None:
    command = [sys.executable, "-c", "from ray_asd import cli; cli.main()", *TRAIN.format(**places).split()]
    command[command.index(places["clips"])] = places["one"]
    finished = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert "1 condition in the training clips" in finished.stderr


def test_variants_that_are_classes_of_their_own_can_be_told_apart(places: dict[str, str], tmp_path: Path) -> None:
    from ray_asd.config import Augmentation
    from ray_asd.errors import UserError
    from ray_asd.stages.recordings import refusals

    clips = build.resolve(places["one"], "ingest")
    refusals.conditions(clips, Augmentation.model_validate({"label_policy": "new_class"}))
    with pytest.raises(UserError, match="1 condition"):
        refusals.conditions(clips, Augmentation.model_validate({"label_policy": "keep"}))

"""A source in which most files are broken: the good ones are taken, each bad one is listed with its reason."""

import json
from pathlib import Path

import pytest

from data import damage
from ray_asd import cli, store, tables
from ray_asd.build import steps
from ray_asd.config import Worker
from ray_asd.data.source import Source
from ray_asd.engine.progress import silent
from ray_asd.stages.recordings import ingest
from ray_asd.tables import Folder


def name(number: int, data: bytes) -> str:
    kind = "flac" if data[:4] == b"fLaC" else "wav"
    return f"fan/train/section_00_source_train_normal_{number:04d}_noAttribute.{kind}"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, set[str], dict[str, str]]:
    """Its folder, the names of the good files, and the reasons of the bad ones by name: the two kinds in turns."""
    folder = tmp_path_factory.mktemp("archive") / "fans"
    good = list(damage.healthy().values())
    reasons: dict[str, str] = {}
    taken: set[str] = set()
    for number, (data, reason) in enumerate(damage.corpus().values()):
        reasons[name(2 * number, data)] = reason
        store.write(str(folder / name(2 * number, data)), data)
        if number < len(good):
            taken.add(name(2 * number + 1, good[number]))
            store.write(str(folder / name(2 * number + 1, good[number])), good[number])
    assert len(taken) == len(good)
    store.write(str(folder / "fan/train/lunch.wav"), damage.PLAIN)
    return str(folder), taken, reasons | {"fan/train/lunch.wav": "name_fits_no_layout"}


@pytest.mark.usefixtures("ray_session")
def test_no_bad_file_costs_a_good_one(archive: tuple[str, set[str], dict[str, str]], tmp_path: Path) -> None:
    folder, good, reasons = archive
    output = steps.ensure(ingest.step(Source(folder), Worker(), silent), str(tmp_path / "root"))
    clips = output.table(Folder.CLIPS, tables.CLIPS).to_pylist()
    assert {row["clip_id"] for row in clips} == {f"fans/{name}" for name in good}
    rejects = output.table(Folder.REJECTS, tables.REJECTS).to_pylist()
    assert {row["uri"]: row["reason"] for row in rejects} == {
        store.join(folder, name): reason for name, reason in reasons.items()
    }
    assert len(rejects) == len(reasons) > 60


@pytest.mark.usefixtures("ray_session")
def test_too_many_bad_files_trip_the_gate(
    archive: tuple[str, set[str], dict[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, good, reasons = archive
    for allowed, code in ((len(reasons), 0), (len(reasons) - 1, 3)):
        with pytest.raises(SystemExit) as ended:
            cli.main(["ingest", folder, "--out", str(tmp_path / "root"), "--max-rejects", str(allowed), "--json"])
        assert ended.value.code == code
        counts = json.loads(capsys.readouterr().out.splitlines()[-1])["counts"]
        assert (counts["clips"], counts["rejects"]) == (len(good), len(reasons))

from pathlib import Path

from commands import run
from ray_asd import store

SETTINGS = "--units=2 --nights=2 --clips=1 --seconds=1 --enrol-nights=3 --faulty=0.5 --machines=fan".split()  # noqa: SIM905


def test_a_plant_is_written_with_its_truth(tmp_path: Path) -> None:
    ran = run("simulate", f"{tmp_path}/plant", *SETTINGS, "--json")
    assert ran.code == 0, ran.err
    assert ran.summary["counts"] == {"clips": 10}
    assert ran.summary["outputs"] == {"dataset": f"{tmp_path}/plant", "faults": f"{tmp_path}/plant/faults.csv"}
    assert len(store.read(ran.summary["outputs"]["faults"]).splitlines()) == 2

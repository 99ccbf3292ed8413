"""Nights by command: what is told, which exit codes they end with, and what is refused before any work."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from commands import Run
from commands import run as command
from ray_asd import store
from ray_asd.stages.fleet import manifests
from stages import chain
from stages.fleet import plant
from stages.fleet.conftest import Releases
from stages.fleet.plant import UNITS, Recorders, day


class Plant:
    """A fleet and the command for it."""

    def __init__(self, folder: Path, releases: Releases) -> None:
        self.recorders, self.fleet, self.releases = Recorders(str(folder / "in")), str(folder / "fleet"), releases

    def __call__(self, number: int, *more: str, **given: str) -> Run:
        return command("nightly", *self.words(number, **given), "--set", chain.ONE_WORKER, *more)

    def words(self, number: int, **given: str) -> list[str]:
        options = {"registry": self.releases.place, "source": self.recorders.source, "out": self.fleet}
        options |= {"night": str(day(number))} | given
        return [word for name, value in options.items() for word in (f"--{name}", value) if value]


@pytest.fixture
def fleet(tmp_path: Path, releases: Releases) -> Plant:
    return Plant(tmp_path, releases)


def test_nights_are_told_and_gated(fleet: Plant) -> None:
    fleet.recorders.night(day(0), UNITS)
    planned = fleet(0, "--dry-run")
    assert planned.code == 0
    assert planned.out.splitlines()[-1].startswith(f"night {day(0)}: no revision yet; what is new is scored by ")
    assert not store.exists(fleet.fleet)
    first = fleet(0, "--json")
    assert first.code == 0, first.err
    assert f"night {day(0)}: revision 1 by v1: 6 of 6 clips scored, 0 of 3 machines alarm" in first.err
    assert [store.exists(uri) for uri in first.summary["outputs"].values()] == [True] * 4
    assert {"night", "manifest", "latest", "page"} == set(first.summary["outputs"])
    fleet.recorders.night(day(1), [("fan", "u1"), ("valve", "u9")])
    Path(fleet.recorders.add(day(1), ("fan", "u2"), plant.at(1, 3), b"no audio")).exists()
    second = fleet(1, "--max-unscored", "20%", "--json")
    assert second.code == 3
    assert (
        second.err.splitlines()[-1] == f"ray-asd: night {day(1)}: 2 clips could not be scored; --max-unscored allows 0"
    )
    told = [
        "unknown: valve 00: 2",
        f"silent: fan 00 u2: last heard on {day(0)}",
        f"silent: pump 00 u3: last heard on {day(0)}",
    ]
    assert [line for line in second.err.splitlines() if line in told] == told
    assert fleet(1, "--max-rejects", "0").err.endswith("1 files were rejected; --max-rejects allows 0\n")
    assert fleet(1, "--max-silent", "1").err.endswith("2 machines were not heard; --max-silent allows 1\n")
    again = fleet(1, "--json")
    assert (again.code, again.summary["reused"], again.summary["counts"]) == (0, True, second.summary["counts"])


def test_nights_without_recordings_are_nights(fleet: Plant) -> None:
    nothing = fleet(0)
    assert nothing.code == 3
    assert f"ray-asd: night {day(0)} has no recordings\n" in nothing.err
    assert plant.newest(fleet.fleet, day(0)).counts["clips"] == 0
    fleet.recorders.add(day(1), ("fan", "u1"), plant.at(1, 3), b"no audio")
    rejected = fleet(1)
    assert (rejected.code, rejected.err.splitlines()[-1]) == (
        3, f"ray-asd: night {day(1)} has no recordings; 1 files were rejected"
    )  # fmt: skip
    assert plant.tables(fleet.fleet, day(1))["rejects"]["reason"].to_pylist() == ["not_audio"]
    fleet.recorders.night(day(2), [("valve", "u9")])
    unknown = fleet(2)
    assert (unknown.code, unknown.err.splitlines()[-1]) == (
        3, f"ray-asd: night {day(2)}: none of 2 clips could be scored: no_bank; UNSCORED says why"
    )  # fmt: skip


def test_whether_a_night_happened_is_asked_without_doing_anything(fleet: Plant) -> None:
    fleet.recorders.night(day(0), UNITS)
    fleet.recorders.night(day(1), UNITS[:2])
    for number in range(2):
        assert fleet(number).code == 0
    before = sorted(entry.path for entry in store.listing(fleet.fleet))
    checked = [command("nightly", "--out", fleet.fleet, "--check", "--night", str(day(number))) for number in range(3)]
    assert [one.code for one in checked] == [0, 3, 3]
    assert checked[1].err.splitlines() == [
        f"silent: pump 00 u3: last heard on {day(0)}", f"ray-asd: night {day(1)}: 1 machines were not heard",
    ]  # fmt: skip
    assert checked[2].complaint == f"ray-asd: night {day(2)} was not scored: the last one is {day(1)}"
    assert "was not scored" in command("nightly", "--out", fleet.fleet, "--check").err
    assert sorted(entry.path for entry in store.listing(fleet.fleet)) == before


def test_a_rerun_loads_neither_torch_nor_ray(fleet: Plant) -> None:
    fleet.recorders.night(day(0), UNITS)
    assert fleet(0).code == 0
    loaded = "print(sorted({'torch', 'ray'} & set(sys.modules)))"
    program = f"import atexit, sys, ray_asd.cli as cli\natexit.register(lambda: {loaded})\ncli.main()"
    rerun = [sys.executable, "-c", program, "nightly", *fleet.words(0), "--json"]
    found = subprocess.run(rerun, capture_output=True, text=True, check=True).stdout.splitlines()
    assert json.loads(found[0])["reused"] is True
    assert found[1] == "[]"


def test_gc_keeps_what_nights_name(fleet: Plant) -> None:
    fleet.recorders.night(day(0), UNITS)
    fleet.recorders.night(day(1), UNITS)
    for number in range(2):
        assert fleet(number).code == 0
    before = plant.state(fleet.fleet)
    kept = store.join(fleet.fleet, plant.newest(fleet.fleet, day(1)).output)
    removed = command("gc", fleet.fleet, "--keep", kept, "--older-than", "0", "--json")
    assert removed.summary["counts"]["removed"] > 0, "what was found to hold nothing new"
    assert plant.state(fleet.fleet) == before
    assert manifests.named(fleet.fleet)
    again = fleet(0, "--json")
    assert (again.code, again.summary["reused"]) == (0, True)


REFUSED = [
    ({"registry": ""}, [], "--registry is needed: a registry for its current version, REGISTRY@v3, or an output of"),
    ({"source": ""}, [], "--source is needed: where recordings arrive, such as 's3://plant/in/{night:%Y-%m-%d}'"),
    ({"registry": "{registry}@v9"}, [], "unknown version of {registry} 'v9'; allowed: v1, v2, v3"),
    ({}, ["--shadow", "v2,v8"], "unknown version of {registry} 'v8'; allowed: v1, v2, v3"),
    ({"night": "yesterday"}, [], "night 'yesterday'; allowed: a date such as 2026-11-25"),
    ({}, ["--grace", "45"], "'45' is no length of time; allowed: a number and s, m, h or d, such as 45m"),
    ({}, ["--rate", "1.5"], "--rate 1.5: no share of false alarms; allowed: between 0 and 1"),
    ({}, ["--rate", "nan"], "--rate nan: no share of false alarms; allowed: between 0 and 1"),
    ({}, ["--min-nights", "1"], "--min-nights 1: too few to tell how nights differ; allowed: 2 or more"),
    ({}, ["--persistence", "2"], "--persistence '2'; allowed: M/N such as 2/3, an alert's alarms among nights"),
    ({}, ["--persistence", "4/3"], "4 of 3 nights; allowed: m of n with 1 <= m <= n, such as 2 of 3"),
    ({}, ["--max-unscored", "some"], "--max-unscored 'some'; allowed: a number of clips such as 0, or a share such as"),
    ({}, ["--check", "--rescore", "2026-03-01"], "--check and --rescore do not go together; allowed: one of them"),
    ({}, ["--rescore", "2026-03-02..2026-03-01"], "nights '2026-03-02..2026-03-01' end before they begin; allowed:"),
    ({"source": "{out}"}, [], "--out {out} is SOURCE itself; allowed: any other place, also one below it"),
]


@pytest.mark.parametrize(("given", "more", "line"), REFUSED)
def test_each_mistake_is_told_in_one_line_before_any_work(
    fleet: Plant, given: dict[str, str], more: list[str], line: str
) -> None:
    names = {"registry": fleet.releases.place, "out": fleet.fleet}
    Path(fleet.fleet).mkdir()
    found = fleet(0, *more, **{name: _filled(value, names) for name, value in given.items()})
    assert found.code == 2
    assert _filled(line, names) in found.complaint
    assert set(store.folders(fleet.fleet)) <= {"events", "status"}


def _filled(text: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def test_a_night_that_has_not_ended_is_tried_again_later(fleet: Plant) -> None:
    found = fleet(0, night="2999-01-01")
    assert found.code == 75
    assert "night 2999-01-01 has not ended; allowed: " in found.complaint
    assert found.complaint.endswith("or earlier, 2999-01-01 from 2999-01-02 00:45 UTC on")

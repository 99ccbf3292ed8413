"""A recording is its content: what it is called, and how often it lies there, changes no score."""

import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ray_asd import tables
from ray_asd.build import Output, steps
from ray_asd.config import Resources
from ray_asd.data import audio
from ray_asd.data.training_set import held_out
from ray_asd.engine.progress import silent
from ray_asd.errors import UserError
from ray_asd.stages.comparison import evaluate
from ray_asd.stages.detection import enroll, healthy
from ray_asd.stages.detection.healthy import Source
from ray_asd.stages.training.usage import Provenance
from ray_asd.tables import Folder
from stages import chain

RATE = 16_000
BY_CONTENT = ("score", "threshold", "decision", "p_value", "neighbour_hashes", "distances")


def hum(path: Path, seed: int, hertz: float = 300.0) -> None:
    """A second of a machine at work."""
    random, time = np.random.default_rng(seed), np.arange(RATE) / RATE
    wave = 0.2 * np.sin(2 * np.pi * hertz * time) + 0.05 * random.standard_normal(RATE)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(audio.encode_wav(wave, RATE))


def night(folder: Path, seeds: range, name: str) -> str:
    """A recorder's folder ``line``, whose files it calls by ``name`` and a number."""
    for number, seed in enumerate(seeds):
        hum(folder / "line" / name.format(number), seed, 300 + seed % 7)
    return str(folder / "line")


def ingested(source: str, root: str, split: str) -> Output:
    return chain.ingested(source, root, layout="flat", machine_type="press", split=split)


def by_content(scores: Output) -> dict[str, list[Any]]:
    return {row["content_hash"]: [row[name] for name in BY_CONTENT] for row in rows_of(scores, Folder.SCORES)}


def rows_of(output: Output, folder: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = output.table(folder).to_pylist()
    return rows


@pytest.fixture(scope="module")
def nights(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Monday is enrolled, Tuesday scored; the recorder reuses its names, and either lies there under other ones too."""
    folder = tmp_path_factory.mktemp("nights")
    root = str(folder / "root")
    monday, tuesday = range(24), range(100, 110)
    made: dict[str, Any] = {"root": root}
    made["monday"] = ingested(night(folder / "mon", monday, "{:03d}.wav"), root, "train")
    made["renamed"] = ingested(night(folder / "ren", monday[::-1], "z {:03d}.wav"), root, "train")
    made["tuesday"] = ingested(night(folder / "tue", tuesday, "{:03d}.wav"), root, "test")
    made["other"] = ingested(night(folder / "oth", tuesday[::-1], "y {:03d}.wav"), root, "test")
    made["added"] = ingested(night(folder / "tue", tuesday, "{:03d}.wav"), root, "train")
    for seed in monday:
        hum(folder / "all" / "line" / f"m{seed}.wav", seed, 300 + seed % 7)
    made["at once"] = ingested(night(folder / "all", tuesday, "t{:03d}.wav"), root, "train")
    return made


def test_a_score_depends_on_no_name(nights: dict[str, Any]) -> None:
    root = nights["root"]
    detector, renamed = chain.spectral(nights["monday"], root), chain.spectral(nights["renamed"], root)
    expected = by_content(chain.scored(detector, nights["other"], root))
    assert len(expected) == 10
    assert all(threshold is not None for _, threshold, *_ in expected.values())
    assert by_content(chain.scored(detector, nights["tuesday"], root)) == expected
    assert by_content(chain.scored(renamed, nights["other"], root)) == expected
    assert by_content(chain.scored(renamed, nights["tuesday"], root)) == expected
    limits = [rows_of(made, Folder.THRESHOLDS) for made in (detector, renamed)]
    assert limits[0] == limits[1]


def test_nights_that_use_the_same_names_are_all_enrolled(nights: dict[str, Any], tmp_path: Path) -> None:
    root = nights["root"]
    first = chain.spectral(nights["monday"], root)
    both = steps.ensure(enroll.extension(first, nights["added"], [], Resources(), silent), root)
    at_once = chain.spectral(nights["at once"], root)
    queries = ingested(night(tmp_path, range(200, 204), "q{}.wav"), root, "test")
    expected = by_content(chain.scored(at_once, queries, root))
    assert by_content(chain.scored(both, queries, root)) == expected
    rows = rows_of(both, "members/0/healthy")
    assert (len(rows), len({row["clip_id"] for row in rows})) == (34, 24)
    with pytest.raises(
        UserError, match=r"'line/003\.wav' is what 2 recordings are called; allowed: one of [0-9a-f]{64}, "
    ):
        enroll.extension(both, None, ["line/003.wav"], Resources(), silent)
    tuesdays = [row["content_hash"] for row in rows_of(nights["added"], Folder.CLIPS)]
    without = steps.ensure(enroll.extension(both, None, tuesdays, Resources(), silent), root)
    assert rows_of(without, "members/0/healthy") == rows_of(first, "members/0/healthy")


def test_clips_that_are_enrolled_themselves_are_left_out_and_told(nights: dict[str, Any]) -> None:
    """Tuesday's own bank, asked about Tuesday under other names."""
    root = nights["root"]
    detector = chain.spectral(nights["added"], root, "scoring.backend=paper")
    scores = chain.scored(detector, nights["other"], root)
    assert scores.marker.counts["enrolled"] == 10
    assert all(distances[0] > 1e-6 for *_, distances in by_content(scores).values())
    strangers = chain.scored(chain.spectral(nights["monday"], root), nights["other"], root)
    assert "enrolled" not in strangers.marker.counts


@pytest.fixture(scope="module")
def downloads(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Output, Output, str]:
    """A development set of 2023, and the same as a download leaves it: the zip of each machine beside its folder."""
    folder = tmp_path_factory.mktemp("downloads")
    clean, raw, root = folder / "clean", folder / "raw", str(folder / "root")
    for machine, hertz in (("slider", 300.0), ("valve", 500.0)):
        for number in range(20):
            hum(clean / machine / "train" / f"section_00_source_train_normal_{number:04d}_v_1.wav", number, hertz)
        for place, domain in enumerate(tables.DOMAINS):
            for number in range(4):
                for label in tables.LABELS:
                    seed, wrong = 50 + 20 * place + number, 1 + 0.01 * number * (label == "anomaly")
                    name = f"section_00_{domain}_test_{label}_{number:04d}_v_1.wav"
                    hum(clean / machine / "test" / name, seed + 10 * (label == "anomaly"), hertz * wrong)
    shutil.copytree(clean, raw)
    for machine, part in (("slider", "*.wav"), ("valve", "*_000[01]_*.wav")):  # a second download broke off
        with zipfile.ZipFile(raw / f"dev_{machine}.zip", "w") as archive:
            for path in sorted((raw / machine).rglob(part)):
                archive.write(path, path.relative_to(raw))
    return (
        chain.ingested(str(clean), root, layout="dcase2023"),
        chain.ingested(str(raw), root, layout="dcase2023"),
        root,
    )


def test_zips_beside_what_was_unpacked_change_no_figure(downloads: tuple[Output, Output, str]) -> None:
    clean, raw, root = downloads
    assert clean.marker.counts["clips"] == 72
    assert (raw.marker.counts["clips"], raw.marker.counts["duplicates"]) == (72 + 36 + 10, 46)
    detectors = [chain.spectral(clips, root) for clips in (clean, raw)]
    assert [made.marker.summary["twins"] for made in detectors] == [{}, {"slider 00": 20, "valve 00": 2}]
    banks = [[row["content_hash"] for row in rows_of(made, "members/0/healthy")] for made in detectors]
    assert banks[0] == banks[1]
    assert len(set(banks[1])) == len(banks[1])
    assert rows_of(detectors[0], Folder.THRESHOLDS) == rows_of(detectors[1], Folder.THRESHOLDS)
    scores = [chain.scored(made, clips, root) for made, clips in zip(detectors, (clean, raw), strict=True)]
    assert by_content(scores[0]) == by_content(scores[1])
    judged = [steps.ensure(evaluate.step([found], silent), root) for found in scores]
    assert rows_of(judged[0], Folder.METRICS) == rows_of(judged[1], Folder.METRICS)
    told = [output.marker.summary["systems"][0] for output in judged]
    assert told[1].pop("copies") == 16 + 8
    assert told[0] == told[1], "the interval and the difference to the baseline, too"


def clip(name: str, content: str, role: str = "bank", **values: Any) -> dict[str, Any]:
    row = {"machine_type": "fan", "section": "00", "clip_id": name, "domain": None, "content_hash": content}
    return row | {"twins": [], "role": role, "score": None} | values


def source(*rows: dict[str, Any]) -> Source:
    table = pa.Table.from_pylist(list(rows), schema=tables.HEALTHY)
    vectors = np.array([[float(int(row["content_hash"], 16)), 1] for row in rows], np.float32)
    return Source(table, lambda: iter([vectors]))


TWINS = [
    clip("b", "2"),
    clip("a", "9"),
    clip("c", "2"),
    clip("d", "5", "unseen"),
    clip("e", "9", "unseen"),
    clip("f", "2", section="01"),
    clip("a", "7"),
]


@pytest.mark.parametrize("order", [range(7), range(6, -1, -1), (3, 0, 6, 2, 5, 1, 4)])
def test_a_bank_holds_each_content_once_whatever_comes_first(tmp_path: Path, order: Any) -> None:
    rows = [TWINS[place] for place in order]
    for number, cut in enumerate((7, 3)):  # at once, and in two steps
        local = tmp_path / str(number)
        found = healthy.laid_out([source(*rows[:cut]), *([source(*rows[cut:])] if rows[cut:] else [])], [], local)
        told = [(row["section"], row["content_hash"], row["clip_id"], row["twins"]) for row in found.rows.to_pylist()]
        assert told == [
            ("00", "2", "b", ["c"]),
            ("00", "7", "a", []),
            ("00", "9", "a", ["e"]),  # in the bank, so nothing to calibrate on
            ("00", "5", "d", []),
            ("01", "2", "f", []),
        ]
        assert found.vectors is not None
        assert found.vectors[:, 0].tolist() == [2, 7, 9, 5, 2]


def test_a_recording_is_withdrawn_under_all_its_names(tmp_path: Path) -> None:
    kept = healthy.laid_out([source(*TWINS)], [], tmp_path / "0").rows
    assert healthy.contents_of(kept, ["c"]) == healthy.contents_of(kept, ["b"]) == ["2"]
    with pytest.raises(UserError, match="'a' is what 2 recordings are called; allowed: one of 7, 9$"):
        healthy.contents_of(kept, ["a"])
    with pytest.raises(UserError, match="holds no clip 'x'; allowed: clip_ids of its 4 healthy clips"):
        healthy.contents_of(kept, ["9", "x"])
    left = healthy.laid_out([source(*TWINS)], ["2", "7"], tmp_path / "1").rows
    assert left["content_hash"].to_pylist() == ["9", "5"]


def test_what_was_trained_on_is_told_by_content() -> None:
    """Tuesday's clips are called as those that Monday's model was trained on."""
    rows = pa.table({"clip_id": ["n/1", "n/2", "n/3", "n/4"], "content_hash": ["m1", "t2", "m3", "m4"]})
    rows = rows.append_column("split", pa.array(["train", "train", "train", "calibration"]))
    known = Provenance(frozenset({"m3"}), frozenset({"m1", "m2", "m4"}))
    assert known.roles(rows) == ["trained", "bank", "unseen", "trained"]
    assert Provenance(frozenset({"m3"}), None).roles(rows) == ["trained", "trained", "unseen", "unseen"]


def test_held_out_lists_depend_on_no_name_and_take_twins_together() -> None:
    from training_clips import row

    rows = [row(f"n/{number:02d}.wav", content_hash=f"{number:064x}") for number in range(20)]
    kept = held_out(pa.Table.from_pylist(rows, schema=tables.CLIPS), 0.3, 1)
    named = [found | {"clip_id": f"other/{99 - number}.wav"} for number, found in enumerate(rows)]
    assert held_out(pa.Table.from_pylist(named, schema=tables.CLIPS), 0.3, 1) == kept
    twice = pa.Table.from_pylist([*rows, *named[:15]], schema=tables.CLIPS)
    assert held_out(twice, 0.3, 1) == kept
    assert len(kept) == 6
    assert pc.all(pc.is_in(pa.array(kept), twice["content_hash"])).as_py()

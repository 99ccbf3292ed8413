"""Detectors: what is enrolled and how it lies, extended, withdrawn, copied, fused; and what they say of themselves."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from ray_asd import config, store, tables
from ray_asd.build import Output, steps
from ray_asd.config import Resources
from ray_asd.data import audio, simulate
from ray_asd.engine.progress import silent
from ray_asd.errors import StageError, UserError
from ray_asd.scoring import backend
from ray_asd.scoring.bank import open_vectors
from ray_asd.stages.detection import calibrate, detector, enroll
from ray_asd.stages.detection.bank import Banks
from ray_asd.stages.detection.calibrate import Strangers
from ray_asd.stages.detection.healthy import VECTORS
from ray_asd.stages.training import usage
from ray_asd.tables import Folder
from stages import chain

MEMBER = "members/0"
PLACES = (detector.CARD, f"{MEMBER}/model.json")  # what tells where a detector came from


def by_model(system: chain.Chain, *overrides: str) -> Output:
    chosen = config.load("tiny", (*chain.SETTINGS, *overrides))
    return chain.enrolled([usage.planned(system.model, chosen, system.clips)], system.clips, system.root)


def healthy(made: Output) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = made.table(f"{MEMBER}/{Folder.HEALTHY}").to_pylist()
    return rows


def test_banks_lie_in_order_without_the_clips_held_out(system: chain.Chain) -> None:
    held_out = set(system.used.card().held_out)
    wanted = [row for row in system.embeddings.table(Folder.EMBEDDINGS).to_pylist() if row["split"] == "train"]
    kept_back = {row["clip_id"]: row["content_hash"] in held_out for row in wanted}
    wanted.sort(key=lambda row: (row["machine_type"], row["section"], kept_back[row["clip_id"]], row["content_hash"]))
    rows = healthy(system.detector)
    assert [row["clip_id"] for row in rows] == [row["clip_id"] for row in wanted]
    assert {row["content_hash"] for row in rows if row["role"] == "unseen"} == held_out
    assert {row["role"] for row in rows if row["content_hash"] not in held_out} == {"trained"}
    vectors = open_vectors(system.detector.fetch(f"{MEMBER}/{VECTORS}"), chain.RECIPE.embedding.dim)
    np.testing.assert_array_equal(vectors, np.array([row["embedding"] for row in wanted], np.float32))
    card = detector.read(system.detector)
    assert [(group.machine_type, group.ranges) for group in card.groups] == [
        ("fan", [(0, 18, 20)]),
        ("valve", [(20, 38, 40)]),
    ]
    calibration = system.detector.table(Folder.CALIBRATION)
    assert calibration.schema.equals(tables.CALIBRATION)
    assert set(calibration["content_hash"].to_pylist()) == held_out
    assert set(calibration["source"].to_pylist()) == {"calibration"}


@pytest.fixture(scope="module")
def parts(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Output, Output, Output, str]:
    """CLIPS of a plant, those of one half of its recordings and those of the other, and a root."""
    folder = tmp_path_factory.mktemp("parts")
    fleet = simulate.Fleet(machines=("fan", "valve"), train_source=20, train_target=4, test=2, seconds=1.0, seed=3)
    simulate.write(fleet, str(folder / "whole"))
    for number, path in enumerate(sorted((folder / "whole").rglob("*.wav"))):
        half = folder / ("one" if number % 3 else "other") / path.relative_to(folder / "whole")
        half.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, half)
    root = str(folder / "root")
    whole, one, other = (
        chain.ingested(str(folder / name), root, dataset="plant", layout="dcase2023")
        for name in ("whole", "one", "other")
    )
    return whole, one, other, root


def contents(made: Output) -> dict[str, str]:
    """Digests of all files but those that tell where a detector came from."""
    return {file.path: file.sha256 for file in made.marker.files if file.path not in PLACES}


def extended(before: Output, root: str, add: Output | None = None, withdraw: list[str] | None = None) -> Output:
    return steps.ensure(enroll.extension(before, add, withdraw or [], Resources(), silent), root)


def test_enrolled_in_parts_is_enrolled_at_once(parts: tuple[Output, Output, Output, str]) -> None:
    whole, one, other, root = parts
    at_once, first = chain.spectral(whole, root), chain.spectral(one, root)
    both = extended(first, root, other)
    assert contents(both) == contents(at_once) != contents(first)
    assert both.uri != first.uri
    assert detector.read(both).groups == detector.read(at_once).groups
    assert contents(extended(both, root, one)) == contents(both), "what is there already adds nothing"

    gone = [row["clip_id"] for row in healthy(at_once) if row["clip_id"] not in {r["clip_id"] for r in healthy(first)}]
    withdrawn = extended(at_once, root, withdraw=gone)
    assert contents(withdrawn) == contents(first)
    for file in withdrawn.marker.files:
        assert not any(clip_id.encode() in withdrawn.read(file.path) for clip_id in gone)
    assert not any(clip_id in withdrawn.marker.model_dump_json() for clip_id in gone)
    with pytest.raises(UserError, match=r"holds no clip 'plant/no\.wav'; allowed: clip_ids of its 48 healthy clips$"):
        extended(at_once, root, withdraw=["plant/no.wav"])


def test_a_model_extends_as_it_enrols(system: chain.Chain, parts: tuple[Output, Output, Output, str]) -> None:
    whole, one, other, root = parts
    used = usage.planned(system.model, chain.RECIPE, system.clips)
    first = chain.enrolled([used], one, root)
    assert {row["role"] for row in healthy(first)} == {"bank"}, "no training saw these"
    assert contents(extended(first, root, other)) == contents(chain.enrolled([used], whole, root))


def test_a_copy_scores_the_same_where_its_origin_is_gone(
    system: chain.Chain, parts: tuple[Output, Output, Output, str], bucket: str, tmp_path: Path
) -> None:
    whole, _, _, _ = parts
    home = str(tmp_path / "home")
    used = usage.planned(system.model, chain.RECIPE, system.clips)
    members = [usage.features(usage.SPECTRAL), used]
    made = chain.enrolled(members, whole, home)
    there = chain.scored(made, whole, home)
    for entry in store.listing(made.uri):
        store.write(store.join(bucket, "released", entry.path), store.read(store.join(made.uri, entry.path)))
    expected = there.table(Folder.SCORES).to_pylist()
    shutil.rmtree(home)
    copied = Output(store.join(bucket, "released"), made.marker)
    assert chain.scored(copied, whole, str(tmp_path / "elsewhere")).table(Folder.SCORES).to_pylist() == expected
    assert {row["system"] for row in expected} == {f"spectral & {chain.RECIPE.system}"}


def test_a_fusion_is_the_mean_of_standardised_scores(
    system: chain.Chain, parts: tuple[Output, Output, Output, str]
) -> None:
    whole, _, _, root = parts
    used = usage.planned(system.model, chain.RECIPE, system.clips)
    members = [usage.features(usage.SPECTRAL), used]
    alone = [chain.enrolled([member], whole, root) for member in members]
    found = [chain.scored(made, whole, root).table(Folder.SCORES).to_pylist() for made in alone]
    fused = chain.enrolled(members, whole, root)
    card = detector.read(fused)
    calibration: list[dict[str, dict[str, float]]] = []
    for made in alone:
        own: dict[str, dict[str, float]] = {}
        for row in made.table(Folder.CALIBRATION).to_pylist():
            own.setdefault(row["machine_type"], {})[row["clip_id"]] = row["score"]
        calibration.append(own)
    for group in card.groups:
        assert group.standards is not None
        for standard, own in zip(group.standards, calibration, strict=True):
            assert standard == backend.standard(np.array(list(own[group.machine_type].values())))
    for row, one, other in zip(chain.scored(fused, whole, root).table(Folder.SCORES).to_pylist(), *found, strict=True):
        standards = card.groups[card.number(row["machine_type"], row["section"])].standards
        assert standards is not None
        parts_of = [(s["score"] - c) / spread for s, (c, spread) in zip((one, other), standards, strict=True)]
        assert row["score"] == np.mean(parts_of)
        assert row["neighbours"] == one["neighbours"]
    assert fused.table(Folder.THRESHOLDS)["num_clips"].to_pylist() == [24, 24]


def test_what_cannot_be_fused(system: chain.Chain, tmp_path: Path) -> None:
    """Of the fleet without the clips that were held out, all were trained on."""
    held_out, fleet, root = system.used.card().held_out, tmp_path / "fleet", str(tmp_path / "root")
    shutil.copytree(system.recordings, fleet)
    for path in list(fleet.rglob("*.wav")):
        if audio.content_hash(path.read_bytes()) in held_out:
            path.unlink()
    clips = chain.ingested(str(fleet), root, dataset="fleet")
    alone = chain.enrolled([system.used], clips, root)
    assert set(alone.marker.summary["learning"].values()) == {
        "none: every normal clip was trained on (calibration_fraction 0)"
    }
    with pytest.raises(UserError, match=r"cannot be fused: fan 00: no healthy scores to standardise hubert\+WS\+SA"):
        chain.enrolled([usage.features(usage.SPECTRAL), system.used], clips, root)


def test_members_without_healthy_scores_say_why() -> None:
    known = Strangers(["a", "b"], ["1", "2"], [None, None], np.array([1.0, 2.0]), "calibration")
    unknown = Strangers.none("none: every normal clip was trained on")
    assert calibrate.why_not_fused([known, unknown], ["spectral", "mine"]) == (
        "no healthy scores to standardise mine by: every normal clip was trained on"
    )
    assert calibrate.why_not_fused([known, known], ["spectral", "mine"]) is None


@pytest.mark.parametrize("kind", ["ivf", "hnsw", "pq"])
def test_approximate_indexes_tell_what_they_find(system: chain.Chain, kind: str) -> None:
    # So few rows are all looked at: what is proposed is what is nearest.
    settings = (f"scoring.index.kind={kind}", "scoring.index.beyond=4", "scoring.index.lists=1")
    made = by_model(system, *settings)
    assert [group.recall for group in detector.read(made).groups] == [1.0, 1.0]
    assert len(made.files(f"{MEMBER}/approximate")) == 2
    scores = chain.scored(made, system.clips, system.root).table(Folder.SCORES)
    assert scores["score"].equals(system.scores.table(Folder.SCORES)["score"])
    few = by_model(system, f"scoring.index.kind={kind}", "scoring.index.beyond=18")
    assert not few.files(f"{MEMBER}/approximate")


def test_a_detector_that_does_not_give_its_scores_is_not_used(system: chain.Chain, tmp_path: Path) -> None:
    made = chain.spectral(system.clips, system.root)
    copy = tmp_path / "copy"
    shutil.copytree(made.uri, copy)
    (file,) = made.files(Folder.SELF_TEST)
    rows = made.table(Folder.SELF_TEST)
    wrong = rows.set_column(rows.column_names.index("score"), "score", pc.multiply(rows["score"], 1.001))
    import pyarrow.parquet as pq

    place = copy / made.marker.attempt / file.path
    pq.write_table(wrong, place)
    damaged = replace(file, sha256=store.sha256(str(place)), size=place.stat().st_size)
    files = [damaged if one.path == file.path else one for one in made.marker.files]
    output = Output(str(copy), made.marker.model_copy(update={"files": files}))
    with pytest.raises(StageError, match=r"the self-test fails: .* gets .*, not .*; it was made with \{"):
        Banks(output, detector.read(output))
    Banks(made, detector.read(made))


def test_collapsed_embeddings_and_small_groups_are_told(system: chain.Chain) -> None:
    """Four training steps pull all clips of a machine to one point."""
    card = detector.read(system.detector)
    dim = chain.RECIPE.embedding.dim
    vectors = open_vectors(system.detector.fetch(f"{MEMBER}/{VECTORS}"), dim)
    for group in card.groups:
        start, bank, _ = group.ranges[0]
        assert group.collapsed == (backend.median_nearest(vectors[start:bank]) < backend.COLLAPSED)
    assert system.detector.marker.summary["collapsed"] == [
        f"{group.machine_type} 00" for group in card.groups if group.collapsed
    ]


@pytest.mark.parametrize("changes", [("whiten=null",), ("density=difference", "banks=by_domain"), ("metric=cosine",)])
def test_every_back_end_scores_as_the_library_does(
    parts: tuple[Output, Output, Output, str], changes: tuple[str, ...]
) -> None:
    whole, _, _, root = parts
    made = chain.spectral(whole, root, *(f"scoring.backend.{change}" for change in changes))
    card = detector.read(made)
    settings = card.members[0].scoring.backend
    rows = made.table(f"{MEMBER}/{Folder.HEALTHY}")
    vectors = open_vectors(made.fetch(f"{MEMBER}/{VECTORS}"), card.members[0].dim)
    embedded = usage.features(usage.SPECTRAL)
    from ray_asd.stages.detection import embed

    queries = steps.ensure(embed.clips(embedded, whole, silent, ("test",)), root).table(Folder.EMBEDDINGS)
    scores = {row["clip_id"]: row["score"] for row in chain.scored(made, whole, root).table(Folder.SCORES).to_pylist()}
    for group in card.groups:
        start, bank, _ = group.ranges[0]
        fitted = backend.fit(vectors[start:bank], rows["domain"][start:bank].to_pylist(), settings)
        own = queries.filter(pc.field("machine_type") == group.machine_type)
        expected = fitted.search(tables.vectors(own), np.full(own.num_rows, -1)).scores
        assert [scores[clip_id] for clip_id in own["clip_id"].to_pylist()] == expected.tolist()

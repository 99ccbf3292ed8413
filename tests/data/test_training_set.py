"""Which clips train, and the batch of every step: small sets whose answers can be counted by hand."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ray_asd import tables
from ray_asd.config import SAMPLE_RATE
from ray_asd.data.sampling import Draw, Sampler
from ray_asd.data.training_set import TrainingSet, held_out
from ray_asd.errors import UserError
from training_clips import row, training_set

RAMP = np.arange(SAMPLE_RATE, dtype=np.float32)


def clips(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=tables.CLIPS)


def cell(machine: str, section: str, domain: str | None, count: int) -> list[dict[str, object]]:
    names = (f"fleet/{machine}/{section}/{domain}/{number:02d}.wav" for number in range(count))
    return [row(name, machine_type=machine, section=section, domain=domain) for name in names]


FLEET = [
    *cell("fan", "00", "source", 20),
    *cell("fan", "00", "target", 4),
    *cell("fan", "01", "source", 10),
    *cell("valve", "00", None, 7),
]


def test_held_out_takes_its_share_of_every_machine_section_and_domain() -> None:
    kept = held_out(clips(*FLEET, row("fleet/test.wav", split="test")), 0.25, seed=0)
    assert Counter(name.rpartition("/")[0] for name in kept) == {
        "fleet/fan/00/source": 5,
        "fleet/fan/00/target": 1,
        "fleet/fan/01/source": 2,  # 2.5, to the even number
        "fleet/valve/00/None": 2,  # 1.75
    }
    assert kept == sorted(set(kept))


def test_held_out_depends_on_the_seed_but_not_on_the_order_of_rows() -> None:
    kept = held_out(clips(*FLEET), 0.25, seed=3)
    shuffled = [FLEET[index] for index in np.random.default_rng(0).permutation(len(FLEET))]
    assert held_out(clips(*shuffled), 0.25, seed=3) == kept
    assert held_out(clips(*FLEET), 0.25, seed=4) != kept


def test_a_clip_that_is_held_out_stays_so_when_the_share_grows() -> None:
    small, large = (set(held_out(clips(*FLEET), fraction, seed=0)) for fraction in (0.1, 0.4))
    assert small < large


def test_no_condition_loses_all_of_its_clips() -> None:
    """Twelve source clips in four speeds, of which two are recorded in the target domain too, and one there alone."""
    speeds = {"source": [1, 2, 3, 4] * 3, "target": [1, 2, 5, 5]}
    rows = [
        row(f"{domain}/{number:02d}.wav", domain=domain, condition=f"fan|speed={speed}")
        for domain, of_domain in speeds.items()
        for number, speed in enumerate(of_domain)
    ]
    condition = {found["clip_id"]: found["condition"] for found in rows}
    for seed in range(20):
        kept = held_out(clips(*rows), 0.5, seed)
        assert Counter(name.split("/")[0] for name in kept)["source"] == 6
        assert {condition[name] for name in condition.keys() - kept} == set(condition.values())


def test_clips_that_are_alone_in_their_condition_all_train() -> None:
    rows = [row(f"{number}.wav", condition=f"fan|speed={number}") for number in range(10)]
    assert held_out(clips(*rows), 0.4, seed=0) == []
    assert len(held_out(clips(*rows, row("x.wav", condition="fan|speed=0")), 0.4, seed=0)) == 1


@pytest.mark.parametrize(
    ("rows", "fraction"), [(FLEET, 0.0), ([*FLEET, row("fleet/c.wav", split="calibration")], 0.25)]
)
def test_nothing_is_held_out_without_need(rows: list[dict[str, object]], fraction: float) -> None:
    assert held_out(clips(*rows), fraction, seed=0) == []


def drawn(sampler: Sampler, steps: range, world_size: int = 1) -> list[Draw]:
    return [draw for step in steps for rank in range(world_size) for draw in sampler.draws(step, rank, world_size)]


def test_every_epoch_is_another_permutation() -> None:
    draws = [draw.item for draw in drawn(Sampler(10, 4, seed=0), range(5))]  # 20 rows: two epochs
    assert sorted(draws[:10]) == sorted(draws[10:]) == list(range(10))
    assert draws[:10] != draws[10:]
    assert draws[:10] != list(range(10))


def test_the_ranks_together_draw_the_batch_of_one() -> None:
    whole = drawn(Sampler(7, 12, seed=1), range(6))
    for world_size in (2, 3, 4, 12):
        assert drawn(Sampler(7, 12, seed=1), range(6), world_size) == whole


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    sampler = Sampler(7, 4, seed=1)
    forwards = [sampler.draws(step, 0, 1) for step in range(9)]
    assert [sampler.draws(step, 0, 1) for step in reversed(range(9))] == forwards[::-1]
    assert Sampler(7, 4, seed=1).draws(8, 0, 1) == forwards[8]
    assert Sampler(7, 4, seed=2).draws(8, 0, 1) != forwards[8]


def test_a_batch_larger_than_the_set_repeats_clips_at_other_places() -> None:
    draws = Sampler(3, 8, seed=0).draws(0, 0, 1)
    assert sorted(Counter(draw.item for draw in draws).values()) == [2, 3, 3]
    assert len({draw.start for draw in draws}) == 8


def test_crop_starts_are_spread_over_the_whole_room() -> None:
    starts = [draw.start for draw in drawn(Sampler(5, 100, seed=0), range(20))]
    counts, _ = np.histogram(starts, bins=4, range=(0, 1))
    assert counts.sum() == 2000
    assert np.all(np.abs(counts - 500) < 100)  # five standard deviations


@pytest.fixture
def small(tmp_path: Path) -> TrainingSet:
    """Three clips of two conditions, one of them quarter as long, and a variant of the first."""
    set_ = [
        ("fleet/b.wav", "valve", RAMP[:4000] * 2),
        ("fleet/a.wav", "fan", RAMP),
        ("fleet/a.wav@stretch0.9", "fan", -RAMP),
        ("fleet/c.wav", "fan", RAMP + 5),
    ]
    output = training_set(str(tmp_path), set_, variants={"fleet/a.wav@stretch0.9": "fleet/a.wav"})
    return TrainingSet([output], held_out=[])


def test_clips_are_ordered_by_content_and_labelled_by_condition(small: TrainingSet) -> None:
    names = ["fleet/a.wav", "fleet/a.wav@stretch0.9", "fleet/b.wav", "fleet/c.wav"]
    assert small.rows.column("clip_id").to_pylist() == names
    assert small.conditions == ["fan", "valve"]
    assert small.labels.tolist() == [0, 0, 1, 0]
    assert len(small) == 4
    np.testing.assert_array_equal(small.waveform(1), -RAMP)
    np.testing.assert_array_equal(small.waveform(3), RAMP + 5)


def test_a_held_out_clip_takes_its_variants_with_it(small: TrainingSet) -> None:
    rest = TrainingSet(small._outputs, held_out=["fleet/a.wav"])
    assert rest.rows.column("clip_id").to_pylist() == ["fleet/b.wav", "fleet/c.wav"]
    np.testing.assert_array_equal(rest.waveform(1), RAMP + 5)


def test_no_name_has_part_in_the_order_and_twins_train_once(tmp_path: Path) -> None:
    waves = {"1": RAMP, "2": -RAMP, "3": 3 * RAMP}
    names = [("x", "3"), ("z", "1"), ("y", "2"), ("a zip/y", "2")]
    other = [("a", "3"), ("b", "2"), ("c", "1")]
    found = []
    for number, given in enumerate((names, other)):
        made = [(name, "fan", waves[content]) for name, content in given]
        output = training_set(str(tmp_path / str(number)), made, contents=dict(given))
        found.append(TrainingSet([output], held_out=[]))
    assert [data.rows["content_hash"].to_pylist() for data in found] == [["1", "2", "3"]] * 2
    assert found[0].rows["clip_id"].to_pylist() == ["z", "a zip/y", "x"]
    for clip in range(3):
        np.testing.assert_array_equal(found[0].waveform(clip), found[1].waveform(clip))
    without = TrainingSet(found[0]._outputs, held_out=["2"])
    assert without.rows["clip_id"].to_pylist() == ["z", "x"], "held out under both of its names"


def test_several_outputs_are_one_set(tmp_path: Path) -> None:
    """Both number their shards from 0."""
    first = training_set(str(tmp_path / "1"), [("fleet/b.wav", "valve", RAMP)])
    second = training_set(str(tmp_path / "2"), [("fleet/a.wav", "fan", -RAMP), ("fleet/c.wav", "fan", 3 * RAMP)])
    both = TrainingSet([first, second], held_out=[])
    waves = [both.waveform(clip)[1] for clip in range(3)]
    assert waves == [-1, 1, 3]
    assert both.labels.tolist() == [0, 1, 0]


def test_crops_lie_where_they_were_drawn(small: TrainingSet) -> None:
    draws = [Draw(0, 0.0), Draw(0, 0.5), Draw(0, 0.999999999)]
    crops = small.crops(draws, 0.25, normalize=False)
    assert crops.dtype == np.float32
    assert crops.shape == (3, 4000)
    assert crops[:, 0].tolist() == [0, 6000, 12000]  # 12001 places
    np.testing.assert_array_equal(np.diff(crops, axis=1), 1)
    assert small.crops([Draw(0, 0.7)], 1.0, normalize=False)[0, 0] == 0  # exactly as long as the clip


def test_a_short_clip_is_repeated(small: TrainingSet) -> None:
    (crop,) = small.crops([Draw(2, 0.9)], 0.6, normalize=False)
    assert crop.shape == (9600,)
    np.testing.assert_array_equal(crop, 2 * (np.arange(9600) % 4000))


def test_normalised_crops_have_the_moments_of_their_whole_clip(small: TrainingSet) -> None:
    (crop,) = small.crops([Draw(3, 0.25)], 0.5, normalize=True)
    wave = small.waveform(3).astype(np.float64)
    np.testing.assert_allclose(crop, ((wave - wave.mean()) / wave.std())[2000:10000], atol=1e-5)
    assert small.waveform(3)[0] == 5  # the mapped file is as it was


def test_an_empty_set_is_refused(small: TrainingSet) -> None:
    with pytest.raises(UserError, match="no clips to train on: 3 held out of 4"):
        TrainingSet(small._outputs, held_out=["fleet/a.wav", "fleet/b.wav", "fleet/c.wav"])


def test_a_clip_without_condition_is_refused_by_name(tmp_path: Path) -> None:
    output = training_set(str(tmp_path), [("fleet/a.wav", "fan", RAMP), ("fleet/b.wav", None, RAMP)])
    with pytest.raises(UserError, match=r"1 of 2 training clips have no condition, the first one is fleet/b\.wav"):
        TrainingSet([output], held_out=[])
    assert len(TrainingSet([output], held_out=["fleet/b.wav"])) == 1

"""Legal oddities are taken, every kind of damage is named, and random damage does neither crash nor hang."""

import numpy as np
import pytest

from data import damage
from ray_asd import reasons
from ray_asd.data import audio

HEALTHY = damage.healthy()
STREAMED = damage.streamed()
CORPUS = damage.corpus()


@pytest.mark.parametrize("name", HEALTHY)
def test_a_legal_oddity_is_taken_as_it_is(name: str) -> None:
    info = audio.inspect(HEALTHY[name])
    found = (info.sample_rate, info.num_samples, info.dead_channels, info.streamed)
    assert found == (damage.RATE, 4000, (), False)
    np.testing.assert_array_equal(audio.decode(HEALTHY[name], 0), damage.SAMPLES)


@pytest.mark.parametrize("name", STREAMED)
def test_of_a_recording_that_was_streamed_all_that_is_there_is_heard(name: str) -> None:
    info = audio.inspect(STREAMED[name])
    assert (info.sample_rate, info.num_samples, info.streamed) == (damage.RATE, 4000, True)
    np.testing.assert_array_equal(audio.decode(STREAMED[name], 0), damage.SAMPLES)


@pytest.mark.parametrize("name", CORPUS)
def test_damage_is_called_by_its_name(name: str) -> None:
    data, reason = CORPUS[name]
    with pytest.raises(audio.BadAudio) as inspected:
        audio.inspect(data)
    assert inspected.value.reason == reason, inspected.value
    assert inspected.value.detail
    assert "\n" not in str(inspected.value)
    if reason != "silent":
        with pytest.raises(audio.BadAudio, match=f"^{reason}: "):
            audio.decode(data, 0)


def test_the_corpus_is_large_and_covers_every_code() -> None:
    assert len({data for data, _ in CORPUS.values()}) == len(CORPUS) >= 60
    assert len(set(HEALTHY.values())) == len(HEALTHY) >= 15
    found_elsewhere = {name for name in reasons.REJECTED if name.startswith("archive_")} | {
        *("unreadable", "missing", "no_file", "name_fits_no_layout", "duplicate", "renamed", "not_an_archive")
    }
    assert set(reasons.REJECTED) >= {reason for _, reason in CORPUS.values()} >= set(reasons.REJECTED) - found_elsewhere

"""Sentences about sounds of which it is known what was added to them."""

import re

import numpy as np
import pytest

from ray_asd.data.explanation import Difference, explain
from ray_asd.data.fleet import MACHINES
from ray_asd.data.simulate import Recording, render

RATE = 16_000


def machine(seed: int, seconds: float = 5.0, rate: int = RATE) -> np.ndarray:
    """A healthy machine: hum with overtones and noise that falls with frequency, its level off by half a dB or so."""
    rng = np.random.default_rng(seed)
    samples = round(seconds * rate)
    time = np.arange(samples) / rate
    lines = np.fft.rfft(rng.standard_normal(samples)) / np.sqrt(np.maximum(np.fft.rfftfreq(samples, 1 / rate), 50))
    noise = np.fft.irfft(lines, samples)
    speed = 50 * (1 + 0.01 * rng.uniform(-1, 1))
    hum = sum(np.cos(2 * np.pi * (k * speed * time + rng.random())) / k for k in range(1, 9))
    gain = 10 ** (0.5 * rng.uniform(-1, 1) / 20)
    return (gain * (0.02 * noise / noise.std() + 0.01 * hum)).astype(np.float32)


NORMALS = [machine(seed) for seed in range(8)]


def within(samples: int, begin: float, end: float) -> np.ndarray:
    time = np.arange(samples) / RATE
    return ((time >= begin) & (time < end)).astype(float)


def power(waveform: np.ndarray, low: float, high: float) -> float:
    """Mean square between two frequencies, by one transform of it all."""
    lines = np.abs(np.fft.rfft(waveform.astype(float))) ** 2
    hertz = np.fft.rfftfreq(len(waveform), 1 / RATE)
    return float(2 * lines[(hertz >= low) & (hertz < high)].sum() / len(waveform) ** 2)


def decibels_above(waveform: np.ndarray, low: float, high: float) -> float:
    return float(10 * np.log10(power(waveform, low, high) / np.median([power(one, low, high) for one in NORMALS])))


@pytest.mark.parametrize(("hertz", "amplitude"), [(430.0, 0.02), (1150.0, 0.01), (3100.0, 0.01), (5900.0, 0.008)])
def test_a_tone_is_found_where_and_when_it_is(hertz: float, amplitude: float) -> None:
    clip = machine(100)
    time = np.arange(len(clip)) / RATE
    clip = clip + (amplitude * np.sin(2 * np.pi * hertz * time) * within(len(clip), 2.1, 4.0)).astype(np.float32)
    found = explain(clip, NORMALS)
    assert found.kind == "tone"
    told = re.fullmatch(
        r"a tone near ([\d.]+) (k?)Hz, (\d+) dB above its nearest normals, ([\d.]+) to ([\d.]+) s", found.sentence
    )
    assert told
    near, loud, begin, end = (float(told[number]) for number in (1, 3, 4, 5))
    assert 2 ** (-1 / 6) < near * (1000 if told[2] else 1) / hertz < 2 ** (1 / 6)
    truth = decibels_above(clip[int(2.1 * RATE) : 4 * RATE], hertz * 2 ** (-1 / 6), hertz * 2 ** (1 / 6))
    assert loud == pytest.approx(truth, abs=2)
    assert (begin, end) == pytest.approx((2.1, 4.0), abs=0.25)
    assert found.seconds == pytest.approx((begin, end), abs=0.06)


@pytest.mark.parametrize("rate", [3.0, 9.0, 24.0])
def test_knocks_are_counted(rate: float) -> None:
    clip = machine(101)
    rng = np.random.default_rng(1)
    ring = np.arange(RATE // 10) / RATE
    knock = np.exp(-ring / 0.003) * np.sin(2 * np.pi * 2200 * ring)
    struck = np.zeros(len(clip))
    struck[(np.arange(0.05, 4.9, 1 / rate) * RATE).astype(int)] = 0.15 * (1 + 0.1 * rng.standard_normal())
    found = explain(clip + np.convolve(struck, knock)[: len(clip)].astype(np.float32), NORMALS)
    told = re.match(
        r"knocks, ([\d.]+) a second, ([\d.]+ k?Hz to [\d.]+ k?Hz|near [\d.]+ k?Hz), \d+ dB above", found.sentence
    )
    assert told, found.sentence
    assert float(told[1]) == pytest.approx(rate, rel=0.06)
    assert found.band
    assert found.band[0] < 2200 < found.band[1]


@pytest.mark.parametrize(("low", "high"), [(300.0, 900.0), (2000.0, 8000.0), (1500.0, 4000.0)])
def test_noise_is_found_in_its_band(low: float, high: float) -> None:
    clip = machine(102)
    rng = np.random.default_rng(2)
    lines = np.fft.rfft(rng.standard_normal(len(clip)))
    hertz = np.fft.rfftfreq(len(clip), 1 / RATE)
    lines[(hertz < low) | (hertz > high)] = 0
    added = np.fft.irfft(lines, len(clip))
    clip = clip + (0.03 * added / added.std()).astype(np.float32)
    found = explain(clip, NORMALS)
    assert found.kind == "noise"
    assert found.sentence.startswith("noise ")
    assert found.sentence.endswith(", throughout")
    assert found.band
    assert found.decibels
    assert abs(np.log2(found.band[0] / low)) <= 1 / 3
    assert abs(np.log2(found.band[1] / min(high, 7280))) <= 1 / 3
    assert found.decibels == pytest.approx(decibels_above(clip, *found.band), abs=2)


@pytest.mark.parametrize(("gain", "word", "side"), [(6.0, "louder", "above"), (-9.0, "quieter", "below")])
def test_a_change_of_level_is_no_change_of_sound(gain: float, word: str, side: str) -> None:
    clip = machine(103)
    found = explain(clip * np.float32(10 ** (gain / 20)), NORMALS)
    assert re.fullmatch(rf"{word} throughout, \d+ dB {side} its nearest normals", found.sentence)
    assert found.decibels == pytest.approx(gain, abs=1)


def test_a_tone_in_a_louder_recording_is_told_of_with_both() -> None:
    clip = machine(104)
    tone = 0.02 * np.sin(2 * np.pi * 3100 * np.arange(len(clip)) / RATE)
    found = explain(((clip + tone) * 2).astype(np.float32), NORMALS)
    assert re.fullmatch(r"a tone near 3.1 kHz, \d+ dB above .*; besides, louder throughout by 6 dB", found.sentence)


def test_what_is_missing_is_told_too() -> None:
    clip = machine(105)
    lines = np.fft.rfft(clip)
    hertz = np.fft.rfftfreq(len(clip), 1 / RATE)
    lines[(hertz > 1000) & (hertz < 3000)] *= 0.25
    found = explain(np.fft.irfft(lines, len(clip)).astype(np.float32), NORMALS)
    assert found.kind == "missing"
    assert re.fullmatch(
        r"less sound \S+ k?Hz to \S+ kHz, 1[0-3] dB below its nearest normals, throughout", found.sentence
    )


def test_a_gap_and_a_short_burst_have_their_moments() -> None:
    clip = machine(106)
    silent = clip * (1 - within(len(clip), 2.0, 3.2)).astype(np.float32)
    found = explain(silent, NORMALS)
    assert found.kind == "missing"
    assert found.seconds[0] >= 1.8
    assert found.seconds[1] <= 3.4
    rng = np.random.default_rng(3)
    burst = 0.2 * rng.standard_normal(len(clip)) * within(len(clip), 3.0, 3.1)
    found = explain((clip + burst).astype(np.float32), NORMALS)
    assert found.kind == "burst"
    assert 2.8 <= found.seconds[0] <= 3.0
    assert 3.1 <= found.seconds[1] <= 3.3


def test_normals_are_seldom_said_to_differ() -> None:
    kinds = [explain(machine(seed), NORMALS).kind for seed in range(200, 220)]
    assert kinds.count("nothing") >= 18
    told = explain(machine(200), NORMALS)
    assert re.fullmatch(
        r"no single band stands out: the mix differs, most near .*Hz, by no more than .*", told.sentence
    )
    begin, end = told.seconds
    assert 0 <= begin < end <= 5


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_normals_are_enough_for_what_is_plain_and_too_few_for_what_is_not(count: int) -> None:
    clip = machine(107)
    tone = np.sin(2 * np.pi * 3100 * np.arange(len(clip)) / RATE).astype(np.float32)
    assert explain(clip + np.float32(0.02) * tone, NORMALS[:count]).kind == "tone"
    assert explain(clip, NORMALS[:count]).kind == "nothing"


def test_without_normals_it_says_so() -> None:
    assert explain(machine(1), []) == Difference(
        "none of its nearest normals can be heard any more", "nothing", (0.0, 5.0)
    )


@pytest.mark.parametrize("seconds", [0.05, 0.1, 0.4, 12.0])
def test_lengths_may_differ(seconds: float) -> None:
    clip = machine(108, seconds)
    tone = 0.05 * np.sin(2 * np.pi * 3100 * np.arange(len(clip)) / RATE)
    found = explain((clip + tone).astype(np.float32), NORMALS)
    assert found.kind == "tone"
    assert "near 3.1 kHz" in found.sentence
    assert found.seconds[1] <= seconds + 1e-9
    assert explain(NORMALS[0], [clip, clip[:800]]).seconds[1] <= 5


def test_silence_is_quiet_and_nothing_else() -> None:
    silence = np.zeros(RATE * 2, np.float32)
    assert explain(silence, NORMALS).sentence.startswith("quieter throughout")
    assert explain(silence, [silence, silence]).kind == "nothing"
    assert explain(machine(1), [silence]).sentence.startswith("louder throughout")


def test_what_some_were_not_recorded_with_does_not_count() -> None:
    """Those of 8 kHz hold nothing above 4 kHz, however they are resampled."""
    low = []
    for normal in NORMALS:
        lines = np.fft.rfft(normal)
        lines[np.fft.rfftfreq(len(normal), 1 / RATE) > 3900] = 0
        low.append(np.fft.irfft(lines, len(normal)).astype(np.float32))
    assert explain(machine(109), low).sentence.startswith("noise above")
    assert explain(machine(109), low, highest=0.91 * 4000).kind == "nothing"


def test_another_sample_rate_gives_the_same_frequencies() -> None:
    normals = [machine(seed, rate=48_000) for seed in range(4)]
    clip = machine(110, rate=48_000)
    tone = 0.02 * np.sin(2 * np.pi * 3100 * np.arange(len(clip)) / 48_000)
    found = explain((clip + tone).astype(np.float32), normals, 48_000)
    assert found.sentence.startswith("a tone near 3.1 kHz")


FAULTS = {
    ("gearbox", "chipped_tooth"): r"knocks, 1\d a second",
    ("gearbox", "dry_mesh"): r"noise above \d\.\d kHz",
    ("bearing", "poor_lubrication"): r"noise above \d\.\d kHz",
    ("ToyTrain", "chipped_wheel"): r"knocks, \d+ a second",
    ("ToyCar", "deformed_gear"): r"a tone near 4\.\d kHz",
    ("valve", "leak"): r"noise above \d\.\d kHz",
    ("fan", "rubbing"): r"(knocks, 27 a second, |noise )above \d\.\d kHz",
}


@pytest.mark.parametrize("machine_type", sorted({machine_type for machine_type, _ in FAULTS}))
def test_faults_of_simulated_machines_are_described_as_they_were_made(machine_type: str) -> None:
    attributes = MACHINES[machine_type].conditions("source")[1]

    def heard(fault: str | None, seed: int) -> np.ndarray:
        severity = 2.0 if fault else 0.0
        return render(
            Recording(machine_type, "", "test", "source", "normal", attributes, fault, severity, (seed,)), 6.0
        )

    normals = [heard(None, seed) for seed in range(100, 108)]
    for (of, fault), words in FAULTS.items():
        if of == machine_type:
            told = [explain(heard(fault, seed), normals).sentence for seed in (1, 2, 3)]
            assert sum(bool(re.match(words, sentence)) for sentence in told) >= 2, told

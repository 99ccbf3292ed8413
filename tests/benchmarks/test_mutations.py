"""Random damage ends in a verdict or a recording; what does not is caught, named and costs nothing else."""

import os
import re
import signal
import time
from collections import Counter

import numpy as np
import pytest
from click.testing import CliRunner

from ray_asd.benchmarks import mutations
from ray_asd.data import audio
from ray_asd.reasons import REJECTED


def test_damage_at_random_ends_in_a_verdict_or_a_recording() -> None:
    result = CliRunner().invoke(mutations.main, ["--count", "500", "--seed", "3"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    counts = {name: int(number) for number, name in re.findall(r"^ *(\d+) (\w+)$", result.stdout, re.MULTILINE)}
    assert sum(counts.values()) == 500
    assert {"taken", "truncated", "not_audio", "false_header"} <= set(counts) <= {"taken", *REJECTED}
    assert re.search(r"slowest: number \d+, .* ms", result.stdout)
    assert re.search(r"peak memory: \d+ MiB", result.stdout)


def misbehave(number: int) -> str:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 4:
        time.sleep(600)
    if number == 5:
        bytearray(2 * mutations.MEMORY)
    return mutations.TAKEN


def test_a_crash_a_hang_and_too_much_memory_cost_one_file_each() -> None:
    ended = list(mutations.run(misbehave, 8, 5.0))
    assert [each.number for each in ended] == list(range(8))
    outcomes = {each.number: each.outcome for each in ended if each.outcome != mutations.TAKEN}
    assert outcomes == {2: "crash: exit code -9", 4: "hang", 5: "crash: exit code 1"}


def test_mutations_are_many_and_repeatable() -> None:
    made = [mutations.mutation(1, number) for number in range(300)]
    assert [mutations.mutation(1, number) for number in range(300)] == made
    assert mutations.mutation(2, 0) != made[0]
    assert len(set(made)) > 290
    assert len(set(mutations.originals()) & set(made)) < 10  # a cut of nothing, a splice with itself


def test_every_original_is_taken() -> None:
    assert Counter(map(mutations.verdict, mutations.originals())) == {mutations.TAKEN: 2 * len(mutations.KINDS)}
    silence = audio.encode_wav(np.zeros(4000), 16_000)
    assert mutations.verdict(silence) == "silent"


@pytest.mark.parametrize("broken", ["shorter", "not finite"])
def test_a_wrong_decoding_is_noticed(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = audio.decode(mutations.originals()[0], "mean")
    spoilt = whole[:-1] if broken == "shorter" else np.where(np.arange(len(whole)) == 5, np.nan, whole)
    monkeypatch.setattr(audio, "decode", lambda *_: spoilt)
    assert mutations.verdict(mutations.originals()[0]).startswith("wrong: ")

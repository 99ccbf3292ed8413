"""Robustness: valid recordings with bytes flipped, inserted, cut, doubled, spliced, or set to extremes in the header.

    python -m ray_asd.benchmarks.mutations --count 10000 --seed 0

Each file must end as a reject with a reason, or as finite samples of the promised length. A process of its own, with
bounded memory, inspects and decodes them; a crash or a hang costs that file only, and is counted. The same seed and
number always make the same file. Linux only.
"""

import math
import multiprocessing
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path

import click
import numpy as np

from ray_asd.config import SAMPLE_RATE
from ray_asd.data import audio
from ray_asd.reasons import REJECTED

TAKEN, WRONG, CRASH, HANG = "taken", "wrong", "crash", "hang"
MEMORY = 512 << 20  # bytes of address space beyond what the imports took
START_SECONDS = 120.0  # for the imports of the process
HEADER = 100  # bytes, where most of the damage is done
EXTREMES = (
    0,
    1,
    2,
    7,
    127,
    128,
    255,
    256,
    32_767,
    65_535,
    65_536,
    2**31 - 1,
    2**31,
    2**32 - 2,
    2**32 - 1,
    2**63,
    2**64 - 1,
)
KINDS = [
    *(("WAV", subtype) for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")),
    *(("WAVEX", subtype) for subtype in ("PCM_16", "PCM_24", "FLOAT")),
    *(("RF64", subtype) for subtype in ("PCM_16", "FLOAT")),
    *(("FLAC", subtype) for subtype in ("PCM_S8", "PCM_16", "PCM_24")),
]

Random = np.random.Generator
Work = Callable[[int], str]


@dataclass(frozen=True)
class Ended:
    """How one file ended: a reason, TAKEN, WRONG: why, CRASH or HANG; seconds; the most memory so far, in bytes."""

    number: int
    outcome: str
    seconds: float
    peak: int


@click.command()
@click.option("--count", default=10_000, show_default=True, help="How many files.")
@click.option("--seed", default=0, show_default=True)
@click.option("--limit", default=10.0, show_default=True, help="Seconds after which a file counts as a hang.")
def main(count: int, seed: int, limit: float) -> None:
    """Damage valid recordings at random; count how inspecting and decoding them ends."""
    ended = list(run(Check(seed), count, limit))
    failed = [each for each in ended if each.outcome != TAKEN and each.outcome not in REJECTED]
    counts = Counter(each.outcome.split(":")[0] for each in ended)
    for outcome, number in counts.most_common():
        click.echo(f"{number:6} {outcome}")
    slowest = max(ended, key=lambda each: each.seconds)
    click.echo(f"slowest: number {slowest.number}, {1e3 * slowest.seconds:.1f} ms ({slowest.outcome})")
    grown = max(each.peak for each in ended) - min(each.peak for each in ended)
    click.echo(
        f"peak memory: {max(each.peak for each in ended) >> 20} MiB, {grown >> 20} MiB more than after the first"
    )
    for each in failed:
        click.echo(f"number {each.number} of seed {seed}: {each.outcome}", err=True)
    if failed:
        raise SystemExit(1)


@dataclass(frozen=True)
class Check:
    """Inspects and decodes the damaged file of a number."""

    seed: int

    def __call__(self, number: int) -> str:
        return verdict(mutation(self.seed, number))


def verdict(data: bytes) -> str:
    """The reason why ``data`` is rejected, TAKEN, or WRONG with what is."""
    try:
        info = audio.inspect(data)
    except audio.BadAudio as error:
        return error.reason
    waveform = audio.decode(data, "mean")
    promised = math.ceil(info.num_samples * SAMPLE_RATE / info.sample_rate)
    if len(waveform) != promised:
        return f"{WRONG}: {len(waveform)} samples instead of {promised}"
    return TAKEN if np.isfinite(waveform).all() else f"{WRONG}: samples that are not finite"


def mutation(seed: int, number: int) -> bytes:
    """A valid recording, damaged in one to three places."""
    random = np.random.default_rng([seed, number])
    data = originals()[random.integers(len(originals()))]
    for _ in range(random.integers(1, 4)):
        data = DAMAGES[random.integers(len(DAMAGES))](data, random)
    return data


@lru_cache(maxsize=1)
def originals() -> list[bytes]:
    """Valid recordings of every kind, a fifth of a second long."""
    random = np.random.default_rng(0)
    made = []
    for container, subtype in KINDS:
        for rate, channels in ((16_000, 1), (44_100, 2)):
            noise = random.uniform(-0.9, 0.9, (rate // 5, channels))
            made.append(audio.encode(noise, rate, container, subtype))
    return made


def run(work: Work, count: int, limit: float) -> Iterator[Ended]:
    """``work`` of 0 to ``count`` - 1, in a process that is started anew after a crash or a hang."""
    done = 0
    context = multiprocessing.get_context("spawn")
    while done < count:
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_serve, args=(work, done, count, there), daemon=True)
        process.start()
        there.close()
        try:
            for ended in _answers(here, limit):
                yield ended
                done = ended.number + 1
            if done < count:
                process.join(limit)
                yield Ended(done, HANG if process.is_alive() else f"{CRASH}: exit code {process.exitcode}", limit, 0)
                done += 1
        finally:
            process.kill()
            process.join()


def _answers(here: Connection, limit: float) -> Iterator[Ended]:
    """What the process sends, until it ends or says nothing for ``limit`` seconds."""
    patience = START_SECONDS
    try:
        while here.poll(patience):
            answer = here.recv()
            patience = limit
            if answer is not None:  # sent once, before the first file
                yield answer
    except EOFError:
        return


def _serve(work: Work, first: int, count: int, there: Connection) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    bound = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    there.send(None)
    for number in range(first, count):
        begun = time.perf_counter()
        outcome = work(number)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        there.send(Ended(number, outcome, time.perf_counter() - begun, peak))


def _place(data: bytes, random: Random) -> int:
    """Three times out of four in the header."""
    return int(random.integers(max(1, min(len(data), HEADER) if random.random() < 0.75 else len(data))))


def _flip(data: bytes, random: Random) -> bytes:
    at = _place(data, random)
    return data[:at] + bytes(byte ^ 1 << int(random.integers(8)) for byte in data[at : at + 1]) + data[at + 1 :]


def _overwrite(data: bytes, random: Random) -> bytes:
    at, new = _place(data, random), random.bytes(int(random.integers(1, 64)))
    return data[:at] + new + data[at + len(new) :]


def _insert(data: bytes, random: Random) -> bytes:
    at = _place(data, random)
    return data[:at] + random.bytes(int(random.integers(1, 64))) + data[at:]


def _delete(data: bytes, random: Random) -> bytes:
    at = _place(data, random)
    return data[:at] + data[at + int(random.integers(1, 64)) :]


def _cut(data: bytes, random: Random) -> bytes:
    return data[: random.integers(len(data) + 1)]


def _double(data: bytes, random: Random) -> bytes:
    start, end = sorted((_place(data, random), _place(data, random)))
    return data[:end] + data[start:]


def _splice(data: bytes, random: Random) -> bytes:
    other = originals()[random.integers(len(originals()))]
    at = _place(data, random)
    return data[:at] + other[at:]


def _extreme(data: bytes, random: Random) -> bytes:
    """A field of 1 to 8 bytes, of either byte order, set to a value at an edge."""
    size = int(random.choice((1, 2, 4, 8)))
    at = _place(data, random) // 2 * 2
    value = EXTREMES[random.integers(len(EXTREMES))] % (1 << 8 * size)
    return data[:at] + value.to_bytes(size, "big" if random.random() < 0.3 else "little") + data[at + size :]


DAMAGES = (_flip, _overwrite, _insert, _delete, _cut, _double, _splice, _extreme, _extreme)


if __name__ == "__main__":
    main()

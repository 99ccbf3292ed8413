"""What the benchmarks share: timing in alternation, and tables of ratios that say on what they were measured."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

Work = Callable[[], object]

_PAUSE = 0.2  # seconds until the threads of the variant before no longer spin


@dataclass(frozen=True)
class Times:
    """Seconds of each repetition."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        return f"{self.median:.3g} ({min(self.seconds):.3g}-{max(self.seconds):.3g})"


def alternate(variants: Mapping[str, Work], repetitions: int) -> dict[str, Times]:
    """Time each variant that often, in turns, so that whatever slows the machine slows all of them.

    One round before is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for repetition in range(repetitions + 1):
        for name, work in variants.items():
            time.sleep(_PAUSE)
            begun = time.perf_counter()
            work()
            if repetition:
                seconds[name].append(time.perf_counter() - begun)
    return {name: Times(tuple(taken)) for name, taken in seconds.items()}


def fastest(variants: Mapping[str, Work], repetitions: int = 3) -> str:
    """The name of the variant with the smallest median."""
    times = alternate(variants, repetitions)
    return min(times, key=lambda name: times[name].median)


def hardware(*packages: str) -> str:
    """One line: processor or GPU, cores, threads of torch and the versions of ``packages`` that are installed."""
    processor = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    found = [f"{name} {installed}" for name in ("torch", *packages) if (installed := _version(name))]
    cores = len(os.sched_getaffinity(0))
    return f"{processor}, {cores} cores, {torch.get_num_threads()} threads, " + ", ".join(found)


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    for line in information.read_text().splitlines() if information.exists() else ():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def rates(title: str, what: str, count: int, times: Mapping[str, Times]) -> str:
    """A table of variants that each do ``count`` of ``what``: seconds, rate, and how much faster the first one is."""
    first = next(iter(times))
    rows = [
        [name, str(taken), f"{count / taken.median:,.0f}", f"{taken.median / times[first].median:.2f}"]
        for name, taken in times.items()
    ]
    return table([title, "s", f"{what}/s", f"{first} is faster"], rows)

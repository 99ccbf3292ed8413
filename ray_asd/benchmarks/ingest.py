"""Ingest of a source that has grown: only new recordings are read, and CLIPS are those of a full run.

    python -m ray_asd.benchmarks.ingest

Recordings are short tones of the fleet layout, each of another content.
"""

import tempfile
import time
from pathlib import Path

import click
import numpy as np

from ray_asd.benchmarks import measure
from ray_asd.build import Output, steps
from ray_asd.config import SAMPLE_RATE, Worker
from ray_asd.data.audio import encode_wav
from ray_asd.data.source import Source
from ray_asd.engine import connection
from ray_asd.engine.progress import silent
from ray_asd.stages.recordings import ingest
from ray_asd.tables import Folder

_SECONDS = 0.5


@click.command()
@click.option("--clips", default=20_000, show_default=True)
@click.option("--new", default=0.01, show_default=True, help="The share of them that comes later.")
def main(clips: int, new: float) -> None:
    """Time an ingest from nothing, one after a share of new recordings, and one of all of them from nothing."""
    later = max(1, round(clips * new))
    with tempfile.TemporaryDirectory() as folder, connection.connected():
        source, root, other = (str(Path(folder) / name) for name in ("fleet", "root", "other"))
        _record(source, range(clips - later))
        first = _timed(source, root)
        _record(source, range(clips - later, clips))
        grown, full = _timed(source, root), _timed(source, other)
        named = {"from nothing": first, f"{later} more": grown, "all from nothing": full}
        click.echo(measure.hardware("pyarrow"))
        rows = [
            [name, _decoded(output), f"{seconds:.1f}", f"{full[1] / seconds:.1f}"]
            for name, (output, seconds) in named.items()
        ]
        click.echo(measure.table(["ingest", "decoded", "seconds", "faster than all"], rows) + "\n")
        same = grown[0].table(Folder.CLIPS).equals(full[0].table(Folder.CLIPS))
        click.echo(f"CLIPS of the grown source {'equal' if same else 'DIFFER FROM'} those of the full run")


def _record(source: str, numbers: range) -> None:
    folder = Path(source) / "fan" / "train"
    folder.mkdir(parents=True, exist_ok=True)
    time_axis = np.arange(round(_SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    for number in numbers:
        tone = 0.1 * np.sin(2 * np.pi * (100 + number / 10) * time_axis)
        name = f"section_00_source_train_normal_{number:06d}_speed_{number % 7}.wav"
        (folder / name).write_bytes(encode_wav(tone.astype(np.float32), SAMPLE_RATE))


def _timed(source: str, root: str) -> tuple[Output, float]:
    begun = time.perf_counter()
    output = steps.ensure(ingest.step(Source(source), Worker(), silent), root)
    return output, time.perf_counter() - begun


def _decoded(output: Output) -> str:
    return f"{output.marker.counts['decoded']:,} of {output.marker.counts['clips']:,}"


if __name__ == "__main__":
    main()

"""What stands beside a suspect are the recordings it is nearest to, though others may go by their names."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from ray_asd import build, tables
from ray_asd.build import Attempt, Key, Outcome, Output
from ray_asd.data import audio
from ray_asd.report.run import Run
from ray_asd.report.suspects import suspects
from training_clips import row

RATE = 16_000


def recorded(folder: Path, name: str, hertz: float, **values: object) -> dict[str, object]:
    """A row of CLIPS whose recording is a tone."""
    data = audio.encode_wav(0.3 * np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE), RATE)
    path = folder / f"{hertz}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return row(name, uri=str(path), content_hash=audio.content_hash(data), **values)


def output(root: Path, stage: str, folder: str, table: pa.Table) -> Output:
    def work(attempt: Attempt) -> Outcome:
        return Outcome([attempt.put_table(f"{folder}/00000.parquet", table)], {})

    return build.run(str(root), Key(stage, root.name, 1, {}, {}), work)


def test_a_neighbour_is_shown_by_its_content(tmp_path: Path) -> None:
    monday = [recorded(tmp_path / "mon", f"night/{n}.wav", 300 + n, condition="healthy") for n in range(3)]
    tuesday = [recorded(tmp_path / "tue", f"night/{n}.wav", 3000 + n, split="test", condition="odd") for n in range(3)]
    bank, clips = (
        output(tmp_path / name, "ingest", "clips", pa.Table.from_pylist(rows, schema=tables.CLIPS))
        for name, rows in (("bank", monday), ("clips", tuesday))
    )
    scored = [
        {name: clip.get(name) for name in tables.SCORES.names}
        | {"score": 1.0 + place, "neighbours": ["night/1.wav", "night/0.wav"], "distances": [0.1, 0.2]}
        | {"neighbour_hashes": [monday[1]["content_hash"], monday[0]["content_hash"]]}
        | {"system": "spectral", "model_digest": ""}
        for place, clip in enumerate(tuesday)
    ]
    scores = output(tmp_path / "scores", "score", "scores", pa.Table.from_pylist(scored, schema=tables.SCORES))
    run = Run("spectral", None, None, None, None, scores, None, None, clips, bank, [])
    section = suspects(run, 3, with_audio=False)
    shown = [[Path(sound.uri).relative_to(tmp_path) for sound in suspect.sounds] for suspect in section.suspects]
    neighbours = [Path("mon/301.wav"), Path("mon/300.wav")]
    assert shown == [[Path(f"tue/{hertz}.wav"), *neighbours] for hertz in (3002, 3001, 3000)]
    assert {record["condition"] for record in section.files["clips.csv"]} == {"odd"}
    assert not any(sound.missing for suspect in section.suspects for sound in suspect.sounds)

"""Each benchmark runs through on little data and compares all it names; how fast anything is, no test asserts."""

import importlib.util
import os
import re

import pytest
import ray
from click.testing import CliRunner

from ray_asd.benchmarks import augmentation, autoencoder, embedding, ingest, knn, limit, planning, training


def rows(printed: str, first: str) -> dict[str, list[str]]:
    """Cells of the table whose first heading is ``first``, by their first cell."""
    lines = printed[printed.index(f"| {first} |") :].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name: rest for name, *rest in cells}


@pytest.mark.filterwarnings("ignore")
def test_embedding_against_transformers() -> None:
    options = ["--family", "wavlm", "--size", "tiny", "--windows", "2", "--seconds", "0.5", "--repetitions", "1"]
    result = CliRunner().invoke(embedding.main, options, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = rows(result.output, "wavlm")
    assert {"packed float32"} <= found.keys()
    assert {re.sub(", batches of .*", "", name) for name in found} >= {"plain float32", "bf16 autocast"}
    error = float(re.findall(r"packed float32: (\S+)", result.output)[0])
    assert error < 1e-5


def test_augmentation_against_torchaudio() -> None:
    options = ["--clips", "1", "--seconds", "1", "--repetitions", "1"]
    result = CliRunner().invoke(augmentation.main, options, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    for mode, least in (("resample", 60), ("stretch", 20)):
        found = rows(result.output, mode)
        assert {"ray_asd", "torchaudio"} <= found.keys()
        assert all(float(snr.removesuffix(" dB")) > least for snr in found["ray_asd"][2:])


def test_knn_against_faiss_and_scikit_learn() -> None:
    options = ["--bank", "200", "--dim", "8", "--queries", "16", "--repetitions", "1"]
    result = CliRunner().invoke(knn.main, options, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert rows(result.output, "bank of 200").keys() == {"ray_asd", "FAISS", "scikit-learn"}


@pytest.mark.filterwarnings("ignore")
def test_training_against_the_trainer() -> None:
    options = ["--family", "wavlm", "--size", "tiny", "--batch", "2", "--seconds", "0.5", "--steps", "2"]
    result = CliRunner().invoke(training.main, [*options, "--repetitions", "1"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = rows(result.output, "wavlm, float32")
    assert found.keys() == {"ray_asd"} | ({"Trainer"} if importlib.util.find_spec("accelerate") else set())
    assert re.search(r"waiting for input: \d+\.\d+% of our time", result.output)


def test_autoencoder_against_a_data_loader() -> None:
    options = ["--clips", "4", "--seconds", "1", "--repetitions", "1"]
    result = CliRunner().invoke(autoencoder.main, options, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert rows(result.output, "AutoEncoder").keys() == {"ray_asd", "DataLoader"}


@pytest.mark.filterwarnings("ignore")
def test_limit_and_the_share_of_it_that_is_reached() -> None:
    options = ["--family", "hubert", "--size", "tiny", "--windows", "1", "--megabytes", "4", "--repetitions", "1"]
    result = CliRunner().invoke(limit.main, options, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "float32, torch's linear" in rows(result.output, "1584 x 768 x 3072")
    heading = re.findall(r"\| (hubert, \S+ GFLOP a window) \|", result.output)[0]
    assert float(heading.split()[1]) > 0
    assert "packed float32" in rows(result.output, heading)
    assert re.search(r"memory, read and written: [\d.]+ GB/s", result.output)


@pytest.mark.usefixtures("ray_session")
def test_ingest_of_a_source_that_has_grown() -> None:
    result = CliRunner().invoke(ingest.main, ["--clips", "50", "--new", "0.1"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    decoded = {name: cells[0] for name, cells in rows(result.output, "ingest").items()}
    assert decoded == {"from nothing": "45 of 45", "5 more": "5 of 50", "all from nothing": "50 of 50"}
    assert result.output.splitlines()[-1] == "CLIPS of the grown source equal those of the full run"


SIZES = os.environ.get("PLANNED_CLIPS", "").split(",")
MOST_BYTES = {"listed": 500, "ingested": 1_200}  # of the driver's memory, for a clip more


@pytest.mark.skipif("PLANNED_CLIPS" not in os.environ, reason="archives of PLANNED_CLIPS clips, such as 15000,60000")
@pytest.mark.usefixtures("ray_session")
def test_a_driver_hardly_grows_with_its_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole tables in memory take 600 bytes a clip to list an archive, and 1,600 to ingest it. What allocators keep of
    freed memory differs by 40 MiB from run to run, which smaller archives would not tell from that.
    """
    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    options = [f"--clips={size}" for size in SIZES]
    result = CliRunner().invoke(planning.main, [*options, "--no-score"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert rows(result.output, "clips").keys() == {f"{int(size):,}" for size in SIZES}
    grown = dict(re.findall(r"(\w+): \S+ times the memory, (-?[\d.]+) bytes a clip", result.output))
    assert grown.keys() == MOST_BYTES.keys()
    assert all(float(per_clip) < MOST_BYTES[phase] for phase, per_clip in grown.items()), result.output

from click.testing import CliRunner

from ray_asd.benchmarks import bank, knn

SMALL = ["--rows", "3000", "--dim", "16", "--queries", "20", "--sample", "50"]


def rows(output: str) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in output.splitlines() if "|" in line]
    return {first: others for first, *others in lines[2:]}


def test_a_bank_is_written_opened_and_searched_in_shards() -> None:
    result = CliRunner().invoke(bank.main, [*SMALL, "--shards", "3"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    steps = rows(result.output)
    assert steps.keys() == {"write", "open and search"}
    assert all(0.01 < float(peak) < 2 for _, peak, _ in steps.values())
    assert "files: 0.00 GB" in result.output


def test_an_index_is_built_and_its_recall_measured() -> None:
    result = CliRunner().invoke(bank.main, [*SMALL, "--set", "scoring.index.kind=ivf"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert 0.1 < float(rows(result.output)["recall"][-1]) <= 1


def test_an_index_of_one_piece_does_not_serve_shards() -> None:
    result = CliRunner().invoke(bank.main, [*SMALL, "--set", "scoring.index.kind=ivf", "--shards", "2"])
    assert result.exit_code == 2
    assert "--shards" in result.output


def test_many_groups_against_faiss_alone() -> None:
    options = ["--groups", "30", "--bank", "20", "--dim", "8", "--queries", "40", "--repetitions", "1"]
    result = CliRunner().invoke(knn.main, [*options, "--against", "FAISS"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "30 groups of 20" in result.output
    assert rows(result.output).keys() == {"ray_asd", "FAISS"}

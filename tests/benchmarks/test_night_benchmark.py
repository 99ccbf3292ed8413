import pytest
from click.testing import CliRunner

from ray_asd.benchmarks import night


@pytest.mark.usefixtures("ray_session")
def test_a_night_and_plain_scoring_hear_the_same_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process instead of one for each run."""

    def here(module: str, *arguments: object) -> str:
        assert module == night.__name__
        done = CliRunner().invoke(night.main, [*map(str, arguments)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output.splitlines()[-1]

    monkeypatch.setattr(night, "last_line", here)
    printed = here(night.__name__, "--clips", "40", "--machines", "4", "--repetitions", "1")
    clips, *cells = [cell.strip() for cell in printed.strip("|").split("|")]
    assert (clips, cells[0], cells[3]) == ("40", "40", "40")
    assert float(cells[-1]) > 0

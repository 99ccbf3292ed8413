import pytest
from click.testing import CliRunner

from ray_asd.benchmarks import night


@pytest.mark.usefixtures("ray_session")
def test_a_night_and_plain_scoring_hear_the_same_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process instead of one for each run."""

    def here(*arguments: object) -> str:
        done = CliRunner().invoke(night.main, [*map(str, arguments)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output.splitlines()[-1]

    monkeypatch.setattr(night, "_alone", here)
    printed = here("--clips", "40", "--machines", "4", "--repetitions", "1")
    clips, *cells = [cell.strip() for cell in printed.strip("|").split("|")]
    assert (clips, cells[0], cells[3]) == ("40", "40", "40")
    assert float(cells[-1]) > 0

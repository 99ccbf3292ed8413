import pytest
import ray
from click.testing import CliRunner

from ray_asd.benchmarks import night


@pytest.mark.usefixtures("ray_session")
def test_a_night_and_plain_scoring_hear_the_same_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    result = CliRunner().invoke(
        night.main, ["--clips", "40", "--machines", "4", "--repetitions", "1"], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    clips, *cells = [cell.strip() for cell in result.output.splitlines()[-1].strip("|").split("|")]
    assert (clips, cells[0], cells[3]) == ("40", "40", "40")
    assert float(cells[-1]) > 0

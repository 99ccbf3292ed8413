"""A tenth of the plant of ``benchmarks.fleet``: which of its machines fail is found, and no clip is lost on the way."""

from pathlib import Path

import pytest

from ray_asd.benchmarks import fleet
from ray_asd.data.units import Plant
from ray_asd.engine.progress import silent
from ray_asd.scoring import nights
from ray_asd.scoring.alerts import Persistence
from ray_asd.scoring.rules import Settings
from ray_asd.stages.fleet.revisions import Rules


@pytest.mark.usefixtures("ray_session")
def test_nights_of_a_small_plant(tmp_path: Path) -> None:
    plant = Plant(units=20, nights=12, clips=3, healthy=4, growth=1, severity=4.0, seconds=1.5)
    found = fleet.measured(plant, str(tmp_path), Rules(Settings(min_nights=4), Persistence()), silent)
    assert (found["scored"], found["unscored"], found["twice"]) == (20 * 12 * 3, 0, 0)
    assert found["in time"] == found["failing"] == 2
    assert found["false alerts"] == 0
    assert 0.02 <= found.low_share(nights.BY_NIGHTS) <= 0.1
    assert fleet._row(found)[0] == "2 of 2"

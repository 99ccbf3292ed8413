"""Releases that a night is scored with, made once."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from processes import locked
from ray_asd import store
from ray_asd.build import Output
from ray_asd.stages.fleet import registry, release
from ray_asd.stages.fleet.release import Order
from stages import chain
from stages.fleet import plant


@dataclass(frozen=True)
class Releases:
    """Detectors of fans and pumps by version: v1 is current, v2 has other neighbours, v3 few clips of pumps."""

    place: str
    detectors: tuple[Output, ...]

    def copied(self, place: str) -> str:
        """A registry of these versions, of which v1 is current."""
        for detector in self.detectors:
            release.add(detector, place, Order("me"))
        release.make_current(registry.found(place, "v1"), place, Order("me"))
        return place


@pytest.fixture(scope="session")
def releases(ray_session: None, shared: Path) -> Releases:
    """A registry that no test changes, whichever process needs it first."""
    folder = shared / "releases"
    with locked(shared / "releases.lock"):
        root = str(folder / "runs")
        for name in ("healthy", "few"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        clips = plant.healthy(folder / "healthy", root)
        few = plant.healthy(folder / "few", root, {"fan": 24, "pump": 4})
        made = chain.spectral(clips, root), chain.spectral(clips, root, "scoring.backend.neighbours=1")
        found = Releases(str(folder / "registry"), (*made, chain.spectral(few, root)))
        if not store.exists(found.place):
            found.copied(found.place)
    return found

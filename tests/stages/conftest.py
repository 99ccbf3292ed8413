"""One small system and the baselines, trained once per test session on disk, whichever process needs them first."""

from pathlib import Path

import pytest

from processes import locked
from ray_asd.build import Output, steps
from ray_asd.data import simulate
from ray_asd.engine.progress import silent
from ray_asd.stages.training import systems
from stages import chain


@pytest.fixture(scope="session")
def fleet(shared: Path) -> str:
    """Recordings of two machines in the layout of DCASE 2023."""
    folder = shared / "recordings" / "fleet"
    with locked(shared / "fleet.lock"):
        if not folder.exists():
            simulate.write(chain.FLEET, str(folder))
    return str(folder)


@pytest.fixture(scope="session")
def system(ray_session: None, fleet: str, shared: Path) -> chain.Chain:
    """The whole chain on disk: the second process finds what the first one has built."""
    with locked(shared / "system.lock"):
        return chain.built(fleet, str(shared / "system"))


@pytest.fixture(scope="session")
def baselines(system: chain.Chain, shared: Path) -> dict[str, Output]:
    """The baselines' models by method, below the root of the system."""
    with locked(shared / "baselines.lock"):
        return {
            method: steps.ensure(systems.system(chain.baseline(method), system.clips, silent), system.root)
            for method in ("autoencoder", "mobilenet")
        }

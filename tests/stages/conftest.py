"""One small system, trained once per test session on disk."""

import pytest

from ray_asd.data import simulate
from stages import chain


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Recordings of two machines in the layout of DCASE 2023."""
    folder = str(tmp_path_factory.mktemp("recordings") / "fleet")
    simulate.write(chain.FLEET, folder)
    return folder


@pytest.fixture(scope="session")
def system(ray_session: None, fleet: str, tmp_path_factory: pytest.TempPathFactory) -> chain.Chain:
    """The whole chain on disk."""
    return chain.built(fleet, str(tmp_path_factory.mktemp("system") / "root"))

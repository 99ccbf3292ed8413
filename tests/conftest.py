"""What several tests share: an object store, a place in each kind of storage, and one Ray for the whole session."""

import logging
import os
import secrets
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from xdist.scheduler import LoadFileScheduling

from spare import SpareProcess, give_way

# More processes than processors: one thread each. Where a test asks for more, threads that wait for the others of a
# product would spin on processors that these are waiting for. Read when torch is imported, here and by Ray.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Ray's workers give way to everything else by default: a few busy processes beside them, and a minute becomes twenty.
os.environ.setdefault("RAY_worker_niceness", "0")
# Hundreds of processes load the package: where the environment forbids it, each of them would compile it anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Nobody here asks a node's agent for its figures, but for test_local, whose cluster has an environment of its own.
os.environ.setdefault("RAY_enable_metrics_collection", "0")
# Ray's log monitor looks for new files twice a second, of which a session has thousands; nobody here listens to it.
os.environ.setdefault("LOG_NAME_UPDATE_INTERVAL_S", "10")

BUCKET = "ray-asd-tests"
LONGEST = (
    "stages/test_kill.py",
    "stages/fleet/test_nights_disturbed.py",
    "engine/test_worker_group.py",
    "stages/test_sweep.py",
    "stages/detection",
    "cli/test_commands.py",
    "stages/test_storage_faults.py",
    "test_jobs.py",
    "cluster/test_local.py",
    "engine/test_nodes.py",
)


def pytest_configure(config: pytest.Config) -> None:
    """The spare process of the session gives way to the others."""
    give_way(config)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """How files are given to processes, unless another way is asked for."""
    return SpareProcess(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest go first, so that the other process has something to do until they end."""
    longest = [Path(__file__).parent / name for name in LONGEST]

    def place(item: pytest.Item) -> int:
        return next((number for number, path in enumerate(longest) if item.path.is_relative_to(path)), len(longest))

    items.sort(key=place)
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu and not _has_gpu():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="no GPU"))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session")
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of the test session have in common."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if hasattr(request.config, "workerinput") else own


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Copies of remote files go to a folder of this session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ASD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bucket of an object store in a process of its own, which the AWS variables point to."""
    command = [sys.executable, str(Path(__file__).with_name("object_store.py"))]
    log = tmp_path_factory.mktemp("object_store") / "log"
    with (
        log.open("w") as stderr,
        pytest.MonkeyPatch.context() as patch,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as server,
    ):
        try:
            assert server.stdout
            address = server.stdout.readline().strip()
            assert address, log.read_text()
            for variable in [name for name in os.environ if name.startswith("AWS_")]:
                patch.delenv(variable)
            patch.setenv("AWS_ENDPOINT_URL", address)
            patch.setenv("AWS_ACCESS_KEY_ID", "tests")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "tests")
            patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
            boto3.client("s3").create_bucket(Bucket=BUCKET)
            yield f"s3://{BUCKET}"
        finally:
            server.terminate()


@pytest.fixture
def bucket(s3: str, request: pytest.FixtureRequest) -> str:
    """A prefix of the bucket that only this test uses."""
    return f"{s3}/{request.node.originalname}-{uuid.uuid4().hex}"


@pytest.fixture(params=["disk", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place of this test, once on disk and once in the object store."""
    place = str(tmp_path / "root") if request.param == "disk" else request.getfixturevalue("bucket")
    assert isinstance(place, str)
    return place


@pytest.fixture(scope="module")
def by_value(request: pytest.FixtureRequest) -> Iterator[None]:
    """What the module of the test defines travels to Ray's workers, which cannot import it."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(request.module)
    yield
    cloudpickle.unregister_pickle_by_value(request.module)


@pytest.fixture(scope="session")
def ray_session(s3: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One local Ray with two CPUs, started after the object store so that its workers know the way there.

    It turns token authentication on by itself and finds the token here instead of writing one to the home folder.
    """
    import ray

    token = tmp_path_factory.mktemp("ray") / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        patch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
        patch.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # as of any local Ray of the program
        ray.init(
            "local",
            num_cpus=2,
            num_gpus=1,  # Ray takes our word for it: what it does with GPUs needs none
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
        )
        yield
        ray.shutdown()

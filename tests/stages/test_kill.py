"""Training that is killed and submitted again ends with the very weights of a run that nothing happened to.

Dropout and SpecAugment are on. ``KILL_ROUNDS`` (environment, default 0) is the number of rounds of random kills; with
any, two workers train instead of one, worker and driver are killed once more where it hurts, a training loses its node,
and Ctrl-C is tried too.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import ray

import clusters
import processes
from ray_asd import build, config, store
from ray_asd.build import Output, archive
from ray_asd.build.steps import Step, ensure
from ray_asd.data import simulate
from ray_asd.data.simulate import Fleet
from ray_asd.engine.progress import silent
from ray_asd.stages.training import systems
from ray_asd.tables import Folder
from stages import chain

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("KILL_ROUNDS", "0"))
more_rounds = pytest.mark.skipif(ROUNDS == 0, reason="a training more, for KILL_ROUNDS")
STEPS, EVERY = 24 if ROUNDS else 12, 2
SETTINGS = (
    "augmentation=null",
    "transformer_pooling=null",
    "backbone.dropout=0.1",
    "backbone.spec_augment=true",
    "embedding.dim=16",
    f"training.steps={STEPS}",
    f"training.checkpoint_every={EVERY}",
    "training.batch_size=4",
    "training.crop_seconds=1",
    f"training.workers={2 if ROUNDS else 1}",
)
SEARCH = os.pathsep.join([str(Path(__file__).parent / "faults"), os.environ.get("PYTHONPATH", "")])
FAULTS = [
    f"os.rename self step-{2 * EVERY:08d}/state.pt$",  # in the data
    f"os.rename driver step-{4 * EVERY:08d}-\\d+.json$",  # after the data, before its record
    *(["os.link driver /marker.json$", f"os.rename self step-{3 * EVERY:08d}-\\d+.json$"] if ROUNDS else []),
]


def elsewhere(command: list[str], log: Path, **environment: str) -> "subprocess.Popen[bytes]":
    """A process of its own that runs this command line; its stderr goes to ``log``."""
    program = Path(sys.executable).with_name("ray-asd")
    with log.open("wb") as stderr:
        return subprocess.Popen(
            [program, *command], stdout=subprocess.DEVNULL, stderr=stderr, env=os.environ | environment
        )


class Submission:
    """One and the same training below one root, submitted as often as a test likes."""

    def __init__(self, system: chain.Chain, root: str) -> None:
        for output in (system.clips, system.originals):  # the stages before it are done
            for entry in store.listing(output.uri):
                place = store.join(root, output.uri.removeprefix(f"{system.root}/"), entry.path)
                store.write(place, store.read(store.join(output.uri, entry.path)))
        self.root = root
        self.clips = build.resolve(store.join(root, system.clips.uri.removeprefix(f"{system.root}/")), "ingest")
        self.step: Step = systems.system(config.load("tiny", SETTINGS), self.clips, silent)
        self.folder = self.step.key(root).folder(root)

    def here(self) -> Output:
        """Submit it in this process, whose Ray is up."""
        output = ensure(self.step, self.root)
        assert not output.reused
        return output

    def elsewhere(self, log: Path, **environment: str) -> "subprocess.Popen[bytes]":
        """Submit it by the command line; its stderr goes to ``log``."""
        command = ["train", "--recipe", "tiny", "--out", self.root, "--clips", self.clips.uri]
        command += [part for setting in SETTINGS for part in ("--set", setting)]
        return elsewhere(command, log, **environment)

    def steps(self, token: int | None = None) -> int:
        """After how many steps the newest state was recorded, by the driver of that token."""
        names = store.files(store.join(self.folder, "checkpoints"))
        ending = ".json" if token is None else f"-{token:06d}.json"
        return max((int(name.split("-")[1]) for name in names if name.endswith(ending) and "step-" in name), default=0)

    def wait_for(self, step: int, process: "subprocess.Popen[bytes] | None" = None) -> None:
        deadline = time.monotonic() + 300
        while self.steps() < step:
            assert process is None or process.poll() is None, "it ended too early"
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.fixture(scope="module")
def undisturbed(system: chain.Chain, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """sha256 of the weights and of the loss curve of a run that nothing happened to."""
    return digests(Submission(system, str(tmp_path_factory.mktemp("undisturbed") / "root")).here())


def digests(output: Output) -> dict[str, str]:
    return {file.path: file.sha256 for file in output.marker.files if file.path != "model.json"}


def workers() -> list[int]:
    """Ids of the training workers' processes below this one."""
    return processes.below_this_one(b"RayTrainWorker")


@contextmanager
def killing_a_worker(submission: Submission, step: int, draw: random.Random) -> Iterator[None]:
    """Kill one of the workers of this process's Ray as soon as a state after ``step`` is there."""
    with ThreadPoolExecutor(1) as pool:

        def kill() -> None:
            submission.wait_for(step)
            while not (running := workers()):
                time.sleep(0.1)
            time.sleep(draw.uniform(0, 0.1))  # its last steps take longer
            os.kill(draw.choice(running), signal.SIGKILL)

        killed = pool.submit(kill)
        yield
        killed.result()


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_killed_at_random(
    system: chain.Chain, undisturbed: dict[str, str], bucket: str, tmp_path: Path, seed: int
) -> None:
    """One driver by SIGKILL, the next by SIGTERM, then a worker; by turns in an object store and on disk."""
    draw = random.Random(seed)
    submission = Submission(system, str(tmp_path / "root") if seed % 2 else store.join(bucket, "root"))
    driver = submission.elsewhere(tmp_path / "log", RAY_ADDRESS=address())
    submission.wait_for(draw.randrange(1, STEPS // EVERY // 2) * EVERY, driver)
    time.sleep(draw.uniform(0, 0.3))
    driver.kill()
    assert driver.wait() == -signal.SIGKILL
    stopped = stopped_by_sigterm(submission, tmp_path / "log", RAY_ADDRESS=address())
    with killing_a_worker(submission, stopped, draw):
        output = submission.here()
    assert digests(output) == undisturbed
    assert store.folders(submission.folder) == [output.marker.attempt]


def stopped_by_sigterm(submission: Submission, log: Path, **environment: str) -> int:
    """Submit it as the second driver and stop it once it has stored a state; after how many steps it stopped."""
    driver = submission.elsewhere(log, **environment)
    processes.wait_for(lambda: submission.steps(token=2) > 0)
    driver.send_signal(signal.SIGTERM)
    code, said = driver.wait(300), log.read_text()
    assert code == 75, said
    assert "Traceback" not in said
    stopped = submission.steps()
    assert stopped < STEPS
    goes_on = f"ray-asd: train: stopped at step {stopped} of {STEPS}; the same command goes on from there"
    assert said.splitlines()[-1] == goes_on
    return stopped


def address() -> str:
    """Of the Ray of these tests."""
    return str(ray.get_runtime_context().gcs_address)


def test_killed_where_it_hurts(system: chain.Chain, undisturbed: dict[str, str], tmp_path: Path) -> None:
    """A worker, then driver and worker at once, and with rounds one driver by SIGTERM, which waits for a state, and
    another one before its marker; those that are killed have a Ray of their own. The newest state loses half at last.
    """
    submission = Submission(system, str(tmp_path / "root"))
    done = tmp_path / "done"
    done.mkdir()
    faults = {"FAULTS": "\n".join(FAULTS), "FAULTS_DONE": str(done), "PYTHONPATH": SEARCH}
    for marker in (False, True) if ROUNDS else (False,):
        driver = submission.elsewhere(tmp_path / "log", **faults)
        assert driver.wait(300) == -signal.SIGKILL, (tmp_path / "log").read_text()
        happened = {FAULTS[int(entry.name)] for entry in done.iterdir()}
        assert happened == {fault for fault in FAULTS if marker or "marker" not in fault}
        if ROUNDS and not marker:
            stopped_by_sigterm(submission, tmp_path / "log", RAY_ADDRESS=address())
    assert submission.steps() == STEPS or not ROUNDS
    (newest,) = Path(submission.folder).glob(f"checkpoints/*/step-{submission.steps():08d}/state.pt")
    os.truncate(newest, newest.stat().st_size // 2)
    output = submission.here()
    assert digests(output) == undisturbed
    assert store.folders(submission.folder) == [output.marker.attempt]


@dataclass(frozen=True)
class Night:
    """CLIPS and SCORES of a fleet below a root, and what the commands that make them need."""

    recordings: str
    root: str
    clips: Output

    @cached_property
    def detector(self) -> Output:
        return chain.spectral(self.clips, self.root)

    @cached_property
    def scores(self) -> Output:
        return chain.scored(self.detector, self.clips, self.root)

    def ingest(self, root: Path) -> list[str]:
        return ["ingest", self.recordings, "--dataset", "fleet", "--out", str(root)]

    def score(self, root: Path) -> list[str]:
        return ["score", "--detector", self.detector.uri, "--clips", self.clips.uri, "--out", str(root)]


@pytest.fixture(scope="module")
def night(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Night:
    """Five shards of recordings, of which three are scored."""
    folder = tmp_path_factory.mktemp("night")
    recordings, root = str(folder / "fleet"), str(folder / "root")
    simulate.write(Fleet(("fan",), train_source=48, train_target=16, test=24, seconds=1.0), recordings)
    return Night(recordings, root, chain.ingested(recordings, root, dataset="fleet"))


@pytest.mark.parametrize("work", ["ingest", *["score"] * (ROUNDS > 0)])
def test_a_node_is_lost(night: Night, tmp_path: Path, work: str) -> None:
    """In mid-ingest, and with rounds in mid-scoring. The recordings hang so long, so that the node works when it goes;
    Ray notices after some fifteen seconds.
    """
    hangs, root = tmp_path / "HANG@workers", tmp_path / "root"
    hangs.touch()
    faults = {"FAULTS": r"open HANG@workers \.wav$", "FAULTS_ON": str(tmp_path), "PYTHONPATH": SEARCH}
    with clusters.cluster(tmp_path, [{"num_cpus": 2}] * 2, variables=faults) as cluster:
        command = night.ingest(root) if work == "ingest" else night.score(root)
        driver = elsewhere(command, tmp_path / "log", **cluster.environment)
        processes.wait_for(lambda: cluster.at_work(2))
        cluster.remove(2)
        hangs.unlink()
        assert driver.wait(300) == 0, (tmp_path / "log").read_text()
    (made,) = archive.outputs(str(root))
    if work == "ingest":
        assert made.marker.files == night.clips.marker.files
    else:
        assert made.table(Folder.SCORES).equals(night.scores.table(Folder.SCORES))


@more_rounds
def test_a_node_is_lost_in_mid_training(
    system: chain.Chain, undisturbed: dict[str, str], bucket: str, tmp_path: Path
) -> None:
    training = Submission(system, store.join(bucket, "root"))
    with clusters.cluster(tmp_path, [{"num_cpus": 2}] * 2) as cluster:
        driver = training.elsewhere(tmp_path / "log", **cluster.environment)
        training.wait_for(EVERY, driver)
        (lost,) = (node for node in (1, 2) if "ray::RayTrainWorker" in str(cluster.at_work(node)))
        assert training.steps() < STEPS
        cluster.remove(lost)
        assert driver.wait(300) == 0, (tmp_path / "log").read_text()
    assert digests(build.resolve(training.folder, "train")) == undisturbed


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C counts for the processes that a test starts, even where these tests run in a shell's background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@more_rounds
@pytest.mark.usefixtures("interruptible")
def test_interrupted(system: chain.Chain, tmp_path: Path) -> None:
    """Ctrl-C waits for nothing."""
    submission = Submission(system, str(tmp_path / "root"))
    driver = submission.elsewhere(tmp_path / "log", RAY_ADDRESS=address())
    submission.wait_for(EVERY, driver)
    driver.send_signal(signal.SIGINT)
    code, log = driver.wait(300), (tmp_path / "log").read_text()
    assert code == 1, log
    assert "Traceback" not in log
    assert log.splitlines()[-1] == "ray-asd: interrupted"

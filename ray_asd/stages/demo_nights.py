"""Five nights of a small plant, one of whose machines begins to fail: what ``ray-asd nightly`` does every morning."""

from collections.abc import Iterator
from datetime import date

from ray_asd import store
from ray_asd.build import Output
from ray_asd.config import Resources
from ray_asd.data import units
from ray_asd.data.source import Source
from ray_asd.data.units import PATTERN, Plant
from ray_asd.engine.progress import Progress
from ray_asd.engine.session import Bring, session
from ray_asd.stages.detection import enroll
from ray_asd.stages.fleet import nightly, registry, release
from ray_asd.stages.fleet.dates import Arrivals
from ray_asd.stages.fleet.nightly import Ended, Watch
from ray_asd.stages.fleet.revisions import Fleet
from ray_asd.stages.recordings import ingest
from ray_asd.stages.training import usage

PROCESSES = 2


def plant(seed: int) -> Plant:
    """One unit of each type. They can alarm from the first night on: as many nights as one alarm among M machines
    takes were enrolled for calibration, one divided by the rate of false ones."""
    return Plant(units=7, nights=5, clips=4, healthy=36, faulty=1 / 7, growth=1, severity=4.0, seed=seed)


def place(root: str, seed: int) -> str:
    """Where the plant's recordings lie."""
    return store.join(root, f"plant-seed{seed}")


def prepare(root: str, seed: int, resources: Resources, progress: Progress) -> Fleet:
    """Simulate the plant below ``root``, enrol its healthy nights and release the detector: a fleet without nights."""
    recordings, releases = place(root, seed), store.join(root, f"registry-seed{seed}")
    units.write(plant(seed), recordings, PROCESSES, lambda done, total: progress("simulate", done, total))
    with session(root, progress) as bring:
        released(recordings, releases, resources, bring, progress)
    return Fleet(store.join(root, f"fleet-seed{seed}"), releases, resources=resources)


def released(recordings: str, releases: str, resources: Resources, bring: Bring, progress: Progress) -> Output:
    """The detector of a plant's healthy nights, made current in a registry: spectral features, default back-end."""
    source = Source(store.join(recordings, units.ENROL), pattern=f"{{split}}/{PATTERN}")
    clips = bring(ingest.step(source, resources.ingest, progress))
    detector = bring(enroll.step([usage.features(usage.SPECTRAL)], clips, progress))
    seen = registry.newest(releases) if registry.is_registry(releases) else None
    order = release.Order(registry.whoever(), "of simulated nights", seen)
    version = release.add(detector, releases, order)
    release.make_current(version, releases, order)
    return detector


def nights(fleet: Fleet, plant: Plant, recordings: str, progress: Progress) -> Iterator[tuple[date, Ended]]:
    """Run each night, as ``ray-asd nightly`` does with its defaults."""
    arrivals = Arrivals(Source(store.join(recordings, "{night:%Y-%m-%d}"), pattern=PATTERN, split="test"))
    for day in plant.dates:
        yield day, nightly.run(fleet, Watch(arrivals), day, progress)

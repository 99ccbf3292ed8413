"""Steps: stages that know their inputs, so that asking for the last one builds all that is missing below it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn, Protocol

from ray_asd import build, store
from ray_asd.build import Attempt, Key, Outcome, Output, Source
from ray_asd.config import Worker
from ray_asd.errors import LeaseLost
from ray_asd.store import lease


class Work(Protocol):
    """What makes a stage's output from its inputs, by name."""

    def __call__(self, attempt: Attempt, inputs: Mapping[str, Output]) -> Outcome: ...


@dataclass(frozen=True)
class Step:
    """A stage to be built: its key, its inputs (finished or to be built first), its work and what that needs.

    ``units`` is the number of clips or training steps, ``bytes`` an estimate of what will be written. The output of an
    ``exclusive`` step is made by one process at a time; a ``resumable`` one is made of parts that outlive a kill; one
    that is not ``on_ray`` needs no cluster, and on one a single task of its ``worker``. ``check`` raises UserError for
    what would keep it from being made and can be told before any step is.
    """

    stage: str
    name: str
    code_version: int
    config: Mapping[str, Any]
    inputs: Mapping[str, "Step | Output"]
    work: Work
    units: int
    worker: Worker = Worker()
    workers: int | None = None
    bytes: int | None = None
    exclusive: bool = False
    resumable: bool = False
    on_ray: bool = True
    check: Callable[[], None] | None = None

    def key(self, root: str, find: "Find" = build.find) -> Key:
        inputs = {name: _source(step, root, find) for name, step in self.inputs.items()}
        return Key(self.stage, self.name, self.code_version, self.config, inputs)

    def __reduce__(self) -> NoReturn:
        """What goes to a worker is an output: a step knows its driver, and all that is planned there."""
        raise TypeError(f"step {self.name} of {self.stage} stays in its driver")


Placed = Callable[[Step], Step]
Find = Callable[[str], Output | None]
"""``build.find``, or one that remembers its answers, for plans of many steps."""


def _source(step: Step | Output, root: str, find: Find) -> Source:
    if isinstance(step, Output):
        return step.source
    key = step.key(root, find)
    done = find(key.folder(root))
    return done.source if done else Source(digest=key.digest, uri=key.folder(root))


@dataclass(frozen=True)
class Planned:
    """A step, where its output is or will be, what is there already, and the URIs of the steps it waits for."""

    step: Step
    uri: str
    done: Output | None
    waits_for: tuple[str, ...]


def plan(step: Step, root: str, find: Find = build.find) -> list[Planned]:
    """``step`` and all steps it needs, inputs first, each once. Those below a finished step are left out."""
    find = cache(find)
    found: dict[str, Planned] = {}

    def visit(step: Step) -> str:
        uri = step.key(root, find).folder(root)
        if uri not in found:
            done = find(uri)
            parents = (
                () if done else tuple(visit(parent) for parent in step.inputs.values() if isinstance(parent, Step))
            )
            found[uri] = Planned(step, uri, done, parents)
        return uri

    visit(step)
    return list(found.values())


def check(planned: Iterable[Planned]) -> None:
    """Refuse what is known to be refused in the end, before anything is done for it.

    Raises:
        UserError: the ``check`` of a step that is to be made.
    """
    for entry in planned:
        if entry.step.check and not entry.done:
            entry.step.check()


def ensure(step: Step | Output, root: str, placed: Placed = lambda step: step) -> Output:
    """The output of ``step`` below ``root``: what is there, or what its work makes, its inputs ensured before.

    ``placed`` gives a step the work that is done for it, where that is not its own.
    """
    return _ensure(step, root, placed, _Found())


class _Found(dict[str, Output | None]):
    """Finished stages by their places, each looked for once; ``build.run`` looks again before anything is done."""

    def __missing__(self, folder: str) -> Output | None:
        self[folder] = output = build.find(folder)
        return output


def _ensure(step: Step | Output, root: str, placed: Placed, found: _Found) -> Output:
    if isinstance(step, Output):
        return step
    find = found.__getitem__
    done = find(step.key(root, find).folder(root))
    if done:
        return done
    inputs = {name: _ensure(parent, root, placed, found) for name, parent in step.inputs.items()}
    key = step.key(root, find)  # an input may have turned out to have the content of another
    work = placed(step).work
    if step.exclusive:
        output = _run_alone(root, key, lambda attempt: work(attempt, inputs), step.units)
    else:
        output = build.run(root, key, lambda attempt: work(attempt, inputs), step.units, resumable=step.resumable)
    found[output.uri] = output
    return output


def _run_alone(root: str, key: Key, work: Callable[[Attempt], Outcome], units: int) -> Output:
    """As ``build.run``, under the lease of the stage's folder; whoever loses it waits for the one who took it."""
    store.check_conditional_writes(root)
    folder = key.folder(root)
    while True:
        held = lease.take(folder, finished=lambda: build.find(folder) is not None)
        if held is None:
            return build.resolve(folder, key.stage)
        try:
            with held:
                output = build.run(root, key, work, units, held.fence)
                for child in store.folders(folder):
                    if child != output.marker.attempt:
                        store.remove(store.join(folder, child))
                return output
        except LeaseLost:
            continue

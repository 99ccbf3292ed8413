"""Building steps one after the other below one root, with Ray started only once something has to be done on it."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from ray_asd import archive, steps
from ray_asd.build import Output
from ray_asd.steps import Planned, Step

Bring = Callable[[Step], Output]
"""The output of a step: found where its marker stands, else made."""


@contextmanager
def session(root: str) -> Iterator[Bring]:
    """A ``Bring`` for outputs below ``root``; Ray stays up from the first step that needs it to the block's end."""
    with ExitStack() as stack:
        connected = False

        def bring(step: Step) -> Output:
            nonlocal connected
            planned = steps.plan(step, root)
            if not connected and any(entry.step.on_ray and not entry.done for entry in planned):
                from ray_asd.stages import cluster

                stack.enter_context(cluster.connected())
                connected = True
            return steps.ensure(step, root)

        yield bring


@dataclass(frozen=True)
class Estimate:
    """What a planned step will take: workers, bytes written and hours, where there is something to tell it from."""

    planned: Planned
    hours: float | None

    @property
    def gpu_hours(self) -> float | None:
        """Hours times GPUs held."""
        step = self.planned.step
        return None if self.hours is None else self.hours * step.worker.gpus * (step.workers or 1)


def estimates(plan: Iterable[Planned], root: str) -> list[Estimate]:
    """Each step of ``plan`` timed by the last finished stage of the same kind and name below ``root``, per unit."""
    seconds: dict[tuple[str, str], float] = {}
    for output in archive.outputs(root):
        if output.marker.units:
            seconds[output.marker.stage, output.marker.name] = output.marker.seconds / output.marker.units
    found = []
    for planned in plan:
        per_unit = seconds.get((planned.step.stage, planned.step.name))
        found.append(Estimate(planned, None if per_unit is None else per_unit * planned.step.units / 3600))
    return found

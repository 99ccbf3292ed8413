"""What planned steps will take, told from what the same steps took before."""

from collections.abc import Iterable
from dataclasses import dataclass

from ray_asd.build import archive
from ray_asd.build.steps import Planned


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

"""Where a step is done: on the cluster, on a Ray of this command's own, or in its process; told without Ray."""

from ray_asd.build.steps import Step
from ray_asd.engine.address import cluster
from ray_asd.engine.progress import Progress


def on_ray(step: Step) -> bool:
    """Whether ``step`` is done on Ray: what needs no cluster is where there is one."""
    return step.on_ray or cluster() is not None


def placed(step: Step, progress: Progress) -> Step:
    """``step`` with its work done where it belongs."""
    if step.on_ray or not cluster():
        return step
    from ray_asd.engine.apart import apart

    return apart(step, progress)

"""Building steps one after the other below one root, with Ray started only once something has to be done on it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from ray_asd import store
from ray_asd.build import Output, steps
from ray_asd.build.steps import Step
from ray_asd.engine import where
from ray_asd.engine.progress import Progress, silent

Bring = Callable[[Step], Output]
"""The output of a step: found where its marker stands, else made."""


@contextmanager
def session(root: str, progress: Progress = silent) -> Iterator[Bring]:
    """A ``Bring`` for outputs below ``root``; Ray stays up from the first step that needs it to the block's end.

    Where there is a cluster all steps are done on it.

    Raises:
        UserError: before anything is done, where a step, the cluster or the store says so already.
    """
    with ExitStack() as stack:
        connected = False

        def bring(step: Step) -> Output:
            nonlocal connected
            planned = [entry for entry in steps.plan(step, root) if not entry.done]
            steps.check(planned)
            on_ray = [entry.step for entry in planned if where.on_ray(entry.step)]
            if on_ray:
                from ray_asd.engine import connection

                connection.check_fits(on_ray)
            if planned:
                store.check_conditional_writes(root)
            if on_ray and not connected:
                stack.enter_context(connection.connected())
                connected = True
                connection.check_fits(on_ray)
            return steps.ensure(step, root, lambda needed: where.placed(needed, progress))

        yield bring

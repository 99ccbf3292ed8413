"""A third test process for two processors: it takes what the two others, which often wait for Ray, leave of them.

It starves nobody, for its priority is low and it only has tests that start no Ray: beside a third process that starts
Ray too, a node does not always start within the time that Ray gives it.
"""

import os

import pytest
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

SPARE = "gw2"
LIGHT = tuple(f"tests/{room}/" for room in ("build", "data", "models", "report", "scoring", "store"))


def give_way(config: pytest.Config) -> None:
    """Lower the priority of this process if it is the spare one."""
    if getattr(config, "workerinput", {}).get("workerid") == SPARE:
        os.nice(19)


class SpareProcess(LoadFileScheduling):
    """Files by the order of collection; the spare process has the light ones alone, the others what it leaves."""

    def _assign_work_unit(self, node: WorkerController) -> None:
        spare = node.gateway.id == SPARE and len(self.nodes) > 2
        chosen = next((file for file in self.workqueue if file.startswith(LIGHT) == spare), None)
        if chosen is None and spare:
            node.shutdown()
            return
        if chosen is not None:
            self.workqueue.move_to_end(chosen, last=False)
        super()._assign_work_unit(node)

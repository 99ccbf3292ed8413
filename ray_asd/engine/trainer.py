"""Ray Train's trainer, without the processes that nothing here needs: half of what starting workers costs."""

from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import RayTrainCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from ray_asd.engine.address import cluster


class _Shared(Backend):
    share_cuda_visible_devices = True  # of a node, so that its workers may copy from one to the other


class Devices(BackendConfig):
    """How workers see the GPUs of their nodes."""

    @property
    def backend_cls(self) -> type[Backend]:
        return _Shared


class Trainer(DataParallelTrainer):
    """Runs a function on its workers. These meet by themselves, since a backend for that would import torch here too.

    No actor deals out datasets, since data come from files. And none outlives the controller to clean up behind it on a
    Ray that ends with this process.
    """

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        unneeded = (DatasetsCallback,) if cluster() else (DatasetsCallback, PlacementGroupCleanerCallback)
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, unneeded)]

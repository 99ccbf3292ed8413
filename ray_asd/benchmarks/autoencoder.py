"""AutoEncoder: our training against a straightforward PyTorch loop over the same feature vectors.

    python -m ray_asd.benchmarks.autoencoder

The other one has all vectors in a TensorDataset, a shuffling DataLoader and Adam; the network is the same.
"""

import copy
import math
import tempfile

import click
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from ray_asd import config
from ray_asd.benchmarks import measure, noise_set
from ray_asd.benchmarks.measure import Work
from ray_asd.config import AutoEncoder
from ray_asd.data.sampling import Sampler
from ray_asd.engine.stepping import Stepper
from ray_asd.stages.training.baseline_objectives import PreparedReconstruction, Reconstruction


@click.command()
@click.option("--clips", default=100, show_default=True)
@click.option("--seconds", default=10.0, show_default=True, help="Of each clip.")
@click.option("--repetitions", default=5, show_default=True)
@click.option("--threads", default=torch.get_num_threads(), show_default="torch's")
def main(clips: int, seconds: float, repetitions: int, threads: int) -> None:
    """Time an epoch of the AutoEncoder's training."""
    torch.set_num_threads(threads)
    settings = AutoEncoder(threads=threads)
    with tempfile.TemporaryDirectory() as folder:
        written = noise_set.write(folder, clips, seconds)
        recipe = config.load("paper", ("method=autoencoder", f"autoencoder.threads={threads}"))
        task = Reconstruction([written], [], noise_set.MACHINE_TYPE, recipe)
        prepared = task.prepare()
        vectors = prepared.num_items
        times = measure.alternate({"ray_asd": _ours(task, prepared), "DataLoader": _plain(task, prepared)}, repetitions)
    click.echo(measure.hardware())
    click.echo(f"{vectors} vectors, batches of {settings.batch_size}, {repetitions} epochs in turns\n")
    own = times["ray_asd"].median
    rows = [
        [name, str(taken), f"{vectors / taken.median:,.0f}", f"{taken.median / own:.2f}"]
        for name, taken in times.items()
    ]
    click.echo(measure.table(["AutoEncoder", "s per epoch", "vectors/s", "ray_asd is faster"], rows))


def _ours(task: Reconstruction, prepared: PreparedReconstruction) -> Work:
    settings = task.settings
    stepper = Stepper(prepared, prepared.module, settings)
    sampler = Sampler(prepared.num_items, settings.batch_size, task.seed)
    steps = iter(range(2**62))

    def epoch() -> None:
        for _ in range(math.ceil(prepared.num_items / settings.batch_size)):
            step = next(steps)
            stepper.step(step, sampler.draws(step, 0, 1))

    return epoch


def _plain(task: Reconstruction, prepared: PreparedReconstruction) -> Work:
    pieces, trained = task.vectors()
    dataset = TensorDataset(pieces.take(trained).flatten(start_dim=1))
    loader = DataLoader(dataset, batch_size=task.settings.batch_size, shuffle=True)
    network: nn.Module = copy.deepcopy(prepared.module.network)
    optimizer = torch.optim.Adam(network.parameters(), lr=task.settings.learning_rate)

    def epoch() -> None:
        network.train()
        for (vectors,) in loader:
            optimizer.zero_grad()
            functional.mse_loss(network(vectors), vectors).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return epoch


if __name__ == "__main__":
    main()

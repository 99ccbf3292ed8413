"""The limit: what the hardware multiplies and copies at best, and the share of it that packed backbones reach.

    python -m ray_asd.benchmarks.limit

The product is that of a base model's widest layer over 16 windows of 2 s. Operations of a forward pass are counted by
torch on transformers' own model, products and convolutions alone.
"""

from functools import partial

import click
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ray_asd.benchmarks import measure
from ray_asd.benchmarks.measure import Work
from ray_asd.config import RANDOM_SIZES, SAMPLE_RATE, Backbone
from ray_asd.models import backbones, checkpoints
from ray_asd.models.backbones import SpeechBackbone
from ray_asd.models.checkpoints import FAMILIES
from ray_asd.models.packed import Packed, pack
from ray_asd.models.products import has_bf16

ROWS, INNER, OUTER = 1584, 768, 3072
REPEATS = 5  # of a product within one timing
PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}


@click.command()
@click.option("--family", "families", type=click.Choice(list(FAMILIES)), multiple=True, help="Repeatable; all if none.")
@click.option("--size", type=click.Choice(list(RANDOM_SIZES)), default="base", show_default=True)
@click.option("--windows", default=16, show_default=True, help="Of 2 s.")
@click.option("--megabytes", default=512, show_default=True, help="Of the copy that measures the memory.")
@click.option("--repetitions", default=5, show_default=True)
@click.option("--threads", default=torch.get_num_threads(), show_default="torch's")
def main(families: tuple[str, ...], size: str, windows: int, megabytes: int, repetitions: int, threads: int) -> None:
    """Measure matrix rate, memory bandwidth and what the backbones make of them."""
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precisions = [name for name in PRECISIONS if name == "float32" or has_bf16(device)]
    click.echo(measure.hardware("transformers"))
    click.echo(f"{repetitions} repetitions in turns\n")
    with torch.no_grad():
        rates = _products(device, precisions, repetitions)
        rows = [[name, f"{rate / 1e9:,.0f}"] for name, rate in rates.items()]
        click.echo(measure.table([f"{ROWS} x {INNER} x {OUTER}", "GFLOP/s"], rows))
        click.echo(f"\nmemory, read and written: {_bandwidth(device, megabytes, repetitions) / 1e9:.1f} GB/s\n")
        waveform = torch.randn(windows, 2 * SAMPLE_RATE, generator=torch.Generator().manual_seed(0)).to(device)
        for family in families or FAMILIES:
            click.echo(_shares(family, size, waveform, repetitions, rates) + "\n")


def _products(device: torch.device, precisions: list[str], repetitions: int) -> dict[str, float]:
    """FLOP/s of the product by library and precision."""
    work: dict[str, Work] = {}
    for name in precisions:
        x, weight = (torch.randn(rows, INNER, device=device, dtype=PRECISIONS[name]) for rows in (ROWS, OUTER))
        bias = torch.zeros(OUTER, device=device, dtype=PRECISIONS[name])
        work[f"{name}, torch's linear"] = _repeated(partial(functional.linear, x, weight, bias), device)
        if device.type == "cpu" and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
            work[f"{name}, oneDNN, weights laid out"] = _repeated(_onednn(x, weight, bias), device)
    times = measure.alternate(work, repetitions)
    operations = REPEATS * 2 * ROWS * INNER * OUTER
    return {name: operations / min(taken.seconds) for name, taken in times.items()}


def _onednn(x: Tensor, weight: Tensor, bias: Tensor) -> Work:
    laid_out = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
    return lambda: torch.ops.mkldnn._linear_pointwise(x, laid_out, bias, "none", [], "none")


def _repeated(work: Work, device: torch.device) -> Work:
    def run() -> None:
        for _ in range(REPEATS):
            work()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run


def _bandwidth(device: torch.device, megabytes: int, repetitions: int) -> float:
    """Bytes read and written per second by a copy too large for any cache."""
    source = torch.ones(megabytes * 250_000, device=device)
    target = torch.empty_like(source)
    times = measure.alternate({"copy": _repeated(lambda: target.copy_(source), device)}, repetitions)
    return REPEATS * 2 * source.nbytes / min(times["copy"].seconds)


def _shares(family: str, size: str, waveform: Tensor, repetitions: int, rates: dict[str, float]) -> str:
    config = Backbone.model_validate({"family": family, "source": f"random:{size}"})
    backbone = backbones.load(checkpoints.resolve(config, 0), config).to(waveform.device).eval()
    operations = len(waveform) * _operations(backbone, waveform[:1])
    precisions = sorted({name.split(",")[0] for name in rates}, reverse=True)
    times = measure.alternate({name: _forward(pack(backbone, name), waveform) for name in precisions}, repetitions)
    rows = []
    for name, taken in times.items():
        best = max(rate for product, rate in rates.items() if product.startswith(name))
        rate = operations / taken.median
        rows.append([f"packed {name}", str(taken), f"{rate / 1e9:,.0f}", f"{rate / best:.0%}"])
    heading = f"{family}, {operations / len(waveform) / 1e9:.3g} GFLOP a window"
    return measure.table([heading, "s", "GFLOP/s", "of the product's rate"], rows)


def _operations(backbone: SpeechBackbone, waveform: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        backbone(waveform)
    return int(counter.get_total_flops())


def _forward(packed: SpeechBackbone | Packed, waveform: Tensor) -> Work:
    def run() -> None:
        for _ in packed(waveform):
            pass
        if waveform.is_cuda:
            torch.cuda.synchronize()

    return run


if __name__ == "__main__":
    main()

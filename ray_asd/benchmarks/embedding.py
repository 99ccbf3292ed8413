"""Embedding: packed backbones against transformers' own, plain and under autocast, and against ONNX Runtime.

    python -m ray_asd.benchmarks.embedding

All compute the mean over time of the weighted sum of hidden states, from the same random weights. The others run at the
batch size that is best for them. ONNX Runtime takes part on a CPU where ``onnxruntime`` and ``onnx`` are installed.
"""

import importlib.util
import os
import tempfile
from collections.abc import Callable

import click
import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModel

from ray_asd.benchmarks import measure
from ray_asd.benchmarks.measure import Work
from ray_asd.config import RANDOM_SIZES, Backbone
from ray_asd.models import backbones, checkpoints
from ray_asd.models.backbones import SpeechBackbone
from ray_asd.models.checkpoints import FAMILIES
from ray_asd.models.embedder import WeightedSum
from ray_asd.models.packed import pack
from ray_asd.models.products import has_bf16, keep_float32

BATCH_SIZES = (1, 4, 16)
RATE = 16_000  # Hz

Embed = Callable[[Tensor], object]


class _Pooled(nn.Module):
    """What a user writes around a transformers model: hidden states, their weighted sum, its mean over time."""

    def __init__(self, model: nn.Module, num_states: int) -> None:
        super().__init__()
        self.model = model
        self.weights = nn.Parameter(torch.full((num_states,), 1 / num_states))

    def forward(self, waveform: Tensor) -> Tensor:
        states = torch.stack(self.model(waveform, output_hidden_states=True).hidden_states)
        return (self.weights[:, None, None, None] * states).sum(dim=0).mean(dim=1)


@click.command()
@click.option(
    "--family", "families", type=click.Choice(list(FAMILIES)), multiple=True, default=list(FAMILIES), show_default=True
)
@click.option("--size", type=click.Choice(list(RANDOM_SIZES)), default="base", show_default=True)
@click.option("--windows", default=16, show_default=True)
@click.option("--seconds", default=2.0, show_default=True, help="Of each window.")
@click.option("--repetitions", default=5, show_default=True)
@click.option("--threads", default=torch.get_num_threads(), show_default="torch's")
def main(families: tuple[str, ...], size: str, windows: int, seconds: float, repetitions: int, threads: int) -> None:
    """Time the embedding of windows by each backbone."""
    torch.set_num_threads(threads)
    keep_float32()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    waveform = torch.randn(windows, round(seconds * RATE), generator=torch.Generator().manual_seed(0)).to(device)
    click.echo(measure.hardware("transformers", "onnxruntime"))
    click.echo(f"{windows} windows of {seconds:g} s, {repetitions} repetitions in turns: median (least-most)\n")
    for family in families or FAMILIES:
        click.echo(_compare(family, size, waveform, repetitions) + "\n")


def _compare(family: str, size: str, waveform: Tensor, repetitions: int) -> str:
    config = Backbone.model_validate({"family": family, "source": f"random:{size}"})
    backbone = backbones.load(checkpoints.resolve(config, 0), config).to(waveform.device).eval()
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        ours = {precision: _packed(backbone, precision) for precision in _precisions(waveform.device)}
        errors = {precision: _error(backbone, precision, waveform) for precision in ours}
        others, batches = {}, {}
        for name, embed in _others(backbone, folder).items():
            candidates = {str(size): _batched(embed, waveform, size) for size in BATCH_SIZES}
            batches[name] = measure.fastest(candidates)
            others[name] = candidates[batches[name]]
        mine = {f"packed {precision}": _batched(embed, waveform, len(waveform)) for precision, embed in ours.items()}
        times = measure.alternate({**mine, **others}, repetitions)
    header = [family, "s", "windows/s", *(f"{name} is faster" for name in mine)]
    rows = []
    for name, taken in times.items():
        label = f"{name}, batches of {batches[name]}" if name in batches else name
        ratios = [f"{taken.median / times[own].median:.2f}" for own in mine]
        rows.append([label, str(taken), f"{len(waveform) / taken.median:.1f}", *ratios])
    notes = [f"largest relative L2 of a hidden state, packed {name}: {error:.1e}" for name, error in errors.items()]
    return "\n".join([measure.table(header, rows), "", *notes])


def _precisions(device: torch.device) -> list[str]:
    return ["float32", "bf16"] if has_bf16(device) else ["float32"]


def _packed(backbone: SpeechBackbone, precision: str) -> Embed:
    packed, weighted_sum = pack(backbone, precision), WeightedSum(backbone.num_layers + 1)
    weighted_sum.to(next(backbone.parameters()).device)
    return lambda waveform: weighted_sum(packed(waveform)).mean(dim=1).cpu()


def _error(backbone: SpeechBackbone, precision: str, waveform: Tensor) -> float:
    """Largest relative L2 distance of a hidden state from the plain backbone's in float32."""
    found = pack(backbone, precision)(waveform)
    pairs = zip(found, backbone(waveform), strict=True)
    return max(float((state.float() - exact).norm() / exact.norm()) for state, exact in pairs)


def _others(backbone: SpeechBackbone, folder: str) -> dict[str, Embed]:
    model = AutoModel.from_config(backbone.model.config)
    model.load_state_dict(backbone.model.state_dict())
    pooled = _Pooled(model, backbone.num_layers + 1).to(next(backbone.parameters()).device).eval()

    def autocast(waveform: Tensor) -> Tensor:
        with torch.autocast(waveform.device.type, torch.bfloat16):
            return pooled(waveform).cpu()  # type: ignore[no-any-return]

    others: dict[str, Embed] = {"plain float32": lambda waveform: pooled(waveform).cpu(), "bf16 autocast": autocast}
    on_cpu = next(pooled.parameters()).device.type == "cpu"
    if on_cpu and importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx"):
        others["ONNX Runtime float32"] = _onnx(pooled, folder)
    return others


def _onnx(pooled: nn.Module, folder: str) -> Embed:
    import onnxruntime

    path = os.path.join(folder, "model.onnx")
    example = torch.zeros(2, RATE, device=next(pooled.parameters()).device)
    torch.onnx.export(
        pooled,
        (example,),
        path,
        input_names=["waveform"],
        output_names=["embedding"],
        dynamic_axes={"waveform": {0: "batch", 1: "samples"}, "embedding": {0: "batch"}},
        dynamo=False,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=onnxruntime.get_available_providers())

    def embed(waveform: Tensor) -> np.ndarray:
        return session.run(None, {"waveform": waveform.cpu().numpy()})[0]  # type: ignore[no-any-return]

    return embed


def _batched(embed: Embed, waveform: Tensor, size: int) -> Work:
    return lambda: [embed(batch) for batch in torch.split(waveform, size)]


if __name__ == "__main__":
    main()

"""Training, embedding and searching on a GPU that Ray assigns: what comes out is what a CPU makes, but for rounding."""

from pathlib import Path

import numpy as np
import pytest
from transformers import HubertConfig, HubertModel

from ray_asd import config
from ray_asd.build import Output, steps
from ray_asd.config import Recipe
from ray_asd.engine.progress import silent
from ray_asd.grid import Cell
from ray_asd.stages.training import systems, usage
from ray_asd.tables import Folder
from stages import chain

ON_GPU = ("resources.train.gpus=1", "resources.embed.gpus=0.5", "resources.index.gpus=0.5")
CERTAIN = {"hidden_dropout": 0, "attention_dropout": 0, "activation_dropout": 0, "feat_proj_dropout": 0, "layerdrop": 0}

pytestmark = pytest.mark.gpu


def recipe(*changes: str) -> Recipe:
    return config.load("tiny", (*chain.SETTINGS, *changes))


def losses(system: chain.Chain, root: Path, *changes: str) -> np.ndarray:
    """Of a fine-tuning that is left to no chance: a GPU draws other numbers than a CPU."""
    checkpoint = root / "checkpoint"
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    hubert = HubertConfig(
        **size, **CERTAIN, conv_dim=(8,) * 7, num_conv_pos_embedding_groups=2, apply_spec_augment=False
    )
    if not checkpoint.exists():
        HubertModel(hubert).save_pretrained(checkpoint)
    changed = recipe(f"backbone.source={checkpoint}", "transformer_pooling=null", *changes)
    model: Output = steps.ensure(systems.system(changed, system.clips, silent), str(root / f"root{len(changes)}"))
    assert model.marker.held.gpus == changed.resources.train.gpus
    return np.array(model.table("curve")["loss"].to_pylist())


def test_a_training_goes_the_way_of_one_on_a_cpu(system: chain.Chain, tmp_path: Path) -> None:
    on_cpu, on_gpu = losses(system, tmp_path), losses(system, tmp_path, *ON_GPU)
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=1e-3)
    in_bf16 = losses(system, tmp_path, *ON_GPU, "training.precision=bf16")
    np.testing.assert_allclose(in_bf16, on_cpu, rtol=0.1)
    assert (in_bf16 != on_gpu).any()


@pytest.mark.parametrize(("precision", "allowed"), [("float32", 1e-5), ("bf16", 0.02)])
def test_scores_are_those_of_a_cpu(system: chain.Chain, precision: str, allowed: float, tmp_path: Path) -> None:
    """The bank was embedded on the GPU as well, and is searched there."""
    on_gpu = recipe(*ON_GPU, f"inference.precision={precision}")
    detector = chain.enrolled([usage.planned(system.model, on_gpu, system.clips)], system.clips, str(tmp_path))
    scores = chain.scored(detector, system.clips, str(tmp_path), on_gpu.resources)
    assert scores.marker.held.gpus > 0
    found, expected = (output.table(Folder.SCORES) for output in (scores, system.scores))
    assert found["clip_id"].equals(expected["clip_id"])
    np.testing.assert_allclose(found["score"], expected["score"], rtol=0, atol=allowed)


def test_two_trainings_share_a_gpu(system: chain.Chain, tmp_path: Path) -> None:
    half = ("resources.train.gpus=0.5", "resources.embed.gpus=0.5", "transformer_pooling=null")
    cells = [Cell(recipe(*half, f"seed={seed}"), f" seed {seed}") for seed in (2, 3)]
    sweep = chain.swept(cells, system.clips, str(tmp_path))
    assert sweep.failed == []
    assert len(sweep.metrics) == 2

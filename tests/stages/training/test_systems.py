"""Trained systems as outputs: what they hold, what they share, what their digests depend on, what is refused."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import safetensors.torch
import torch

from ray_asd import config, store
from ray_asd.build import Output, new_attempt
from ray_asd.build.steps import Step, ensure, plan
from ray_asd.data.training_set import held_out
from ray_asd.engine.progress import silent
from ray_asd.errors import UserError
from ray_asd.models import backbones, checkpoints, model_folder
from ray_asd.models.card import CARD, WEIGHTS, read_card
from ray_asd.stages.training import systems, usage
from ray_asd.store.lease import Fence
from ray_asd.tables import Folder
from stages import chain
from training_clips import hums, training_set

SETTINGS = tuple(f"{key}={json.dumps(value)}" for key, value in [("augmentation", None), ("transformer_pooling", None)])


def step(system: chain.Chain, *overrides: str) -> Step:
    return systems.system(config.load("tiny", (*SETTINGS, *overrides)), system.clips, silent)


def tensors(model: Output) -> dict[str, torch.Tensor]:
    return dict(safetensors.torch.load(model.read("weights.safetensors")))


def card(model: Output) -> dict[str, Any]:
    return dict(json.loads(model.read("model.json")))


def test_a_trained_system_is_a_model_and_its_loss_curve(system: chain.Chain) -> None:
    for model, steps, name in ((system.base, 4, "hubert+WS+SA"), (system.model, 3, "hubert+WS+SA+TFP")):
        files = [file.path for file in model.marker.files]
        assert files == ["curve/curve.parquet", "model.json", "weights.safetensors"]
        curve = model.table("curve")
        assert curve.column("step").to_pylist() == list(range(1, steps + 1))
        assert set(curve.column_names) == {"step", "loss", "accuracy", "learning_rate"}
        described = card(model)
        assert described["steps"] == steps
        assert described["system"] == model.marker.summary["system"] == f"{name} (random:tiny)"
        assert model.marker.summary["loss"] == curve.column("loss")[-1].as_py()


def test_the_clips_held_out_are_named(system: chain.Chain) -> None:
    expected = held_out(system.clips.table(Folder.CLIPS), chain.RECIPE.calibration_fraction, chain.RECIPE.seed)
    assert expected
    for model in (system.base, system.model):
        assert card(model)["held_out"] == expected
        assert model.marker.counts["held_out"] == len(expected)


def test_transformer_pooling_stands_on_its_sibling_unchanged(system: chain.Chain) -> None:
    base, whole = tensors(system.base), tensors(system.model)
    shared = [name for name in base if not name.startswith("aam.")]
    assert shared
    assert all(torch.equal(base[name], whole[name]) for name in shared)
    assert {name.partition(".")[0] for name in whole.keys() - base.keys()} == {"pooling"}


def test_nothing_of_the_training_stays_but_its_result(system: chain.Chain) -> None:
    for model in (system.base, system.model):
        assert store.folders(model.uri) == [model.marker.attempt]
        assert store.files(model.uri) == ["lease-000001.json", "marker.json"]


def test_a_rerun_trains_nothing(system: chain.Chain) -> None:
    again = systems.system(chain.RECIPE, system.clips, silent)
    assert [planned.done is not None for planned in plan(again, system.root)] == [True]
    assert ensure(again, system.root).marker == system.model.marker


@pytest.mark.parametrize(
    "override",
    [
        "training.checkpoint_every=7",
        "inference.mode=whole",
        "scoring.backend.neighbours=5",
        "resources.train.cpus=2",
        "name=other",
    ],
)
def test_what_leaves_the_weights_as_they_are_is_not_in_the_digest(system: chain.Chain, override: str) -> None:
    assert step(system, override).key(system.root) == step(system).key(system.root)


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "training.steps=121",
        "training.workers=1",
        "training.threads=2",
        "training.precision=bf16",
        "backbone.weighted_sum=false",
        "backbone.family=wavlm",
        "backbone.source=random:small",
        "embedding.dim=32",
        "aam.margin=0.3",
        "calibration_fraction=0",
        "augmentation={}",
        "audio.channel=mean",
    ],
)
def test_what_changes_the_weights_is_in_the_digest(system: chain.Chain, override: str) -> None:
    assert step(system, override).key(system.root).digest != step(system).key(system.root).digest


def test_systems_with_and_without_pooling_share_the_fine_tuning(system: chain.Chain) -> None:
    pooled = systems.system(chain.RECIPE, system.clips, silent)
    plain = systems.system(chain.RECIPE.model_copy(update={"transformer_pooling": None}), system.clips, silent)
    assert isinstance(pooled.inputs["model"], Step)
    assert pooled.inputs["model"].key(system.root) == plain.key(system.root)


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (["fan"] * 4, r"1 condition\(s\) in the training clips; at least 2 are needed"),
        (["fan", None, "valve", None], "2 of 4 training clips have no condition, the first one is fleet/001.wav"),
    ],
)
def test_clips_that_cannot_be_told_apart_are_refused_before_ray(
    system: chain.Chain, tmp_path: Path, conditions: list[str | None], message: str
) -> None:
    clips = [(name, condition, wave) for (name, _, wave), condition in zip(hums(4), conditions, strict=True)]
    originals = training_set(str(tmp_path / "set"), clips)
    folder = str(tmp_path / "train")
    with pytest.raises(UserError, match=message):
        step(system).work(new_attempt(folder, Fence(folder, 1)), {"clips": system.clips, "originals": originals})
    assert not store.exists(folder)


def test_a_frozen_backbone_hears_no_clip_and_decides_by_all_of_them(system: chain.Chain) -> None:
    frozen = ("training=null", "augmentation=null", "transformer_pooling=null", "embedding.pooling=statistics")
    chosen = config.load("tiny", (*chain.SETTINGS[:1], *frozen))
    model = ensure(systems.system(chosen, system.clips, silent), system.root)
    told = read_card(model.fetch(CARD))
    assert (model.marker.inputs, told.steps, told.held_out, told.conditions) == ({}, 0, [], [])
    assert chosen.system == told.system == "hubert+WS+frozen (random:tiny)"
    loaded = model_folder.load(*(model.fetch(name) for name in (CARD, WEIGHTS)))
    assert loaded.aam is None
    wave = np.random.default_rng(0).normal(size=16_000).astype(np.float32)
    with torch.inference_mode():
        states = loaded.system.embedder.states(torch.from_numpy(wave)[None])
        expected = torch.cat([states.mean(dim=1), states.std(dim=1, correction=0)], dim=1)
    (found,) = loaded.system.embed([wave])
    np.testing.assert_allclose(found, (expected / expected.norm()).squeeze(), atol=1e-6)

    made = chain.enrolled([usage.use(model.uri)], system.clips, system.root)
    assert set(made.table("members/0/healthy")["role"].to_pylist()) == {"bank"}
    limits = made.table(Folder.THRESHOLDS).to_pylist()
    assert [(row["source"], row["num_clips"]) for row in limits] == [("leave_one_out", 20)] * 2
    assert all(row["threshold"] is not None for row in limits)


def test_workers_of_a_cluster_need_not_reach_the_hub(
    system: chain.Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver finds the checkpoint in its copy of the hub, of which workers, being other processes, know nothing."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "hub" / "models--someone--hubert" / "snapshots" / commit
    tiny = chain.RECIPE.backbone
    backbones.load(checkpoints.resolve(tiny, 0), tiny).model.save_pretrained(snapshot)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("RAY_ADDRESS", "this test's Ray")
    root = chain.copied(system.root, str(tmp_path / "root"), system.originals)
    source = ("backbone.source=someone/hubert", f"backbone.revision={commit}")
    recipe = config.load("tiny", (*chain.SETTINGS, *SETTINGS, *source))
    model = ensure(systems.system(recipe, system.clips, silent), root)
    assert card(model)["checkpoint"]["source"] == "someone/hubert"
    assert model.marker.config["checkpoint"] == {"repository": "someone/hubert", "commit": commit}
    assert store.folders(model.uri) == [model.marker.attempt]  # the copies are gone


def test_the_naive_baseline_goes_by_its_former_name_too() -> None:
    channel = ("audio.channel=1",)
    assert usage.use("floor") == usage.use(usage.LOG_MEL)
    assert usage.use_together(["floor"], None, channel) == usage.use_together([usage.LOG_MEL], None, channel)

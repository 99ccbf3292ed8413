"""Small random checkpoints of each architecture, saved by transformers itself, and recordings to hear them on."""

from pathlib import Path

import numpy as np
import torch
from transformers import (
    HubertConfig,
    HubertModel,
    PreTrainedModel,
    UniSpeechConfig,
    UniSpeechModel,
    UniSpeechSatConfig,
    UniSpeechSatModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
)

from ray_asd.config import Recipe

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "initializer_range": 0.2,  # so that layers change what passes through them
}
LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
ARCHITECTURES = {
    "wav2vec2-group": ("wav2vec2", Wav2Vec2Model, Wav2Vec2Config, {}),
    "wav2vec2-layer": ("wav2vec2", Wav2Vec2Model, Wav2Vec2Config, LAYER),
    "hubert-group": ("hubert", HubertModel, HubertConfig, {}),
    "wavlm-group": ("wavlm", WavLMModel, WavLMConfig, {}),
    "wavlm-layer": ("wavlm", WavLMModel, WavLMConfig, LAYER),
    "unispeech-layer": ("unispeech", UniSpeechModel, UniSpeechConfig, LAYER),
    "unispeech-sat-group": ("unispeech", UniSpeechSatModel, UniSpeechSatConfig, {}),
}


def reference_model(architecture: str) -> PreTrainedModel:
    """transformers' own model with random weights, in evaluation mode."""
    _, model_class, config_class, options = ARCHITECTURES[architecture]
    torch.manual_seed(1)
    return model_class(config_class(**TINY, **options)).eval()


def states_of(model: PreTrainedModel, waveform: torch.Tensor) -> list[torch.Tensor]:
    """All hidden states, the last one behind the final norm where layers normalise first, as in transformers 4."""
    states = list(model(waveform, output_hidden_states=True).hidden_states)
    if model.config.do_stable_layer_norm:
        states[-1] = model.encoder.layer_norm(states[-1])
    return states


def save(model: PreTrainedModel, folder: Path, weights: str) -> str:
    """Write a checkpoint folder with safetensors (as transformers does today) or a .bin (as most on the hub are)."""
    if weights == "safetensors":
        model.save_pretrained(folder)
    else:
        model.config.save_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return str(folder)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """A quiet recording with an offset, float32 at 16 kHz."""
    samples = np.random.default_rng(seed).standard_normal(round(seconds * 16_000))
    return (0.1 * samples + 0.05).astype(np.float32)


def make_recipe(source: str = "random:tiny", family: str = "wavlm", **sections: object) -> Recipe:
    """A recipe for ``source``; ``backbone`` among the sections adds to the backbone's settings."""
    backbone = {"family": family, "source": source, **sections.pop("backbone", {})}  # type: ignore[dict-item]
    training = {"steps": 1, "batch_size": 2}
    return Recipe.model_validate({"name": "test", "backbone": backbone, "training": training} | sections)

"""Pre-trained speech models that turn a waveform into hidden states; the only module that imports transformers.

Shapes: B batch, T samples at 16 kHz, F frames (50 per second), H hidden size, L transformer layers.
"""

import pickle
from dataclasses import fields
from pathlib import Path

import safetensors.torch
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    HubertModel,
    PreTrainedConfig,
    PreTrainedModel,
    UniSpeechModel,
    UniSpeechSatModel,
    Wav2Vec2Model,
    WavLMModel,
)
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from ray_asd.config import Backbone
from ray_asd.errors import UserError
from ray_asd.models import checkpoints
from ray_asd.models.checkpoints import Checkpoint
from ray_asd.models.seeding import seeded

MODELS: dict[str, type[PreTrainedModel]] = {
    "wav2vec2": Wav2Vec2Model,
    "hubert": HubertModel,
    "wavlm": WavLMModel,
    "unispeech": UniSpeechModel,
    "unispeech-sat": UniSpeechSatModel,
}
"""The class that a config.json's ``model_type`` names."""

DROPOUTS = ("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout")
MASK_VECTOR = "masked_spec_embed"


class SpeechBackbone(nn.Module):
    """A transformers base model set up for training under DistributedDataParallel on equal-length waveforms.

    There is no attention mask: group-norm models are sensitive to padding, so a batch holds equal lengths. Every
    parameter that requires a gradient receives one in each step, which holds because layer drop is off and because
    the mask vector of SpecAugment is frozen.

    Attributes:
        normalize: whether waveforms must have zero mean and unit variance.
        num_layers: L.
        hidden_size: H.
        min_samples: shortest T that gives a frame.
    """

    def __init__(self, model: PreTrainedModel, config: Backbone) -> None:
        super().__init__()
        self.model = model
        self._mask_time_length: int = model.config.mask_time_length
        layer_norm = model.config.feat_extract_norm == "layer"
        self.normalize: bool = layer_norm if config.normalize == "auto" else config.normalize
        self.num_layers: int = model.config.num_hidden_layers
        self.hidden_size: int = model.config.hidden_size
        self.min_samples = _samples(model.config, frames=1)
        self._freeze(config)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def forward(self, waveform: Tensor) -> tuple[Tensor, ...]:
        """[B, T] -> L + 1 hidden states [B, F, H]: the first layer's input, then each layer's output.

        The last one has passed the final norm where the model has one (XLS-R), as it had in transformers 4, with which
        the paper was made; transformers 5 hands it out as it was before.
        """
        output = self._run(waveform, output_hidden_states=True)
        return (*output.hidden_states[:-1], output.last_hidden_state)

    def last(self, waveform: Tensor) -> Tensor:
        """[B, T] -> the model's output [B, F, H]: the last layer, and the final norm where the model has one."""
        output: Tensor = self._run(waveform).last_hidden_state
        return output

    def _run(self, waveform: Tensor, output_hidden_states: bool = False) -> BaseModelOutput:
        # transformers refuses a mask longer than the sequence; numpy's global random state places the masks.
        frames = _frames(self.model.config, waveform.shape[-1])
        self.model.config.mask_time_length = min(self._mask_time_length, frames)
        return self.model(waveform, output_hidden_states=output_hidden_states)

    def _freeze(self, config: Backbone) -> None:
        model = self.model
        if hasattr(model, MASK_VECTOR):
            model.masked_spec_embed.requires_grad_(False)
        if config.freeze != "nothing":
            model.feature_extractor._freeze_parameters()  # also keeps transformers from tracking the waveform
        if config.freeze == "all":
            model.requires_grad_(False)


class _FusedWavLMAttention(WavLMAttention):
    """Torch's fused attention with the gated position bias as its mask; transformers has no such path."""

    def torch_multi_head_self_attention(
        self, hidden_states: Tensor, attention_mask: None, gated_position_bias: Tensor
    ) -> tuple[Tensor, None]:
        """[B, F, H] and [B * heads, F, F] -> [B, F, H]; the attention weights are not kept."""
        shape = (*hidden_states.shape[:2], self.num_heads, self.head_dim)
        query, key, value = (
            projection(hidden_states).view(shape).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=gated_position_bias.view(-1, self.num_heads, *gated_position_bias.shape[1:]),
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out_proj(attended.transpose(1, 2).flatten(2)), None


def _fuse_attention(model: PreTrainedModel) -> None:
    for layer in model.encoder.layers if isinstance(model, WavLMModel) else ():
        plain = layer.attention
        fused = _FusedWavLMAttention(
            plain.embed_dim,
            plain.num_heads,
            plain.dropout,
            plain.num_buckets,
            plain.max_distance,
            has_relative_position_bias=hasattr(plain, "rel_attn_embed"),
        )
        fused.load_state_dict(plain.state_dict())
        layer.attention = fused


def build(checkpoint: Checkpoint, config: Backbone) -> SpeechBackbone:
    """The checkpoint's architecture with random weights: drawn from its seed, or else from 0.

    SpecAugment, where ``config`` asks for it, draws from numpy's global random state.

    Raises:
        UserError: its config.json describes no model that transformers can build.
    """
    model_class = MODELS[checkpoint.config["model_type"]]
    with seeded(int(checkpoint.identity.get("seed", 0))):
        try:
            model = model_class(_model_config(model_class, checkpoint.config, config))
        except (StrictDataclassError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{checkpoint.source}: config.json describes no valid model: {reason}") from error
        _fuse_attention(model)
    return SpeechBackbone(model, config)


def load(checkpoint: Checkpoint, config: Backbone) -> SpeechBackbone:
    """The checkpoint's architecture and weights, in float32. Weights of a pre-training or CTC head are left out.

    Raises:
        UserError: a file is not what it should be, or weights of the backbone are missing or of another shape.
    """
    backbone = build(checkpoint, config)
    state: dict[str, Tensor] = {}
    for path, name in zip(checkpoints.fetch(checkpoint), checkpoint.weights, strict=True):
        state |= _read(path, name, checkpoint.source)
    if checkpoint.weights:
        _fill(backbone.model, state, checkpoint.source)
    return backbone


def _model_config(model_class: type[PreTrainedModel], values: dict[str, object], config: Backbone) -> PreTrainedConfig:
    """Only the architecture's own settings are taken: a config.json cannot ask for code, kernels or quantisation."""
    config_class = model_class.config_class
    own = {field.name for field in fields(config_class)} - {field.name for field in fields(PreTrainedConfig)}
    settings = {name: value for name, value in values.items() if name in own}
    settings |= {"layerdrop": 0.0}  # a dropped layer would leave DistributedDataParallel waiting for its gradients
    if "add_adapter" in own:
        settings["add_adapter"] = False  # belongs to heads: it shortens the last hidden state alone
    if config.dropout is not None:
        settings |= dict.fromkeys(DROPOUTS, config.dropout)
    if not config.spec_augment:
        settings |= {"apply_spec_augment": False, "mask_time_prob": 0.0, "mask_feature_prob": 0.0}
    model_config = config_class(**settings)
    model_config.mask_feature_min_masks = values.get("mask_feature_min_masks", 0)  # read but not declared for WavLM
    model_config.mask_feature_length = min(model_config.mask_feature_length, model_config.hidden_size)
    return model_config


def _read(path: Path, name: str, source: str) -> dict[str, Tensor]:
    try:
        if name.endswith(".safetensors"):
            return dict(safetensors.torch.load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise UserError(f"{source}: {name} is damaged or holds more than tensors") from error
    named = isinstance(loaded, dict) and all(isinstance(key, str) for key in loaded)
    if not named or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise UserError(f"{source}: {name} holds no state dict; allowed: a dictionary of named tensors")
    return dict(loaded)


def _fill(model: PreTrainedModel, state: dict[str, Tensor], source: str) -> None:
    """Load weights under the names that checkpoints of heads and of older torch versions give them."""
    prefix = f"{model.base_model_prefix}."
    if any(name.startswith(prefix) for name in state):
        state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    parametrised = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    for old, new in parametrised.items():
        state = {name.replace(f".conv.{old}", f".conv.{new}"): value for name, value in state.items()}
    needed = model.state_dict()
    quantised = [name for name in needed if name in state and not state[name].is_floating_point()]
    if quantised:
        kind = str(state[quantised[0]].dtype).removeprefix("torch.")
        raise UserError(f"{source}: {quantised[0]} is {kind}; allowed: weights as floats, not quantised ones")
    missing = [name for name in needed if name not in state and name != MASK_VECTOR]
    if missing:
        raise UserError(f"{source}: {len(missing)} weights are missing, the first one is {missing[0]}")
    wrong = [name for name in needed if name in state and state[name].shape != needed[name].shape]
    if wrong:
        shapes = f"{tuple(state[wrong[0]].shape)}, config.json asks for {tuple(needed[wrong[0]].shape)}"
        raise UserError(f"{source}: {len(wrong)} weights have another shape, the first one is {wrong[0]}: {shapes}")
    broken = [name for name in needed if name in state and not state[name].isfinite().all()]
    if broken:
        raise UserError(
            f"{source}: {len(broken)} weights hold values that are not finite, the first one is {broken[0]}; "
            "allowed: a checkpoint of a training that did not diverge"
        )
    model.load_state_dict(state, strict=False)


def _samples(config: PreTrainedConfig, frames: int) -> int:
    """Receptive field of ``frames`` frames of the convolutional feature encoder, in samples."""
    for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
        frames = (frames - 1) * stride + kernel
    return frames


def _frames(config: PreTrainedConfig, samples: int) -> int:
    """Frames that the convolutional feature encoder makes of ``samples`` samples."""
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        samples = (samples - kernel) // stride + 1
    return samples

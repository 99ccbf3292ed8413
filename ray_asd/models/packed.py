"""Speech backbones for inference alone: the same weights laid out once for the hardware, and no work nobody asked for.

What makes them faster than transformers' forward pass, on a CPU and on a GPU: query, key and value are one matrix
product; GELU and residuals are part of the product before them; frames stay channels-last through the convolutions;
the group norm is folded into the first convolution, whose statistics follow from the waveform's own; WavLM's gated
position bias is a mask of fused attention; hidden states are handed on one by one. On a CPU oneDNN does the products,
with weights reordered beforehand: several times torch's own speed in bf16, and never slower in float32.

Shapes: B batch, T samples at 16 kHz, F frames, C channels of the convolutions, H hidden size, L transformer layers.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ray_asd.models.backbones import SpeechBackbone
from ray_asd.models.products import Convolution, LayerNorm, Linear, has_bf16, uses_onednn


def pack(backbone: SpeechBackbone, precision: str) -> "SpeechBackbone | Packed":
    """``backbone`` for inference alone, computing in ``float32`` or, where the hardware has it, ``bf16``.

    A CPU that would have to emulate bf16 computes in float32, which is as exact and faster. Variants of the four
    architectures that no published checkpoint of the method uses come back as they are.
    """
    if not _is_covered(backbone.model.config):
        return backbone
    return Packed(backbone, torch.bfloat16 if precision == "bf16" and has_bf16(backbone.device) else torch.float32)


def _is_covered(config: Any) -> bool:
    return (
        config.hidden_act == config.feat_extract_activation == "gelu"
        and getattr(config, "feat_proj_layer_norm", True)
        and not getattr(config, "conv_pos_batch_norm", False)
        and getattr(config, "adapter_attn_dim", None) is None
    )


class Packed(nn.Module):
    """Stands in for the backbone it was made from; weights are its own copy, in ``dtype``.

    Attributes as SpeechBackbone's.
    """

    def __init__(self, backbone: SpeechBackbone, dtype: torch.dtype) -> None:
        super().__init__()
        self.device = backbone.device
        self.normalize = backbone.normalize
        self.num_layers = backbone.num_layers
        self.hidden_size = backbone.hidden_size
        self.min_samples = backbone.min_samples
        model: Any = backbone.model
        with torch.inference_mode():
            self._features = _Features(model.feature_extractor, dtype)
            self._projection_norm = LayerNorm(model.feature_projection.layer_norm, dtype)
            self._projection = Linear.of(model.feature_projection.projection, dtype)
            self._position = _PositionalConvolution(model.encoder.pos_conv_embed, dtype)
            self._norm = LayerNorm(model.encoder.layer_norm, dtype)
            self._norm_first: bool = model.config.do_stable_layer_norm
            self._bias = _PositionBias(model.encoder.layers[0].attention) if _is_gated(model) else None
            self._layers = [_Layer(layer, self._norm_first, dtype) for layer in model.encoder.layers]

    def forward(self, waveform: Tensor) -> Iterator[Tensor]:
        """[B, T] -> L + 1 hidden states [B, F, H], one by one: those of SpeechBackbone."""
        hidden = self._projection(self._projection_norm(self._features(waveform)))
        hidden = hidden + self._position(hidden)
        if not self._norm_first:
            hidden = self._norm(hidden)
        yield hidden
        bias = self._bias(hidden) if self._bias else None
        *first, last = self._layers
        for layer in first:
            hidden = layer(hidden, bias)
            yield hidden
        hidden = last(hidden, bias)
        yield self._norm(hidden) if self._norm_first else hidden

    def last(self, waveform: Tensor) -> Tensor:
        """[B, T] -> the model's output [B, F, H]: the last layer, and the final norm where the model has one."""
        hidden: Tensor
        *_, hidden = self(waveform)
        return hidden


def _is_gated(model: Any) -> bool:
    return hasattr(model.encoder.layers[0].attention, "gru_rel_pos_linear")


class _Features:
    """The convolutional feature encoder: [B, T] -> [B, F, C]."""

    def __init__(self, encoder: Any, dtype: torch.dtype) -> None:
        first, *others = encoder.conv_layers
        grouped = isinstance(first.layer_norm, nn.GroupNorm)
        self.dtype = dtype
        self.first = _GroupNormedWaveform(first) if grouped else _LayerNormedWaveform(first, dtype)
        self.others = [Convolution(layer.conv, dtype, gelu=grouped) for layer in others]
        self.norms = [None if grouped else LayerNorm(layer.layer_norm, dtype) for layer in others]

    def __call__(self, waveform: Tensor) -> Tensor:
        if waveform.is_cuda:
            return self.together(waveform)
        return torch.cat([self.together(signal) for signal in torch.split(waveform, 1)])  # one stays in the cache

    def together(self, waveform: Tensor) -> Tensor:
        """The same, all at once."""
        x = self.first(waveform, self.dtype)
        for convolution, norm in zip(self.others, self.norms, strict=True):
            x = convolution(x)
            if norm:
                x = functional.gelu(norm(x))
        return x


class _GroupNormedWaveform:
    """First convolution, group norm with one channel a group, GELU: [B, T] -> [B, F, C].

    Mean and variance of a channel over time follow from mean m and covariance S of the waveform's windows, as w m and
    w S w for the channel's weights w; so the norm becomes part of weights made for this waveform.
    """

    def __init__(self, layer: Any) -> None:
        self.kernel, self.stride = layer.conv.kernel_size[0], layer.conv.stride[0]
        self.weight = layer.conv.weight.detach().squeeze(1).double()
        self.norm_weight = layer.layer_norm.weight.detach().double()
        self.norm_bias, self.eps = layer.layer_norm.bias.detach(), layer.layer_norm.eps

    def __call__(self, waveform: Tensor, dtype: torch.dtype) -> Tensor:
        windows = waveform.double().unfold(1, self.kernel, self.stride)
        windows = windows - windows.mean(dim=1, keepdim=True)
        covariance = windows.mT @ windows / windows.shape[1]
        variance = ((self.weight @ covariance) * self.weight).sum(dim=2)
        weight = self.weight * (self.norm_weight * (variance + self.eps).rsqrt())[..., None]
        x, weight, bias = windows.to(dtype), weight.to(dtype), self.norm_bias.to(dtype)
        if len(x) == 1 and uses_onednn(weight):
            product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight[0], bias, "gelu", [], "none")
            return product
        return functional.gelu(torch.baddbmm(bias, x, weight.mT))


class _LayerNormedWaveform:
    """First convolution, layer norm, GELU: [B, T] -> [B, F, C]."""

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        self.kernel, self.stride = layer.conv.kernel_size[0], layer.conv.stride[0]
        self.weight = layer.conv.weight.detach().squeeze(1)
        self.bias = None if layer.conv.bias is None else layer.conv.bias.detach()
        self.norm = LayerNorm(layer.layer_norm, dtype)

    def __call__(self, waveform: Tensor, dtype: torch.dtype) -> Tensor:
        windows = waveform.unfold(1, self.kernel, self.stride)
        return functional.gelu(self.norm(functional.linear(windows, self.weight, self.bias).to(dtype)))


class _PositionalConvolution:
    """[B, F, H] -> [B, F, H]; the weight norm is folded."""

    def __init__(self, embedding: Any, dtype: torch.dtype) -> None:
        self.convolution = Convolution(embedding.conv, dtype, gelu=True)

    def __call__(self, x: Tensor) -> Tensor:
        return self.convolution(x)[:, : x.shape[1]]


class _PositionBias:
    """WavLM's relative position bias before its gates: [B, F, H] -> [heads, F, F]."""

    def __init__(self, attention: Any) -> None:
        self.attention = attention

    def __call__(self, x: Tensor) -> Tensor:
        bias: Tensor = self.attention.compute_bias(x.shape[1], x.shape[1])
        return bias.to(x.dtype)


class _Attention:
    """Self-attention over all frames, and the residual: [B, F, H] -> [B, F, H]; with WavLM's gates where it has them.

    A gate is a sum of four rows of a linear layer over one head's part of the input: as rows of zeros elsewhere they
    join the product that makes query, key and value.
    """

    def __init__(self, attention: Any, dtype: torch.dtype) -> None:
        self.heads, self.head_size = attention.num_heads, attention.head_dim
        parts = [attention.q_proj, attention.k_proj, attention.v_proj]
        weights, biases = [part.weight for part in parts], [part.bias for part in parts]
        self.constant = None
        if hasattr(attention, "gru_rel_pos_linear"):
            gate = attention.gru_rel_pos_linear
            rows = gate.weight.view(2, 1, 4, -1).sum(dim=2).expand(-1, self.heads, -1)  # [2, heads, head size]
            zeros = torch.eye(self.heads, dtype=rows.dtype, device=rows.device)
            weights.append(torch.einsum("gha,hb->ghba", rows, zeros).flatten(2).flatten(0, 1))
            biases.append(gate.bias.view(2, 4).sum(dim=1).repeat_interleave(self.heads))
            self.constant = attention.gru_rel_pos_const.detach().to(dtype).view(1, 1, self.heads)
        self.inner = Linear(torch.cat(weights), torch.cat(biases), dtype)
        self.out = Linear.of(attention.out_proj, dtype)

    def __call__(self, x: Tensor, bias: Tensor | None, residual: Tensor) -> Tensor:
        batch, frames, hidden = x.shape
        made = self.inner(x)
        query, key, value = made[..., : 3 * hidden].view(batch, frames, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mask = None if bias is None else self._gates(made[..., 3 * hidden :]) * bias
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(attended.transpose(1, 2).reshape(batch, frames, hidden), residual)

    def _gates(self, made: Tensor) -> Tensor:
        """[B, F, 2 heads] -> [B, heads, F, 1]."""
        assert self.constant is not None
        first, second = _sigmoid(made).chunk(2, dim=-1)
        gates: Tensor = first * (second * self.constant - 1) + 2
        return gates.transpose(1, 2).unsqueeze(-1)


def _sigmoid(x: Tensor) -> Tensor:
    """One signal at a time on a CPU, so that a value depends on its signal alone.

    Torch's scalar and vectorised sigmoid differ in the last bit, and where its threads meet decides which one is used.
    """
    return x.sigmoid() if x.is_cuda else torch.cat([signal.sigmoid() for signal in torch.split(x, 1)])


class _Layer:
    """One transformer layer: [B, F, H] -> [B, F, H]."""

    def __init__(self, layer: Any, norm_first: bool, dtype: torch.dtype) -> None:
        self.norm_first = norm_first
        self.attention = _Attention(layer.attention, dtype)
        self.norm = LayerNorm(layer.layer_norm, dtype)
        self.widen = Linear.of(layer.feed_forward.intermediate_dense, dtype, gelu=True)
        self.narrow = Linear.of(layer.feed_forward.output_dense, dtype)
        self.final_norm = LayerNorm(layer.final_layer_norm, dtype)

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        if self.norm_first:
            x = self.attention(self.norm(x), bias, residual=x)
            return self.narrow(self.widen(self.final_norm(x)), residual=x)
        x = self.norm(self.attention(x, bias, residual=x))
        return self.final_norm(self.narrow(self.widen(x), residual=x))

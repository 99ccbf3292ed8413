"""Products for inference alone: weights laid out once, as oneDNN wants them on a CPU, GELU and residual included."""

import torch
from torch import Tensor, nn
from torch.nn import functional

_ROWS = 32 * 99  # of a usual product, for which oneDNN chooses the layout: 64 s of audio in windows of 2 s
_ONEDNN_GROUP = 16  # channels per group below which oneDNN's bf16 convolutions are wrong on CPUs with AMX (torch 2.11)


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 matrices itself."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def keep_float32() -> None:
    """In this process, convolutions of float32 on a GPU: cuDNN would make them TF32, which is 50 times less exact."""
    torch.backends.cudnn.allow_tf32 = False


def uses_onednn(weight: Tensor) -> bool:
    """Whether products with this weight are left to oneDNN."""
    onednn: bool = weight.device.type == "cpu" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return onednn and (weight.dtype == torch.float32 or has_bf16(weight.device))


class Linear:
    """[..., K] -> [..., N], with GELU where asked, or with a residual added."""

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype, gelu: bool = False) -> None:
        self.weight, self.bias, self.gelu = weight.detach().to(dtype), bias.detach().to(dtype), gelu
        self.onednn = uses_onednn(self.weight)
        if self.onednn:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, _ROWS)

    @classmethod
    def of(cls, layer: nn.Linear, dtype: torch.dtype, gelu: bool = False) -> "Linear":
        return cls(layer.weight, layer.bias, dtype, gelu)

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        product: Tensor
        if self.onednn and residual is not None:
            product = torch.ops.mkldnn._linear_pointwise.binary(x, residual, self.weight, self.bias, "add")
            return product
        if self.onednn:
            after = "gelu" if self.gelu else "none"
            product = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, after, [], "none")
            return product
        product = functional.linear(x, self.weight, self.bias)
        if residual is not None:
            return product + residual
        return functional.gelu(product) if self.gelu else product


class LayerNorm:
    """A layer norm whose weights are in the type it computes in."""

    def __init__(self, layer: nn.LayerNorm, dtype: torch.dtype) -> None:
        self.shape, self.eps = layer.normalized_shape, layer.eps
        self.weight, self.bias = layer.weight.detach().to(dtype), layer.bias.detach().to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self.shape, self.weight, self.bias, self.eps)


class Convolution:
    """[B, F, C] -> [B, F', C'], channels last in memory too, with GELU where asked."""

    def __init__(self, layer: nn.Conv1d, dtype: torch.dtype, gelu: bool) -> None:
        weight = layer.weight.detach().unsqueeze(2)
        small = layer.groups > 1 and weight.shape[1] < _ONEDNN_GROUP and weight.device.type == "cpu"
        self.dtype = torch.float32 if small else dtype
        self.weight = weight.to(self.dtype).contiguous(memory_format=torch.channels_last)
        self.bias = None if layer.bias is None else layer.bias.detach().to(self.dtype)
        self.stride, self.padding, self.groups, self.gelu = layer.stride[0], int(layer.padding[0]), layer.groups, gelu
        self.onednn = uses_onednn(self.weight)
        self.laid_out, self.frames = self.weight, 0

    def _geometry(self) -> tuple[list[int], list[int], list[int], int]:
        return [0, self.padding], [1, self.stride], [1, 1], self.groups

    def _lay_out(self, image: Tensor) -> None:
        """Weights in the order that oneDNN wants for so many frames: in another's it can take thirty times as long."""
        if image.shape[-1] != self.frames:
            size = [1, *image.shape[1:]]
            self.laid_out = torch.ops.mkldnn._reorder_convolution_weight(self.weight, *self._geometry(), size)
            self.frames = image.shape[-1]

    def __call__(self, x: Tensor) -> Tensor:
        image = x.to(self.dtype).transpose(1, 2).unsqueeze(2)
        made: Tensor
        if self.onednn:
            self._lay_out(image)
            after = "gelu" if self.gelu else "none"
            made = torch.ops.mkldnn._convolution_pointwise(
                image, self.laid_out, self.bias, *self._geometry(), after, [], "none"
            )
        else:
            padding, stride, dilation, groups = self._geometry()
            made = functional.conv2d(image, self.weight, self.bias, stride, padding, dilation, groups)
            made = functional.gelu(made) if self.gelu else made
        return made.squeeze(2).transpose(1, 2).to(x.dtype)

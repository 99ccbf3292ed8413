"""What a file of weights says of its tensors before one of them is read: names, kinds and shapes.

Neither torch nor its unpickler is needed: nothing of the file is run, its pickle is only looked at.
"""

import json
import pickletools
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any

from ray_asd import store
from ray_asd.errors import UserError

_MOST_BYTES = 1 << 26  # of a header or a pickle; those of the largest checkpoints have some hundred kB
_FLOATS = {"F64", "F32", "F16", "BF16", "DoubleStorage", "FloatStorage", "HalfStorage", "BFloat16Storage"}
_BEGINNINGS = {
    b"version https://git-lfs": "a Git LFS pointer to weights, not the weights; allowed: what `git lfs pull` fetches",
    b"<": "a web page; allowed: the file itself, downloaded anew",
    b"\x89HDF": "weights of TensorFlow; allowed: those of PyTorch",
}
_START, _ZIP = 64, b"PK\x03\x04"
_USUAL: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "conv_dim": (512,) * 7,
    "conv_kernel": (10, 3, 3, 3, 3, 2, 2),
    "conv_stride": (5, 2, 2, 2, 2, 2, 2),
}
"""What a config.json means that does not say it."""
_LARGEST = 1 << 20  # of any of these
_PROBABILITIES = ("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout", "layerdrop")
_ACTIVATIONS = ("hidden_act", "feat_extract_activation")
_REBUILD = "torch._utils _rebuild_tensor_v2"
_PLAIN = ("torch", "torch._utils", "torch.storage", "collections", "numpy.core.multiarray", "_codecs")  # their modules
_INTEGERS = {"BININT", "BININT1", "BININT2", "LONG1", "INT"}
_TUPLES = {"EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "TUPLE"}
_MEMOS = {"BINPUT", "LONG_BINPUT"}
_RECALLS = {"BINGET", "LONG_BINGET"}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as the file describes it: ``kind`` is the format's own word, e.g. ``F32`` or ``FloatStorage``."""

    kind: str
    shape: tuple[int, ...]

    @property
    def is_float(self) -> bool:
        """Whether it holds weights as they are, and not, say, quantised to integers."""
        return self.kind in _FLOATS


def described(place: str, name: str) -> dict[str, Tensor] | None:
    """The tensors of the ``.safetensors`` or ``.bin`` file ``name`` in a folder; None where only loading it can tell.

    Raises:
        UserError: it is something else, cut off, or holds more than tensors.
    """
    entry = store.stat(store.join(place, name))
    if entry is None:
        raise UserError(f"{place}: {name} is no file; allowed: a file of weights")
    return _described(f"{place}: {name}", entry)


@lru_cache
def _described(named: str, entry: store.Entry) -> dict[str, Tensor] | None:
    """Of one version of a file, looked at once for all the cells of a sweep."""
    with store.open_read(entry.path) as file:
        start = file.read(_START)
        if not start:
            raise UserError(f"{named} is empty; allowed: a file of weights")
        for beginning, what in _BEGINNINGS.items():
            if start.startswith(beginning):
                raise UserError(f"{named} is {what}")
        file.seek(0)
        if named.endswith(".safetensors"):
            return _safetensors(file, named, entry.size)
        return _pickled(file, named) if start.startswith(_ZIP) else None


def _safetensors(file: IO[bytes], name: str, size: int) -> dict[str, Tensor]:
    damaged = f"{name} is damaged or no safetensors file"
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(size - 8, _MOST_BYTES):
        raise UserError(damaged)
    try:
        header = json.loads(file.read(length))
        found = {key: value for key, value in header.items() if key != "__metadata__"}
        end = 8 + length + max((value["data_offsets"][1] for value in found.values()), default=0)
        tensors = {key: Tensor(value["dtype"], tuple(value["shape"])) for key, value in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(damaged) from error
    if end != size:
        raise UserError(f"{name} has {size} bytes, its header says {end}; allowed: the whole file, copied anew")
    return tensors


def _pickled(file: IO[bytes], name: str) -> dict[str, Tensor] | None:
    """Of a zip as torch writes it; its older form is left to torch."""
    try:
        with zipfile.ZipFile(file) as archive:
            member = next((info for info in archive.infolist() if info.filename.endswith("/data.pkl")), None)
            if member is None:
                raise UserError(f"{name} is a zip file without tensors; allowed: what torch.save wrote")
            if member.file_size > _MOST_BYTES:
                return None
            steps = [(code.name, value) for code, value, _ in pickletools.genops(archive.read(member))]
    except (zipfile.BadZipFile, ValueError, struct.error, EOFError) as error:
        raise UserError(f"{name} is damaged or holds more than tensors: {error}") from error
    foreign = [str(value) for code, value in steps if code == "GLOBAL" and str(value).split()[0] not in _PLAIN]
    if foreign:
        raise UserError(f"{name} holds more than tensors: {'.'.join(foreign[0].split())}; allowed: a state dict")
    if any(code in ("STACK_GLOBAL", "FRAME") for code, _ in steps):  # of another protocol than torch writes
        return None
    return dict(_tensors(_without_memos(steps), name))


def _without_memos(steps: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The steps of a pickle in which what is recalled from the memo stands again."""
    memo: dict[int, tuple[str, Any]] = {}
    plain: list[tuple[str, Any]] = []
    for code, value in steps:
        if code in _MEMOS:
            memo[value] = plain[-1]
        else:
            plain.append(memo.get(value, (code, value)) if code in _RECALLS else (code, value))
    return plain


def _tensors(steps: list[tuple[str, Any]], name: str) -> Iterator[tuple[str, Tensor]]:
    """Every tensor that stands behind its name in the dictionary that the pickle is."""
    kinds = [code for code, _ in steps[:3]]
    if ("GLOBAL", "collections OrderedDict") not in steps[:3] and "EMPTY_DICT" not in kinds:
        raise UserError(f"{name} holds no state dict; allowed: a dictionary of named tensors")
    for place, (code, value) in enumerate(steps):
        if code != "GLOBAL" or value != _REBUILD:
            continue
        before, named = steps[place - 1]
        stored = next(at for at in range(place, len(steps)) if steps[at][0] == "BINPERSID")
        storage = next(str(said) for kind, said in steps[place + 1 : stored] if kind == "GLOBAL")
        sizes: list[int] = []
        for kind, said in steps[stored + 2 :]:
            if kind in _TUPLES:
                break
            sizes += [said] if kind in _INTEGERS else []
        if before == "BINUNICODE":
            yield named, Tensor(storage.split()[-1], tuple(sizes))


def check(tensors: Mapping[str, Tensor], needed: Mapping[str, tuple[int, ...]], prefix: str, source: str) -> None:
    """Compare what a checkpoint has with some of what a backbone needs; heads have ``prefix`` before its names.

    Raises:
        UserError: weights are missing, of another shape, not floats, or their names are somebody else's.
    """
    own = prefix if any(name.startswith(prefix) for name in tensors) else ""
    missing = [name for name in needed if own + name not in tensors]
    if missing:
        foreign = next((name for name in tensors if name.endswith(f".{missing[0]}")), None)
        known = ", ".join(sorted(tensors)[:3]) or "nothing"
        why = f"it has it as {foreign}; allowed: names as in a Hugging Face model" if foreign else f"it has {known}"
        raise UserError(f"{source}: weights are missing, the first one is {missing[0]}: {why}")
    for name, shape in needed.items():
        found = tensors[own + name]
        if found.shape != shape:
            raise UserError(
                f"{source}: weights have another shape, the first one is {name}: {found.shape}, "
                f"config.json asks for {shape}"
            )
        if not found.is_float:
            raise UserError(f"{source}: {name} is {found.kind}; allowed: weights as floats, not quantised ones")


def needed(config: Mapping[str, Any], where: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes that a backbone of every family has, by its config.json, which stands at ``where``.

    Raises:
        UserError: it describes no model.
    """
    sizes = _USUAL | {name: value for name, value in config.items() if name in _USUAL}
    for name, value in sizes.items():
        each = value if isinstance(_USUAL[name], tuple) and isinstance(value, (list, tuple)) else [value]
        if not each or any(type(size) is not int or not 0 < size <= _LARGEST for size in each):
            raise UserError(f"{where}: {name} is {value!r}; allowed: whole numbers from 1 to {_LARGEST}")
    for name, value in config.items():
        if name in _PROBABILITIES and (type(value) not in (int, float) or not 0 <= value <= 1):
            raise UserError(f"{where}: {name} is {value!r}; allowed: a probability from 0 to 1")
        if name in _ACTIVATIONS and not isinstance(value, str):
            raise UserError(f"{where}: {name} is {value!r}; allowed: a name, such as 'gelu'")
    channels, kernels, hidden = sizes["conv_dim"], sizes["conv_kernel"], sizes["hidden_size"]
    if not len(channels) == len(kernels) == len(sizes["conv_stride"]):
        raise UserError(
            f"{where}: conv_dim, conv_kernel and conv_stride differ in length; allowed: one value per layer"
        )
    if hidden % sizes["num_attention_heads"]:
        heads = sizes["num_attention_heads"]
        raise UserError(f"{where}: num_attention_heads is {heads}; allowed: a divisor of hidden_size, {hidden}")
    shapes: dict[str, tuple[int, ...]] = {
        f"feature_extractor.conv_layers.{number}.conv.weight": (size, before, kernel)
        for number, (before, size, kernel) in enumerate(zip((1, *channels), channels, kernels, strict=False))
    }
    shapes |= {"feature_projection.projection.weight": (hidden, channels[-1]), "encoder.layer_norm.weight": (hidden,)}
    for layer in range(sizes["num_hidden_layers"]):
        place, inner = f"encoder.layers.{layer}", sizes["intermediate_size"]
        shapes |= {f"{place}.attention.{name}_proj.weight": (hidden, hidden) for name in ("q", "k", "v", "out")}
        shapes[f"{place}.feed_forward.intermediate_dense.weight"] = (inner, hidden)
        shapes[f"{place}.feed_forward.output_dense.weight"] = (hidden, inner)
        shapes[f"{place}.final_layer_norm.weight"] = (hidden,)
    return shapes

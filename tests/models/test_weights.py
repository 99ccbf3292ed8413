"""Headers of weights: read without torch, and right where torch wrote them."""

import io
import json
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ray_asd.errors import UserError
from ray_asd.models import weights
from ray_asd.models.weights import Tensor
from small_models import ARCHITECTURES, reference_model

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"


def shapes(state: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_both_formats_are_described_as_torch_loads_them(tmp_path: Path, architecture: str) -> None:
    model = reference_model(architecture)
    state = model.state_dict()
    save_file(state, tmp_path / "model.safetensors")
    torch.save(state, tmp_path / "pytorch_model.bin")
    needed = weights.needed(model.config.to_dict(), "config.json")
    for name in ("model.safetensors", "pytorch_model.bin"):
        found = weights.described(str(tmp_path), name)
        assert found is not None
        assert {key: tensor.shape for key, tensor in found.items()} == shapes(state)
        assert all(tensor.is_float for tensor in found.values())
        weights.check(found, needed, f"{model.base_model_prefix}.", "here")
        headed = {f"{model.base_model_prefix}.{key}": tensor for key, tensor in found.items()}
        weights.check(headed | {"lm_head.weight": Tensor("F32", (2, 2))}, needed, f"{model.base_model_prefix}.", "here")


def test_a_pickle_of_many_kinds_is_read_as_torch_does(tmp_path: Path) -> None:
    shared = torch.zeros(6, 300, dtype=torch.bfloat16)
    state = {
        "scalar": torch.tensor(1.0, dtype=torch.float64),
        "part": shared[:, 3:70_000].t(),
        "same": shared,
        "empty": torch.empty(0, 5, dtype=torch.float16),
        "integers": torch.ones(70_000, dtype=torch.int8),
    }
    torch.save({**state, "extra": {"nested": 1.0}}, tmp_path / "pytorch_model.bin")
    found = weights.described(str(tmp_path), "pytorch_model.bin")
    assert found is not None
    assert {name: tensor.shape for name, tensor in found.items()} == shapes(state)
    assert [name for name, tensor in found.items() if not tensor.is_float] == ["integers"]


def archive(member: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as written:
        written.writestr(member, b"x")
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "model.safetensors",
            POINTER,
            "is a Git LFS pointer to weights, not the weights; allowed: what `git lfs pull`",
        ),
        ("pytorch_model.bin", POINTER, "is a Git LFS pointer to weights"),
        ("pytorch_model.bin", b"<?xml version='1.0'?><Error>", "is a web page"),
        ("pytorch_model.bin", b"\x89HDF\r\n\x1a\n", "is weights of TensorFlow; allowed: those of PyTorch"),
        ("pytorch_model.bin", b"", "is empty"),
        ("pytorch_model.bin", archive("archive/data.txt"), "is a zip file without tensors"),
        ("pytorch_model.bin", archive("archive/data.pkl"), "is damaged or holds more than tensors"),
        ("pytorch_model.bin", archive("archive/data.pkl")[:-9], "is damaged or holds more than tensors"),
        ("model.safetensors", b"\xff" * 40, "is damaged or no safetensors file"),
        ("model.safetensors", b"\x02\x00\x00\x00\x00\x00\x00\x00[]", "is damaged or no safetensors file"),
        ("model.safetensors", b"\x09\x00\x00\x00\x00\x00\x00\x00" + b'{"a": [1]}', "is damaged or no safetensors file"),
    ],
)
def test_what_is_no_file_of_weights_is_told_by_its_beginning(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as refused:
        weights.described(str(tmp_path), name)
    assert str(refused.value).startswith(f"{tmp_path}: {name} {message}")


def test_a_file_that_was_cut_off_is_told_by_its_header(tmp_path: Path) -> None:
    place = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1000)}, place)
    whole = place.read_bytes()
    place.write_bytes(whole[:-1000])
    expected = rf"has {len(whole) - 1000} bytes, its header says {len(whole)}; allowed: the whole file, copied anew"
    with pytest.raises(UserError, match=expected):
        weights.described(str(tmp_path), place.name)


def test_more_than_tensors_is_refused_and_what_only_torch_can_tell_is_left_to_it(tmp_path: Path) -> None:
    place = tmp_path / "pytorch_model.bin"
    for saved, message in (
        (torch.nn.Linear(2, 2), "holds more than tensors: torch.nn.modules.linear.Linear"),
        ({"a": Path("x")}, "holds more than tensors: pathlib"),
        (torch.zeros(2), "holds no state dict"),
        ((torch.zeros(2),), "holds no state dict"),
    ):
        torch.save(saved, place)
        with pytest.raises(UserError, match=message):
            weights.described(str(tmp_path), place.name)
    for settings in ({"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}):
        torch.save({"a": torch.zeros(2)}, place, **settings)
        assert weights.described(str(tmp_path), place.name) is None


NEEDED = {"a.weight": (2, 3), "b.weight": (4,)}


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({}, "weights are missing, the first one is a.weight: it has nothing"),
        (
            {"x.a.weight": Tensor("F32", (2, 3))},
            "a.weight: it has it as x.a.weight; allowed: names as in a Hugging Face",
        ),
        ({"a.weight": Tensor("F32", (2, 3)), "c": Tensor("F32", ())}, "first one is b.weight: it has a.weight, c"),
        (
            {"a.weight": Tensor("F32", (3, 2)), "b.weight": Tensor("F32", (4,))},
            "a.weight: (3, 2), config.json asks for (2,",
        ),
        (
            {"a.weight": Tensor("U8", (2, 3)), "b.weight": Tensor("F32", (4,))},
            "a.weight is U8; allowed: weights as floats",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(found: dict[str, Tensor], message: str) -> None:
    with pytest.raises(UserError) as refused:
        weights.check(found, NEEDED, "hubert.", "there")
    assert str(refused.value).startswith("there: ")
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"conv_dim": [64, 0, 64]}, "conv_dim is [64, 0, 64]; allowed: whole numbers from 1 to"),
        ({"conv_stride": [5, 2]}, "conv_dim, conv_kernel and conv_stride differ in length"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True"),
        ({"intermediate_size": None}, "intermediate_size is None"),
        ({"num_attention_heads": 7}, "num_attention_heads is 7; allowed: a divisor of hidden_size, 768"),
        ({"hidden_dropout": None}, "hidden_dropout is None; allowed: a probability from 0 to 1"),
        ({"layerdrop": 10}, "layerdrop is 10; allowed: a probability"),
        ({"hidden_act": None}, "hidden_act is None; allowed: a name, such as 'gelu'"),
    ],
)
def test_a_config_that_describes_no_model_is_refused(config: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as refused:
        weights.needed(json.loads(json.dumps(config)), "there/config.json")
    assert str(refused.value).startswith(f"there/config.json: {message}")

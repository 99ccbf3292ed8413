import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import (
    HubertForCTC,
    PreTrainedModel,
    UniSpeechForPreTraining,
    UniSpeechSatForPreTraining,
    Wav2Vec2ForPreTraining,
    WavLMForCTC,
)

from ray_asd.config import RANDOM_SIZES, Backbone
from ray_asd.errors import UserError
from ray_asd.models import backbones
from ray_asd.models.backbones import SpeechBackbone
from ray_asd.models.checkpoints import FAMILIES, Checkpoint, mirror, resolve
from small_models import ARCHITECTURES, LAYER, TINY, noise, reference_model, save, states_of


def load(source: str, family: str = "hubert", seed: int = 0, **settings: object) -> SpeechBackbone:
    config = Backbone.model_validate({"family": family, "source": source, **settings})
    return backbones.load(resolve(config, seed), config)


def relative(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


def batch(seconds: float = 0.3, count: int = 2) -> Tensor:
    return torch.stack([torch.from_numpy(noise(seconds, seed)) for seed in range(count)])


@torch.inference_mode()
def assert_same_states(ours: SpeechBackbone, theirs: PreTrainedModel) -> None:
    expected = states_of(theirs, batch())
    states = ours.eval()(batch())
    assert len(states) == len(expected) == ours.num_layers + 1 == TINY["num_hidden_layers"] + 1
    assert max(relative(a, b) for a, b in zip(states, expected, strict=True)) <= 1e-5
    assert min(relative(a, b) for a, b in zip(states, expected[1:], strict=False)) > 1e-2  # order matters
    assert relative(ours.last(batch()), theirs(batch()).last_hidden_state) <= 1e-5


@pytest.mark.parametrize("weights", ["safetensors", "bin"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_hidden_states_equal_transformers(architecture: str, weights: str, tmp_path: Path) -> None:
    model = reference_model(architecture)
    ours = load(save(model, tmp_path, weights), ARCHITECTURES[architecture][0])
    assert_same_states(ours, model)
    assert ours.hidden_size == TINY["hidden_size"]
    assert ours.normalize == architecture.endswith("-layer")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.inference_mode()
def test_the_last_state_is_final_normed_where_layers_normalise_first_and_else_as_it_was(architecture: str) -> None:
    model = reference_model(architecture)
    raw = model(batch(), output_hidden_states=True).hidden_states
    states = SpeechBackbone(model, Backbone(family=ARCHITECTURES[architecture][0])).eval()(batch())
    assert all(torch.equal(a, b) for a, b in zip(states[:-1], raw[:-1], strict=True))
    if architecture.endswith("-layer"):
        assert relative(states[-1], raw[-1]) > 0.1
        torch.testing.assert_close(states[-1], model.encoder.layer_norm(raw[-1]))
    else:
        assert torch.equal(states[-1], raw[-1])


def test_a_mirrored_checkpoint_loads_as_the_original(tmp_path: Path, bucket: str) -> None:
    model = reference_model("hubert-group")
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    mirror(str(tmp_path), None, bucket)
    assert_same_states(load(bucket), model)


def test_min_samples_is_the_shortest_waveform_that_gives_a_frame() -> None:
    backbone = load("random:tiny").eval()
    assert backbone.min_samples == 400
    assert backbone(torch.randn(1, 400))[0].shape == (1, 1, 96)
    with pytest.raises(RuntimeError):
        backbone(torch.randn(1, 399))


@pytest.mark.parametrize(
    ("family", "head_class"),
    [
        ("wav2vec2", Wav2Vec2ForPreTraining),
        ("hubert", HubertForCTC),
        ("wavlm", WavLMForCTC),
        ("unispeech", UniSpeechForPreTraining),
        ("unispeech", UniSpeechSatForPreTraining),
    ],
)
def test_a_checkpoint_saved_with_a_head_loads(family: str, head_class: type[PreTrainedModel], tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = head_class(head_class.config_class(**TINY)).eval()
    assert_same_states(load(save(model, tmp_path, "safetensors"), family), getattr(model, model.base_model_prefix))


def test_weight_names_of_older_torch_versions_load(tmp_path: Path) -> None:
    model = reference_model("hubert-group")
    model.config.save_pretrained(tmp_path)
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    state = model.state_dict()
    for new, old in names.items():
        state = {name.replace(new, old): value for name, value in state.items()}
    assert "encoder.pos_conv_embed.conv.weight_g" in state
    torch.save(state, tmp_path / "pytorch_model.bin")
    assert_same_states(load(str(tmp_path)), model)


def test_shards_load(tmp_path: Path) -> None:
    model = reference_model("wav2vec2-layer")
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert_same_states(load(str(tmp_path), "wav2vec2"), model)


def test_half_precision_weights_become_float32(tmp_path: Path) -> None:
    save(reference_model("wavlm-group").half(), tmp_path, "safetensors")
    assert {parameter.dtype for parameter in load(str(tmp_path), "wavlm").parameters()} == {torch.float32}


def test_weights_that_are_not_finite_are_named(tmp_path: Path) -> None:
    model = reference_model("hubert-group")
    with torch.no_grad():
        model.encoder.layer_norm.bias[1] = float("nan")
    save(model, tmp_path, "safetensors")
    with pytest.raises(
        UserError, match=r"1 weights hold values that are not finite, the first one is encoder\.layer_norm"
    ):
        load(str(tmp_path), "hubert")


def test_missing_and_misshapen_weights_are_counted_and_named(tmp_path: Path) -> None:
    model = reference_model("hubert-group")
    model.config.save_pretrained(tmp_path)
    state = model.state_dict()
    partial = {name: value for name, value in state.items() if not name.startswith("encoder.layers.1.attention.")}
    torch.save(partial, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"weights are missing, the first one is encoder\.layers\.1\.attention\."):
        load(str(tmp_path))
    torch.save(state | {"feature_projection.projection.bias": torch.zeros(3)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"1 weights .*feature_projection\.projection\.bias: \(3,\), .* \(32,\)"):
        load(str(tmp_path))
    torch.save({name: v for name, v in state.items() if name != "masked_spec_embed"}, tmp_path / "pytorch_model.bin")
    assert_same_states(load(str(tmp_path), spec_augment=True), model)


class Trap:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("sprung"),))


def test_weights_cannot_run_code_and_damage_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(reference_model("hubert-group"), tmp_path, "bin")
    weights = tmp_path / "pytorch_model.bin"
    for content in (pickle.dumps(Trap(), protocol=2), weights.read_bytes()[:5000], b""):
        weights.write_bytes(content)
        with pytest.raises(UserError, match=r"pytorch_model\.bin is (damaged or holds more than tensors|empty)"):
            load(str(tmp_path))
    assert not Path("sprung").exists()
    (tmp_path / "model.safetensors").write_bytes(b"{}")
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        load(str(tmp_path))


def test_a_config_asks_for_nothing_but_an_architecture(tmp_path: Path) -> None:
    model = reference_model("wavlm-group")
    save(model, tmp_path, "safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    code = {"auto_map": {"AutoModel": "evil.Model"}, "quantization_config": {"quant_method": "evil"}}
    wishes = {**code, "return_dict": False, "layerdrop": 0.9, "add_adapter": True}
    (tmp_path / "config.json").write_text(json.dumps(config | wishes))
    backbone = load(str(tmp_path), "wavlm")
    assert_same_states(backbone, model)
    assert backbone.model.config.layerdrop == 0
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_size": "many"}))
    with pytest.raises(UserError, match=r"config\.json: hidden_size is 'many'; allowed: whole numbers"):
        load(str(tmp_path), "wavlm")


@pytest.mark.parametrize("weighted_sum", [True, False])
@pytest.mark.parametrize("spec_augment", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_trained_parameter_gets_a_gradient(architecture: str, spec_augment: bool, weighted_sum: bool) -> None:
    family, _, config_class, options = ARCHITECTURES[architecture]
    config = Backbone(family=family, spec_augment=spec_augment, weighted_sum=weighted_sum)
    values = {**config_class(**TINY, **options).to_dict(), "layerdrop": 0.9, "mask_feature_prob": 0.1}
    backbone = backbones.build(Checkpoint("test", {}, values), config).train()
    states = sum(backbone(batch())) if weighted_sum else backbone.last(batch())
    (states * torch.randn_like(states)).sum().backward()
    trained = {name: parameter for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert [name for name, parameter in trained.items() if parameter.grad is None] == []
    frozen = {name for name, _ in backbone.named_parameters()} - set(trained)
    assert all("masked_spec_embed" in name for name in frozen)


@pytest.mark.parametrize("freeze", ["nothing", "feature_encoder", "all"])
def test_freezing(freeze: str) -> None:
    backbone = load("random:tiny", freeze=freeze).train()
    encoder = {parameter.requires_grad for parameter in backbone.model.feature_extractor.parameters()}
    rest = {parameter.requires_grad for parameter in backbone.model.encoder.layers.parameters()}
    assert encoder == {freeze == "nothing"}
    assert rest == {freeze != "all"}
    assert backbone.last(batch()).requires_grad == (freeze != "all")


def test_spec_augment_masks_only_when_asked_and_only_in_training(tmp_path: Path) -> None:
    source = save(reference_model("hubert-group"), tmp_path, "safetensors")
    on, off = load(source, spec_augment=True, dropout=0), load(source, dropout=0)
    torch.testing.assert_close(on.eval().last(batch()), off.eval().last(batch()))
    torch.testing.assert_close(off.train().last(batch()), off.eval().last(batch()))
    assert relative(on.train().last(batch()), off.last(batch())) > 1e-2
    np.random.seed(5)
    once = on.last(batch())
    np.random.seed(5)
    torch.testing.assert_close(on.last(batch()), once)


def test_spec_augment_takes_a_crop_shorter_than_its_mask(tmp_path: Path) -> None:
    model = reference_model("hubert-group")
    model.config.mask_feature_prob, model.config.mask_feature_length = 0.5, 64
    backbone = load(save(model, tmp_path, "safetensors"), spec_augment=True).train()
    assert backbone.last(torch.randn(2, 400)).isfinite().all()
    backbone.last(batch(0.5))
    assert backbone.model.config.mask_time_length == 10


def test_dropout_is_the_checkpoints_own_or_the_recipes(tmp_path: Path) -> None:
    source = save(reference_model("wav2vec2-group"), tmp_path, "safetensors")

    def rates(backbone: SpeechBackbone) -> set[float]:
        attention = {layer.attention.dropout for layer in backbone.model.encoder.layers}
        return attention | {module.p for module in backbone.modules() if isinstance(module, nn.Dropout)}

    assert rates(load(source, "wav2vec2")) == {0.1, 0.0}  # only feat_proj_dropout is 0
    assert rates(load(source, "wav2vec2", dropout=0.3)) == {0.3}


def test_normalisation_can_be_overridden() -> None:
    assert load("random:tiny", normalize=True).normalize is True
    assert load("random:tiny", "wav2vec2", normalize=False).normalize is False


@pytest.mark.parametrize("family", FAMILIES)
def test_random_weights_depend_on_the_seed_alone(family: str) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first = load("random:tiny", family, seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    again, other = load("random:tiny", family, seed=3).state_dict(), load("random:tiny", family, seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    projection = "model.feature_projection.projection.weight"
    assert not torch.equal(first[projection], other[projection])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", RANDOM_SIZES)
def test_random_sizes(family: str, size: str) -> None:
    config = Backbone(family=family, source=f"random:{size}")
    with torch.device("meta"):
        backbone = backbones.build(resolve(config, 0), config)
    millions = sum(parameter.numel() for parameter in backbone.parameters()) / 1e6
    low, high = {"tiny": (0.3, 0.5), "small": (4, 7), "base": (300, 330) if family == "wav2vec2" else (90, 100)}[size]
    assert low < millions < high
    assert backbone.normalize == (family == "wav2vec2")
    assert backbone.min_samples == 400


def test_published_shapes() -> None:
    shapes = [(b.num_layers, b.hidden_size) for b in map(_base, FAMILIES)]
    assert shapes == [(24, 1024), (12, 768), (12, 768), (12, 768)]


def _base(family: str) -> SpeechBackbone:
    config = Backbone.model_validate({"family": family, "source": "random:base"})
    with torch.device("meta"):
        return backbones.build(resolve(config, 0), config)


def test_layer_norm_variant_is_what_xls_r_is() -> None:
    values = resolve(Backbone(family="wav2vec2", source="random:base"), 0).config
    assert {name: values[name] for name in LAYER} == LAYER


@pytest.mark.parametrize("architecture", ["wavlm-group", "wavlm-layer"])
def test_gradients_through_fused_attention_equal_transformers(architecture: str, tmp_path: Path) -> None:
    theirs = reference_model(architecture)
    ours = load(save(theirs, tmp_path, "safetensors"), "wavlm").eval()
    target = torch.randn(ours.last(batch()).shape)
    for last in (ours(batch())[-1], states_of(theirs, batch())[-1]):
        (last * target).sum().backward()
    expected = {name: weight.grad for name, weight in theirs.named_parameters() if weight.grad is not None}
    found = {name: weight.grad for name, weight in ours.model.named_parameters() if weight.grad is not None}
    assert expected
    assert found.keys() == expected.keys()
    scale = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in expected.items():  # a key's bias has no effect on a softmax: its gradient is rounding
        assert relative(found[name], gradient) < 1e-4 or gradient.abs().max() < 1e-6 * scale, name

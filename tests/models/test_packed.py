"""Packed backbones give transformers' own hidden states, faster."""

import copy

import pytest
import torch
from torch import Tensor
from transformers import Wav2Vec2Config, Wav2Vec2Model, WavLMConfig, WavLMModel

from ray_asd.config import Backbone
from ray_asd.models import embedder
from ray_asd.models.backbones import SpeechBackbone
from ray_asd.models.checkpoints import resolve
from ray_asd.models.packed import Packed, pack
from ray_asd.models.products import has_bf16, keep_float32
from small_models import ARCHITECTURES, TINY, make_recipe, noise, reference_model, states_of

CPU = torch.device("cpu")
needs_bf16 = pytest.mark.skipif(not has_bf16(CPU), reason="this CPU has no bf16 of its own")


def backbone(model: object, family: str = "wavlm") -> SpeechBackbone:
    return SpeechBackbone(model, Backbone(family=family, source="random:tiny"))  # type: ignore[arg-type]


def packed(architecture: str, precision: str = "float32") -> Packed:
    made = pack(backbone(reference_model(architecture), ARCHITECTURES[architecture][0]), precision)
    assert isinstance(made, Packed)
    return made


def states(model: torch.nn.Module, waveform: Tensor) -> list[Tensor]:
    with torch.inference_mode():
        return [state.float() for state in model(waveform)]


def reference_states(architecture: str, waveform: Tensor) -> list[Tensor]:
    with torch.inference_mode():
        return states_of(reference_model(architecture), waveform)


def errors(found: list[Tensor], expected: list[Tensor]) -> list[float]:
    """Relative L2 distance of each hidden state."""
    return [float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True)]


@pytest.mark.parametrize("shape", [(1, 3200), (3, 16_000), (2, 5555)])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_state_equals_transformers_own(architecture: str, shape: tuple[int, int]) -> None:
    waveform = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 0.3
    assert max(errors(states(packed(architecture), waveform), reference_states(architecture, waveform))) < 1e-5


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "allowed"), [("float32", 1e-5), ("bf16", 0.03)])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_states_on_a_gpu(architecture: str, precision: str, allowed: float) -> None:
    keep_float32()
    waveform = torch.randn(3, 16_000, generator=torch.Generator().manual_seed(0)) + 0.3
    plain = backbone(reference_model(architecture), ARCHITECTURES[architecture][0]).cuda()
    made = pack(plain, precision)
    assert isinstance(made, Packed)
    expected = reference_states(architecture, waveform)
    for model, bound in ((plain, 1e-5), (made, allowed)):
        found = [state.cpu() for state in states(model, waveform.cuda())]
        assert max(errors(found, expected)) < bound


@needs_bf16
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_states_in_bf16_are_within_two_percent(architecture: str) -> None:
    waveform = torch.randn(3, 16_000, generator=torch.Generator().manual_seed(0))
    found = errors(states(packed(architecture, "bf16"), waveform), reference_states(architecture, waveform))
    assert 1e-4 < max(found) < 0.02


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_last_is_the_models_output(architecture: str) -> None:
    waveform = torch.randn(2, 8000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = packed(architecture).last(waveform)
        expected = reference_model(architecture)(waveform).last_hidden_state
    assert max(errors([found], [expected])) < 1e-5


def test_states_do_not_depend_on_the_batch() -> None:
    model, waveform = packed("wavlm-layer"), torch.randn(4, 6400)
    together = states(model, waveform)
    alone = [states(model, signal.unsqueeze(0)) for signal in waveform]
    for layer, state in enumerate(together):
        torch.testing.assert_close(state, torch.cat([one[layer] for one in alone]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", pytest.param("bf16", marks=needs_bf16)])
def test_a_pass_of_another_length_changes_no_later_one(precision: str) -> None:
    """Weights are laid out anew for each length."""
    model, waveform = packed("hubert-group", precision), torch.randn(2, 16_000)
    before = states(model, waveform)
    shorter = states(model, waveform[:, :6400])
    assert max(errors(shorter, reference_states("hubert-group", waveform[:, :6400]))) < 0.02
    assert all(torch.equal(one, other) for one, other in zip(states(model, waveform), before, strict=True))


@pytest.mark.parametrize("architecture", ["hubert-group", "wavlm-layer"])
def test_features_of_a_batch_at_once_are_those_of_one_by_one(architecture: str) -> None:
    """A GPU takes all at once."""
    features, waveform = packed(architecture)._features, torch.randn(3, 6400)
    with torch.inference_mode():
        torch.testing.assert_close(features.together(waveform), features(waveform), rtol=1e-4, atol=1e-5)


def test_a_constant_signal_stays_finite() -> None:
    """Its variance is zero; transformers' states of it are rounding errors divided by the norm's epsilon."""
    assert all(state.isfinite().all() for state in states(packed("hubert-group"), torch.full((1, 3200), 0.5)))


def test_the_backbone_it_was_made_from_stays_as_it_was() -> None:
    plain = backbone(reference_model("wavlm-group"))
    before = copy.deepcopy(plain.state_dict())
    pack(plain, "float32")
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())


@pytest.mark.parametrize(
    "variant",
    [
        {"hidden_act": "relu"},
        {"feat_extract_activation": "relu"},
        {"adapter_attn_dim": 4},
    ],
)
def test_variants_it_does_not_know_are_left_to_transformers(variant: dict[str, object]) -> None:
    plain = backbone(Wav2Vec2Model(Wav2Vec2Config(**TINY, **variant)).eval(), "wav2vec2")
    assert pack(plain, "bf16") is plain


@needs_bf16
def test_narrow_groups_of_the_positional_convolution_stay_exact_in_bf16() -> None:
    """oneDNN's bf16 convolutions are wrong below 16 channels a group on some CPUs."""
    torch.manual_seed(0)
    model = WavLMModel(WavLMConfig(**{**TINY, "num_conv_pos_embedding_groups": 8})).eval()
    waveform = torch.randn(2, 8000)
    with torch.inference_mode():
        expected = list(model(waveform, output_hidden_states=True).hidden_states)
    assert max(errors(states(pack(backbone(model), "bf16"), waveform), expected)) < 0.02


@pytest.mark.parametrize("weighted_sum", [True, False])
@pytest.mark.parametrize("family", ["wav2vec2", "hubert", "wavlm", "unispeech"])
def test_a_packed_system_embeds_as_the_plain_one(family: str, weighted_sum: bool) -> None:
    recipe = make_recipe(family=family, backbone={"weighted_sum": weighted_sum})
    system = embedder.build(recipe, resolve(recipe.backbone, recipe.seed)).eval()
    clips = [noise(2.5, seed) for seed in range(2)]
    plain = system.embed(clips)
    system.pack()
    torch.testing.assert_close(system.embed(clips), plain, rtol=1e-4, atol=1e-5)

import itertools
import math
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import Wav2Vec2FeatureExtractor

from ray_asd.config import Inference, Recipe
from ray_asd.errors import UserError
from ray_asd.models import embedder, sizes
from ray_asd.models.checkpoints import resolve
from ray_asd.models.embedder import WHOLE, Chunking, ClipEmbedder, WeightedSum, normalise, windows
from ray_asd.models.pooling import padded
from ray_asd.models.products import has_bf16
from small_models import ARCHITECTURES, TINY, make_recipe, noise, reference_model, save, states_of

WINDOWS = {"window_seconds": 0.2, "hop_seconds": 0.15}
TFP = {"steps": 1, "batch_size": 1, "feedforward": 32, "window_seconds": 0.2, "hop_seconds": 0.1}


def build(recipe: Recipe) -> ClipEmbedder:
    return embedder.build(recipe, resolve(recipe.backbone, recipe.seed))


def tiny(**sections: object) -> ClipEmbedder:
    return build(make_recipe(**{"embedding": {"dim": 16}, "inference": WINDOWS, **sections}))


def starts(total: int, window: int, hop: int) -> list[int]:
    cut = windows(torch.arange(total), Chunking(window, hop))
    assert all(chunk.tolist() == list(range(chunk[0], chunk[0] + min(window, total))) for chunk in cut)
    return [int(chunk[0]) for chunk in cut]


def test_windows_by_hand() -> None:
    assert starts(10, 4, 4) == [0, 4, 6]
    assert starts(12, 4, 4) == [0, 4, 8]
    assert starts(10, 4, 2) == [0, 2, 4, 6]
    assert starts(11, 4, 2) == [0, 2, 4, 6, 7]
    assert starts(10, 2, 5) == [0, 5, 8]
    assert starts(4, 4, 1) == [0]
    assert starts(3, 4, 1) == [0]
    assert len(windows(torch.arange(1000), WHOLE)[0]) == 1000


@pytest.mark.parametrize("total", range(1, 40))
@pytest.mark.parametrize(("window", "hop"), [(5, 5), (5, 3), (3, 7)])
def test_windows_cover_the_clip_to_its_end(total: int, window: int, hop: int) -> None:
    found = starts(total, window, hop)
    assert found[0] == 0
    assert found[-1] + min(window, total) == total
    assert all(1 <= later - earlier <= hop for earlier, later in pairwise(found))


def test_seconds_are_rounded_to_samples() -> None:
    assert Chunking.of_seconds(2.0, 0.1) == Chunking(32_000, 1_600)


@pytest.mark.parametrize("clip", [noise(1.0), 1e-3 * noise(0.3), np.full(500, 0.25, np.float32)])
def test_normalise_is_what_the_feature_extractor_does(clip: np.ndarray) -> None:
    expected = Wav2Vec2FeatureExtractor(do_normalize=True)(clip, sampling_rate=16_000).input_values[0]
    torch.testing.assert_close(normalise(torch.from_numpy(clip)), torch.tensor(expected), rtol=1e-5, atol=1e-5)


def test_weighted_sum_by_hand() -> None:
    weighted_sum = WeightedSum(3)
    states = [torch.full((1, 2, 2), value) for value in (1.0, 10.0, 100.0)]
    torch.testing.assert_close(weighted_sum(states), torch.full((1, 2, 2), 37.0))
    weighted_sum.weights.data = torch.tensor([2.0, 0.0, -1.0])
    torch.testing.assert_close(weighted_sum(states), torch.full((1, 2, 2), -98.0))


@pytest.mark.parametrize("weights", ["safetensors", "bin"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.inference_mode()
def test_chunk_embeddings_equal_transformers_on_hand_cut_windows(
    architecture: str, weights: str, tmp_path: Path
) -> None:
    model = reference_model(architecture)
    layer_weights = torch.tensor([0.1, -0.2, 0.3, 0.4])
    recipe = make_recipe(save(model, tmp_path, weights), ARCHITECTURES[architecture][0], embedding={"dim": 16})
    system = build(recipe)
    system.embedder.weighted_sum.weights.copy_(layer_weights)
    clip, window, hop = noise(0.5), 3200, 2400
    extractor = Wav2Vec2FeatureExtractor(do_normalize=architecture.endswith("-layer"))
    signal = torch.tensor(extractor(clip, sampling_rate=16_000).input_values[0])
    expected = []
    for start in (0, 2400, 4800):  # 8000 samples: the third window ends with the clip
        states = states_of(model, signal[None, start : start + window])
        assert len(states) == TINY["num_hidden_layers"] + 1
        pooled = sum(weight * state.double() for weight, state in zip(layer_weights, states, strict=True))[0].mean(
            dim=0
        )
        expected.append(functional.linear(pooled, *(p.double() for p in system.embedder.projection.parameters())))
    ours = torch.from_numpy(system.embed_chunks([clip], Chunking(window, hop))[0])
    theirs = torch.stack(expected)
    assert ours.shape == (3, 16)
    assert ((ours - theirs).norm(dim=1) / theirs.norm(dim=1)).max() <= 1e-5


def test_a_clip_is_the_mean_of_its_unit_length_chunks() -> None:
    system, clip = tiny(), noise(0.5)
    chunks = system.embed_chunks([clip], Chunking.of_seconds(0.2, 0.15))[0].astype(np.float64)
    mean = (chunks / np.linalg.norm(chunks, axis=1, keepdims=True)).mean(axis=0)
    embedding = system.embed([clip])
    assert embedding.dtype == np.float32
    np.testing.assert_allclose(embedding[0], mean / np.linalg.norm(mean), atol=1e-6)


def test_a_whole_clip_is_one_chunk() -> None:
    system, clip = tiny(inference={"mode": "whole"}), noise(0.5)
    chunk = system.embed_chunks([clip], WHOLE)[0]
    assert chunk.shape == (1, 16)
    np.testing.assert_allclose(system.embed([clip]), chunk / np.linalg.norm(chunk), atol=1e-6)


def test_transformer_pooling_uses_its_own_windows() -> None:
    system = tiny(transformer_pooling=TFP, inference={"mode": "whole"})
    clip = noise(0.5)
    chunks = torch.from_numpy(system.embed_chunks([clip], Chunking(3200, 1600))[0])
    assert len(chunks) == 4
    with torch.inference_mode():
        expected = functional.normalize(system.pooling(*padded([chunks])), dim=-1)
    np.testing.assert_allclose(system.embed([clip]), expected.numpy(), atol=1e-6)


PRECISIONS = ["plain", "float32", *(["bf16"] if has_bf16(torch.device("cpu")) else [])]
MIXED = [0.5, 0.1, 0.5, 0.33, 0.2, 0.71, 0.1, 0.2]  # seconds: shorter than a window of 0.2, a window, longer


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("family", "sections"),
    [
        ("wavlm", {}),
        ("wavlm", {"embedding": {"dim": 16, "pooling": "attentive_statistics"}}),
        ("wavlm", {"backbone": {"weighted_sum": False}, "transformer_pooling": TFP}),
        ("wav2vec2", {"transformer_pooling": TFP}),
        ("hubert", {}),
        ("hubert", {"augmentation": {}}),
        ("unispeech", {"inference": {"mode": "whole"}}),
    ],
)
def test_a_clip_has_the_same_embedding_whatever_it_is_embedded_with(
    family: str, sections: dict[str, object], precision: str, threads: int, threads_put_back: None
) -> None:
    """To the last bit, over random orders and splits."""
    system = tiny(family=family, **sections)
    if precision != "plain":
        system.recipe = system.recipe.model_copy(update={"inference": with_precision(system.recipe, precision)})
        system.pack()
    system.batch_seconds = 1.1  # 5 windows
    torch.set_num_threads(threads)
    clips = [noise(seconds, seed) for seed, seconds in enumerate(MIXED)]
    together = system.embed(clips)
    assert together.shape == (len(clips), 16)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert len(np.unique(together, axis=0)) == len(clips)
    random = np.random.default_rng(0)
    for _ in range(3):
        order = random.permutation(len(clips))
        for part in np.split(order, np.sort(random.choice(len(clips), 2, replace=False))):
            np.testing.assert_array_equal(system.embed([clips[clip] for clip in part]), together[part])
    np.testing.assert_array_equal(np.stack(list(system.embed_stream(iter(clips)))), together)


@pytest.fixture
def threads_put_back() -> Iterator[None]:
    """Torch's number of threads is put back."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def with_precision(recipe: Recipe, precision: str) -> Inference:
    return recipe.inference.model_copy(update={"precision": precision})


@pytest.mark.parametrize("family", ["wavlm", "wav2vec2"])
def test_another_batch_size_is_the_same_within_rounding(family: str) -> None:
    system, clips = tiny(family=family), [noise(seconds, seed) for seed, seconds in enumerate(MIXED)]
    system.pack()
    usual = system.embed(clips)
    assert np.abs(usual[0] - usual[2]).max() > 1e-4  # another clip of the same length
    system.batch_seconds = 0.1  # a window at a time
    np.testing.assert_allclose(system.embed(clips), usual, atol=2e-6)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_short_clips_give_the_bits_that_each_gives_alone(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "_WORTH_TRYING", 3)
    system = tiny(family="hubert", inference=WINDOWS | {"precision": precision})
    system.pack()
    clips = [noise(0.1 if number % 3 else 0.15, number) for number in range(60)]
    alone = np.concatenate([system.embed([clip]) for clip in clips])
    assert (system.embed(clips) == alone).all()
    assert system._sizes
    assert {size for _, size, _, alone in system._sizes._same if alone} == {16}, "it was tried"


@pytest.mark.parametrize("weighted_sum", [False, True])
def test_a_frozen_backbone_embeds_the_same_once_it_is_packed(weighted_sum: bool) -> None:
    """Without weighted sum nothing with parameters is left then."""
    untrained = {"training": None, "augmentation": None, "embedding": {"pooling": "statistics"}}
    system = tiny(backbone={"weighted_sum": weighted_sum}, **untrained)
    usual = system.embed([noise(0.5)])
    system.pack()
    np.testing.assert_allclose(system.embed([noise(0.5)]), usual, atol=2e-6)


def test_clips_of_a_stream_come_before_all_are_read() -> None:
    system, read = tiny(), itertools.count()
    system.pack()
    system.batch_seconds = 0.8  # 4 windows
    found = system.embed_stream(noise(0.5, next(read)) for _ in itertools.count())
    first = [next(found) for _ in range(2)]
    assert next(read) == 3  # 3 windows each
    np.testing.assert_array_equal(np.stack(first), system.embed([noise(0.5, 0), noise(0.5, 1)]))


def test_input_may_be_read_only_and_is_left_alone() -> None:
    clip = noise(0.3)
    clip.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny().embed([clip])
    assert np.array_equal(clip, noise(0.3))


def test_no_clips_give_no_rows() -> None:
    assert tiny().embed([]).shape == (0, 16)
    assert tiny().embed_chunks([], WHOLE) == []


def test_a_clip_or_window_too_short_for_the_backbone_is_refused() -> None:
    with pytest.raises(UserError, match="399 samples is too short; the backbone needs 400 or more"):
        tiny().embed([noise(0.5), noise(399 / 16_000)])
    with pytest.raises(UserError, match="160 samples is too short"):
        tiny(inference={"window_seconds": 0.01}).embed([noise(0.5)])


def test_dropout_is_off_while_embedding() -> None:
    system = tiny().train()
    assert np.array_equal(system.embed([noise(0.3)]), system.train().embed([noise(0.3)]))


@pytest.mark.skipif(not has_bf16(torch.device("cpu")), reason="this CPU has no bf16 of its own")
def test_bf16_is_close_to_float32() -> None:
    clips = [noise(0.3, seed) for seed in range(3)]
    packed = tiny(inference={**WINDOWS, "precision": "bf16"})
    packed.pack()
    exact, rough = tiny().embed(clips), packed.embed(clips)
    assert rough.dtype == np.float32
    assert not np.array_equal(rough, exact)
    assert (rough * exact).sum(axis=1).min() > 0.999


@pytest.mark.parametrize("weighted_sum", [True, False])
def test_a_system_trained_on_resampled_clips_does_not_hear_the_top_of_the_band(weighted_sum: bool) -> None:
    """Any other system does; but for the filter the two are the same to the last bit."""
    backbone = {"weighted_sum": weighted_sum}
    whistle = 0.1 * np.hanning(8000) * np.sin(2 * np.pi * 7300 / 16_000 * np.arange(8000))
    clips = [noise(0.5), noise(0.5) + whistle.astype(np.float32)]
    plain, stretched, resampled = (
        tiny(backbone=backbone, inference={"mode": "whole"}, **sections)
        for sections in ({}, {"augmentation": {"modes": ["stretch"]}}, {"augmentation": {}})
    )
    usual, deaf = plain.embed(clips), resampled.embed(clips)
    assert np.abs(usual[0] - usual[1]).max() > 1e-3
    assert np.abs(deaf[0] - deaf[1]).max() < 1e-5
    np.testing.assert_array_equal(stretched.embed(clips), usual)
    resampled.embedder.low_pass = None
    np.testing.assert_array_equal(resampled.embed(clips), usual)


@pytest.mark.parametrize("family", ["wav2vec2", "hubert"])
def test_without_weighted_sum_the_last_layer_is_pooled(family: str) -> None:
    system = tiny(family=family, backbone={"weighted_sum": False}).eval()
    chunk = torch.randn(1, 3200)
    with torch.inference_mode():
        expected = system.embedder.projection(system.embedder.backbone.model(chunk).last_hidden_state.mean(dim=1))
        torch.testing.assert_close(system.embedder(chunk), expected)


@pytest.mark.parametrize("pooling", ["mean", "attentive_statistics"])
@pytest.mark.parametrize("weighted_sum", [True, False])
@pytest.mark.parametrize("family", ["wav2vec2", "unispeech"])
def test_every_trained_parameter_gets_a_gradient(family: str, weighted_sum: bool, pooling: str) -> None:
    system = tiny(
        family=family, backbone={"weighted_sum": weighted_sum}, embedding={"dim": 16, "pooling": pooling}
    ).train()
    embedding = system.embedder(torch.randn(2, 3200))
    assert embedding.shape == (2, 16)
    (embedding * torch.randn(2, 16)).sum().backward()
    parameters = dict(system.named_parameters())
    assert [name for name, p in parameters.items() if p.requires_grad and p.grad is None] == []


def test_a_system_depends_on_the_recipes_seed_alone() -> None:
    def state(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(torch.seed() % 1000)
        return tiny(seed=seed, transformer_pooling=TFP).state_dict()

    first, again, other = state(1), state(1), state(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    for name in ("embedder.projection.weight", "pooling.encoder.layers.0.linear1.weight"):
        assert not torch.equal(first[name], other[name])


def test_padded_by_hand() -> None:
    chunks, valid = padded([torch.ones(2, 1), torch.full((1, 1), 5.0)])
    assert chunks.tolist() == [[[1], [1]], [[5], [0]]]
    assert valid.tolist() == [[True, True], [True, False]]


def test_layer_weights_start_as_a_mean() -> None:
    assert tiny().embedder.weighted_sum.weights.tolist() == pytest.approx([1 / 4] * 4)
    assert math.isclose(tiny(family="wav2vec2").embedder.weighted_sum.weights.sum().item(), 1, rel_tol=1e-6)

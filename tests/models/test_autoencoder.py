"""The AutoEncoder against a float64 reference in numpy, written from the definition of the challenge's baseline."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from ray_asd import config
from ray_asd.errors import UserError
from ray_asd.models.autoencoder import AutoEncoder, Covariances, Reconstruction, covariances, vectors

MSE = config.ReconstructionScore()
PUBLISHED = config.ReconstructionScore(score="mahalanobis")
SETTINGS = config.AutoEncoder()


def log_mel(seed: int, frames: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).normal(-30, 8, (128, frames)).astype(np.float32)


@pytest.fixture(scope="module")
def network() -> AutoEncoder:
    """With running statistics that are not those of an untrained one."""
    torch.manual_seed(0)
    network = AutoEncoder()
    for seed in range(3):
        network(vectors(log_mel(seed, frames=40)))
    return network.eval()


def reference_residuals(network: AutoEncoder, mel: np.ndarray) -> np.ndarray:
    """[V, 5, 128] by matrix products over plain arrays."""
    weights = {name: value.double().numpy() for name, value in network.state_dict().items()}
    count = mel.shape[1] - 4
    inputs = np.array(
        [[mel[band, start + frame] for frame in range(5) for band in range(128)] for start in range(count)]
    )
    inputs = inputs.astype(np.float64)
    hidden = inputs
    for layer in range(0, 27, 3):
        hidden = hidden @ weights[f"layers.{layer}.weight"].T + weights[f"layers.{layer}.bias"]
        norm = f"layers.{layer + 1}."
        scaled = (hidden - weights[f"{norm}running_mean"]) / np.sqrt(weights[f"{norm}running_var"] + 1e-3)
        hidden = np.maximum(scaled * weights[f"{norm}weight"] + weights[f"{norm}bias"], 0)
    output = hidden @ weights["layers.27.weight"].T + weights["layers.27.bias"]
    return (inputs - output).reshape(count, 5, 128)


def residual_blocks(network: AutoEncoder, vector: np.ndarray) -> np.ndarray:
    """[5, 128] of one vector [640]."""
    return reference_residuals(network, vector.reshape(5, 128).T)[0]


def made_up_batches(sizes: tuple[int, ...] = (7, 9, 5)) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of vectors, every third of the target domain."""
    rng = np.random.default_rng(5)
    return [
        (torch.from_numpy(rng.normal(-30, 8, (size, 640)).astype(np.float32)), torch.arange(size) % 3 == 0)
        for size in sizes
    ]


def test_layers_and_parameters_are_the_published_ones(network: AutoEncoder) -> None:
    linear = [layer for layer in network.layers if isinstance(layer, torch.nn.Linear)]
    sizes = [(layer.in_features, layer.out_features) for layer in linear]
    assert sizes == [(640, 128), *[(128, 128)] * 3, (128, 8), (8, 128), *[(128, 128)] * 3, (128, 640)]
    norms = [layer for layer in network.layers if isinstance(layer, torch.nn.BatchNorm1d)]
    assert [norm.num_features for norm in norms] == [128, 128, 128, 128, 8, 128, 128, 128, 128]
    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.01, 1e-3)}
    trained = sum(parameter.numel() for parameter in network.parameters())
    running = sum(norm.running_mean.numel() + norm.running_var.numel() for norm in norms)
    assert (trained, trained + running) == (267_928, 269_992)


def test_a_vector_is_five_frames_one_after_the_other() -> None:
    mel = np.arange(128 * 7, dtype=np.float32).reshape(128, 7)
    found = vectors(mel)
    assert found.shape == (3, 640)
    for start in range(3):
        np.testing.assert_array_equal(found[start].view(5, 128), mel[:, start : start + 5].T)
    with pytest.raises(UserError, match=r"^4 log-mel frames are too few; an AutoEncoder needs 5 or more$"):
        vectors(mel[:, :4])


def reference_covariance(
    network: AutoEncoder, batches: list[tuple[torch.Tensor, torch.Tensor]], target: bool, mean: str, divisor: str
) -> np.ndarray:
    """[128, 128] of the blocks of one domain, from batches that may hold none of it."""
    rows = [batch[chosen == target].numpy() for batch, chosen in batches]
    blocks = [np.concatenate([residual_blocks(network, row) for row in part]) for part in rows if len(part)]
    everything = np.concatenate(blocks)
    centred = [part - (part if mean == "batch" else everything).mean(axis=0) for part in blocks]
    count = len(everything) if divisor == "blocks" else len(everything) // 5
    return sum(part.T @ part for part in centred) / max(1, count - 1)


@pytest.mark.parametrize("mean", ["batch", "all"])
@pytest.mark.parametrize("divisor", ["vectors", "blocks"])
def test_covariances_equal_the_reference(network: AutoEncoder, mean: str, divisor: str) -> None:
    settings = config.AutoEncoder(residual_mean=mean, residual_divisor=divisor)
    mixed = made_up_batches()
    one_target = [(batch, (torch.arange(len(batch)) == 2) & (len(batch) == 9)) for batch, _ in mixed]
    for batches in (mixed, one_target):
        found = covariances(network, batches, settings)
        for domain, target in (("source", False), ("target", True)):
            expected = reference_covariance(network, batches, target, mean, divisor)
            np.testing.assert_allclose(getattr(found, domain), expected, rtol=1e-6, atol=1e-9)


def test_no_vectors_are_refused(network: AutoEncoder) -> None:
    nothing = (torch.empty(0, 640), torch.empty(0, dtype=torch.bool))
    for batches in ([], [nothing]):
        with pytest.raises(UserError, match=r"^no feature vectors to take the covariance of the residuals from"):
            covariances(network, batches, SETTINGS)


def test_a_domain_without_clips_has_the_others_covariance(network: AutoEncoder) -> None:
    for target in (False, True):
        batches = [(batch, torch.full_like(chosen, target)) for batch, chosen in made_up_batches()]
        found = covariances(network, batches, SETTINGS)
        assert torch.equal(found.source, found.target)
        assert found.source.dtype == torch.float64
        assert found.source.abs().sum() > 0


def random_covariances(seed: int = 1) -> Covariances:
    rng = np.random.default_rng(seed)
    roots = rng.normal(0, 3, (2, 300, 128))
    source, target = (torch.from_numpy(root.T @ root / 300) for root in roots)
    return Covariances(source, target)


def test_scores_equal_the_reference(network: AutoEncoder) -> None:
    known = random_covariances()
    detector = Reconstruction(network, known)
    for seed in range(10, 14):
        mel = log_mel(seed, frames=5 + 7 * (seed - 10))
        residuals = reference_residuals(network, mel)
        blocks = residuals.reshape(-1, 128)
        precisions = [np.linalg.inv(covariance.numpy()) for covariance in (known.source, known.target)]
        all_pairs = [(blocks @ precision @ blocks.T).mean() for precision in precisions]
        each = [np.mean([row @ precision @ row for row in blocks]) for precision in precisions]
        assert detector.score(mel, MSE) == pytest.approx((residuals**2).mean(), rel=1e-6)
        assert detector.score(mel, PUBLISHED) == pytest.approx(min(all_pairs), rel=1e-6)
        of_residuals = config.ReconstructionScore(score="mahalanobis", mahalanobis_of="residuals")
        assert detector.score(mel, of_residuals) == pytest.approx(min(each), rel=1e-6)
        assert min(each) > 1.01 * min(all_pairs)


def test_the_smaller_domain_counts(network: AutoEncoder) -> None:
    known = random_covariances()
    wide = Covariances(known.source, 100 * known.source)
    mel = log_mel(20)
    narrow = Reconstruction(network, Covariances(known.source, known.source)).score(mel, PUBLISHED)
    assert Reconstruction(network, wide).score(mel, PUBLISHED) == pytest.approx(narrow / 100)


def without_inverse(kind: str) -> torch.Tensor:
    known = random_covariances(seed=2).source
    if kind == "zero":
        return torch.zeros_like(known)
    if kind == "few residuals":  # 20 of them; plain inversion takes the rounding errors for the other directions
        rows = torch.from_numpy(np.random.default_rng(3).normal(0, 8, (20, 128)))
        return rows.T @ rows / 20
    known[3, 3] = float(kind)
    return known


@pytest.mark.parametrize("kind", ["zero", "few residuals", "inf", "nan"])
@pytest.mark.parametrize("domain", ["source", "target"])
def test_a_covariance_without_inverse_is_named(network: AutoEncoder, domain: str, kind: str) -> None:
    known = random_covariances()
    detector = Reconstruction(network, replace(known, **{domain: without_inverse(kind)}))
    assert detector.score(log_mel(0), MSE) > 0
    for _ in range(2):  # the second clip is not scored with what was inverted before the error
        with pytest.raises(
            UserError,
            match=rf"^the {domain} covariance of the residuals has no inverse; more {domain} clips are needed, "
            r"or scoring\.autoencoder\.score=mse$",
        ):
            detector.score(log_mel(0), PUBLISHED)


def test_the_network_is_used_in_evaluation_mode_and_left_as_it_was(network: AutoEncoder) -> None:
    training = deepcopy(network).train()
    before = {name: value.clone() for name, value in training.state_dict().items()}
    found = covariances(training, made_up_batches(), SETTINGS)
    assert torch.equal(found.target, covariances(network, made_up_batches(), SETTINGS).target)
    score = Reconstruction(training, random_covariances()).score(log_mel(1), PUBLISHED)
    assert score == Reconstruction(network, random_covariances()).score(log_mel(1), PUBLISHED)
    assert training.training
    assert all(torch.equal(value, before[name]) for name, value in training.state_dict().items())
    assert {value.dtype for value in training.parameters()} == {torch.float32}

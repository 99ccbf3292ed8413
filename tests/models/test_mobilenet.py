"""MobileNet on patches: what it sees, and its score against the formula."""

import numpy as np
import pytest
import torch

from ray_asd import config
from ray_asd.errors import UserError
from ray_asd.models.mobilenet import PatchClassifier, anomaly_score, patches

SETTINGS = config.MobileNet(frames=32)


def test_patches_overlap_and_keep_their_order() -> None:
    mel = torch.arange(128 * 21.0).view(128, 21)
    found = patches(mel, frames=8, hop=4)
    assert found.shape == (4, 128, 8)
    for number in range(4):
        assert torch.equal(found[number], mel[:, 4 * number : 4 * number + 8])
    assert patches(mel[:, :8], frames=8, hop=4).shape == (1, 128, 8)
    with pytest.raises(UserError, match=r"^7 log-mel frames are too few; a patch has 8$"):
        patches(mel[:, :7], frames=8, hop=4)


def test_the_one_channel_is_seen_three_times_and_every_weight_learns() -> None:
    torch.manual_seed(0)
    model = PatchClassifier(5, SETTINGS).train()
    batch = torch.randn(4, 128, 32)
    logits = model(batch)
    assert logits.shape == (4, 5)
    torch.testing.assert_close(model.network(torch.stack([batch] * 3, dim=1)), logits)
    logits.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_there_is_no_dropout() -> None:
    chances = [layer.p for layer in PatchClassifier(5, SETTINGS).modules() if isinstance(layer, torch.nn.Dropout)]
    assert set(chances) <= {0.0}


def test_the_width_is_a_setting() -> None:
    full, half = (
        sum(parameter.numel() for parameter in PatchClassifier(5, config.MobileNet(width=width)).parameters())
        for width in (1.0, 0.5)
    )
    assert half < full / 2


def test_one_condition_is_nothing_to_tell_apart() -> None:
    with pytest.raises(UserError, match=r"^1 condition\(s\) in the training clips; at least 2 are needed$"):
        PatchClassifier(1, SETTINGS)


def test_the_score_is_the_mean_negative_log_odds() -> None:
    logits = np.random.default_rng(0).normal(0, 2, (6, 4))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.log((1 - probabilities) / probabilities).mean(axis=0)
    for true_class in range(4):
        found = anomaly_score(torch.from_numpy(logits).float(), [true_class])
        assert found == pytest.approx(expected[true_class], rel=1e-5)
    assert anomaly_score(torch.from_numpy(logits), [1, 3]) == pytest.approx(min(expected[1], expected[3]), rel=1e-12)


def test_certain_answers_stay_finite_and_in_order() -> None:
    logits = torch.tensor([[0.0, 200.0, -200.0], [0.0, 500.0, -500.0]])
    sure, unlikely, impossible = (anomaly_score(logits, [number]) for number in (1, 0, 2))
    assert (sure, unlikely, impossible) == (-350.0, 350.0, 700.0)

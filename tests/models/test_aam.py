import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from ray_asd import config
from ray_asd.errors import UserError
from ray_asd.models.aam import AAMSoftmax, margin_at


def reference_loss(embedding: np.ndarray, weight: np.ndarray, label: list[int], scale: float, margin: float) -> float:
    """Equation 3 of the ArcFace paper in float64, through the angle itself."""
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    logits = scale * unit @ (weight / np.linalg.norm(weight, axis=1, keepdims=True)).T
    losses = []
    for row, true in zip(logits, label, strict=True):
        row[true] = scale * math.cos(math.acos(row[true] / scale) + margin)
        losses.append(math.log(np.exp(row - row[true]).sum()))
    return float(np.mean(losses))


def head(weight: list[list[float]], scale: float = 32.0) -> AAMSoftmax:
    aam = AAMSoftmax(len(weight[0]), len(weight), scale)
    aam.weight.data = torch.tensor(weight)
    return aam


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.2, 0.5])
def test_the_loss_is_the_papers(margin: float) -> None:
    random = np.random.default_rng(3)
    embedding, weight, label = random.standard_normal((6, 5)), random.standard_normal((4, 5)), [0, 1, 2, 3, 0, 1]
    loss, cosine = head(weight.tolist())(torch.tensor(embedding), torch.tensor(label), margin)
    assert loss.item() == pytest.approx(reference_loss(embedding, weight, label, 32.0, margin), rel=1e-5)
    expected = embedding[2] @ weight[1] / np.linalg.norm(embedding[2]) / np.linalg.norm(weight[1])
    assert cosine[2, 1].item() == pytest.approx(expected, abs=1e-6)


def test_a_case_by_hand() -> None:
    # Embedding along class 0; classes 1 and 2 at right angles: logits cos(0.2), 0, 0 at scale 1.
    loss, cosine = head([[2.0, 0, 0], [0, 3.0, 0], [0, 0, 1.0]], 1.0)(
        torch.tensor([[5.0, 0, 0]]), torch.tensor([0]), 0.2
    )
    assert cosine.tolist() == [[1, 0, 0]]
    assert loss.item() == pytest.approx(math.log(math.exp(math.cos(0.2)) + 2) - math.cos(0.2), abs=1e-4)


def test_the_loss_keeps_falling_as_the_angle_shrinks_from_pi() -> None:
    angles = torch.linspace(math.pi, 0, 200)
    embedding = torch.stack([angles.cos(), angles.sin(), torch.zeros(200)], dim=1)
    aam = head([[1.0, 0, 0], [0, 0, 1.0], [0, 0, -1.0]], 4.0)  # the other two stay at right angles
    losses = torch.stack([aam(row[None], torch.tensor([0]), 0.3)[0] for row in embedding])
    assert (losses.diff() < 0).all()


def test_gradients_are_finite_on_the_class_and_opposite_to_it() -> None:
    embedding = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]], requires_grad=True)
    loss, _ = head([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])(embedding, torch.tensor([0, 0]), 0.2)
    loss.backward()
    assert embedding.grad is not None
    assert embedding.grad.isfinite().all()


def test_two_classes_have_no_margin() -> None:
    embedding, label = torch.tensor([[1.0, 2.0], [3.0, -1.0]]), torch.tensor([0, 1])
    two, three = head([[1.0, 0.0], [0.0, 1.0]]), head([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    assert two(embedding, label, 0.2)[0] == two(embedding, label, 0.0)[0]
    assert three(embedding, label, 0.2)[0] > three(embedding, label, 0.0)[0]


@pytest.mark.parametrize("classes", [0, 1])
def test_fewer_than_two_classes_are_refused(classes: int) -> None:
    with pytest.raises(UserError, match=f"{classes} condition.* at least 2 are needed"):
        AAMSoftmax(4, classes, 32.0)


def test_it_is_float32_under_autocast() -> None:
    embedding, label = torch.randn(4, 8).bfloat16(), torch.tensor([0, 1, 2, 0])
    aam = AAMSoftmax(8, 3, 32.0)
    plain = aam(embedding.float(), label, 0.2)
    with torch.autocast("cpu", torch.bfloat16):
        loss, cosine = aam(embedding, label, 0.2)
    assert cosine.dtype == loss.dtype == torch.float32
    assert torch.equal(cosine, plain[1])
    assert torch.equal(loss, plain[0])


def test_the_margin_ramps_from_nothing_to_all_of_it() -> None:
    aam = config.AAM(margin=0.2, ramp=(0.2, 0.6))
    margins = [margin_at(step, 100, aam) for step in range(101)]
    assert margins[:21] == [0.0] * 21
    assert margins[40] == pytest.approx(0.2 * (1 - 10**-1.5))  # half of the ramp
    assert margins[59] < 0.2
    assert margins[60:] == [0.2] * 41
    assert all(later > earlier for earlier, later in pairwise(margins[20:61]))


def test_a_ramp_without_length_is_a_step() -> None:
    aam = config.AAM(margin=0.2, ramp=(0.5, 0.5))
    assert [margin_at(step, 4, aam) for step in range(4)] == [0, 0, 0.2, 0.2]
    assert margin_at(0, 4, config.AAM(margin=0.2, ramp=(0, 0))) == 0.2

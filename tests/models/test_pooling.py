import math

import pytest
import torch
from torch import Tensor

from ray_asd import config
from ray_asd.models.pooling import AttentiveStatisticsPooling, MeanPooling, TransformerPooling

# Two examples, two frames, two channels.
STATES = torch.tensor([[[1.0, 10.0], [3.0, 30.0]], [[0.0, -1.0], [4.0, 1.0]]])


def transformer(dim: int = 8) -> TransformerPooling:
    torch.manual_seed(0)
    settings = config.TransformerPooling(steps=1, batch_size=1, layers=2, heads=2, feedforward=16, dropout=0.1)
    return TransformerPooling(dim, settings).eval()


def all_of(chunks: Tensor) -> Tensor:
    return torch.ones(chunks.shape[:2], dtype=torch.bool)


def test_mean_pooling() -> None:
    assert MeanPooling(2)(STATES).tolist() == [[2, 20], [2, 0]]
    assert MeanPooling(2).output_size == 2


def test_attentive_statistics_with_equal_attention_are_mean_and_population_deviation() -> None:
    pooling = AttentiveStatisticsPooling(2)
    pooling.score[2].weight.data.zero_()
    torch.testing.assert_close(pooling(STATES), torch.tensor([[2.0, 20, 1, 10], [2, 0, 2, 1]]))
    assert pooling.output_size == 4


def test_attentive_statistics_follow_the_attention() -> None:
    # The score is tanh of channel 0 times log(3) / tanh(1): frames 0 and 1 get weights 1/4 and 3/4.
    pooling = AttentiveStatisticsPooling(1, attention_size=1)
    pooling.score[0].weight.data.fill_(1.0)
    pooling.score[0].bias.data.zero_()
    pooling.score[2].weight.data.fill_(math.log(3) / math.tanh(1))
    mean, deviation = pooling(torch.tensor([[[0.0], [1.0]]]))[0].tolist()
    assert mean == pytest.approx(0.75)
    assert deviation == pytest.approx(math.sqrt(3) / 4)


def test_attentive_statistics_of_equal_frames_have_a_finite_gradient() -> None:
    states = torch.ones(1, 5, 3, requires_grad=True)
    AttentiveStatisticsPooling(3)(states).sum().backward()
    assert states.grad is not None
    assert states.grad.isfinite().all()


@pytest.mark.parametrize("training", [False, True])
def test_padding_does_not_matter_whatever_stands_in_it(training: bool) -> None:
    pooling = transformer()
    for layer in pooling.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    for attention in (layer.self_attn for layer in pooling.encoder.layers):
        attention.dropout = 0.0
    pooling.train(training)
    chunks = torch.randn(2, 5, 8)
    valid = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    filled = [chunks.clone() for _ in range(3)]
    filled[1][1, 3:] = filled[1][1, [4, 3]]
    filled[2][1, 3:] = float("nan")
    expected = torch.cat([pooling(chunks[:1], valid[:1]), pooling(chunks[1:, :3], valid[1:, :3])])
    for content in filled:
        torch.testing.assert_close(pooling(content, valid), expected, rtol=1e-5, atol=1e-6)


def test_neither_order_nor_repetition_nor_length_of_the_inputs_matters() -> None:
    pooling, chunks = transformer(), torch.randn(1, 4, 8)
    once = pooling(chunks, all_of(chunks))
    for same in (chunks.flip(1), chunks.repeat(1, 2, 1), chunks.repeat(1, 9, 1).roll(5, dims=1), 7 * chunks):
        torch.testing.assert_close(pooling(same, all_of(same)), once, rtol=1e-5, atol=1e-6)


def test_proportions_matter_and_chunks_are_seen_together() -> None:
    pooling, chunks = transformer(), torch.randn(1, 2, 8)
    once = pooling(chunks, all_of(chunks))
    apart = torch.stack([pooling(chunks[:, place : place + 1], all_of(chunks[:, :1])) for place in (0, 1)])
    for other in (pooling(chunks[:, [0, 0, 1]], all_of(chunks[:, [0, 0, 1]])), apart.mean(dim=0)):
        assert not torch.allclose(other, once, atol=1e-3)


@pytest.mark.parametrize("count", [1, 300])
def test_one_clip_of_any_number_of_chunks(count: int) -> None:
    chunks = torch.randn(1, count, 8)
    assert transformer()(chunks, all_of(chunks)).shape == (1, 8)


def test_an_odd_embedding_size_works() -> None:
    settings = config.TransformerPooling(steps=1, batch_size=1, heads=1, layers=1, feedforward=4)
    chunks = torch.randn(2, 3, 5)
    assert TransformerPooling(5, settings)(chunks, all_of(chunks)).shape == (2, 5)


def test_every_parameter_gets_a_gradient() -> None:
    pooling, chunks = transformer().train(), torch.randn(2, 3, 8)
    (pooling(chunks, all_of(chunks)) * torch.randn(2, 8)).sum().backward()
    assert [name for name, parameter in pooling.named_parameters() if parameter.grad is None] == []

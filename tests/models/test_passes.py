"""The order and the sizes of forward passes, with an embedding that anyone can compute: the first sample, and B."""

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from ray_asd.models import passes
from ray_asd.models.passes import Passes

CPU = torch.device("cpu")


class Embed:
    """Chunks [B, T] to [B, 2]: the first sample of each, and the B that it went through with."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, batch: Tensor) -> Tensor:
        self.shapes.append(tuple(batch.shape))
        return torch.stack([batch[:, 0], torch.full((len(batch),), float(len(batch)))], dim=1)


def chunks(*lengths: int, first: float) -> list[Tensor]:
    """Chunks of these lengths; the first sample of the n-th is ``first`` + n."""
    return [torch.full((length,), first + place) for place, length in enumerate(lengths)]


def test_windows_always_go_through_in_the_same_number_and_other_lengths_alone() -> None:
    embed = Embed()
    clips = [chunks(4, 4, 4, first=10), chunks(3, first=20), chunks(4, 4, first=30), chunks(9, first=40)]
    found = list(Passes(embed, window=4, size=3, device=CPU).clips(clips))
    assert [clip.tolist() for clip in found] == [
        [[10, 3], [11, 3], [12, 3]],
        [[20, 1]],
        [[30, 3], [31, 3]],
        [[40, 1]],
    ]
    assert sorted(embed.shapes) == [(1, 3), (1, 9), (3, 4), (3, 4)]


def test_other_lengths_go_together_where_that_changes_nothing_and_a_pass_is_full() -> None:
    embed = Embed()
    clips = [chunks(length, first=10.0 * number) for number, length in enumerate([3, 9, 3, 4, 3, 9, 3, 9])]
    found = list(Passes(embed, window=4, size=2, device=CPU, alike={3: 2, 9: 4}.__getitem__).clips(clips))
    assert [clip[0].tolist() for clip in found] == [
        [0, 2], [10, 1], [20, 2], [30, 2], [40, 2], [50, 1], [60, 2], [70, 1],
    ]  # fmt: skip
    assert sorted(embed.shapes) == [(1, 9), (1, 9), (1, 9), (2, 3), (2, 3), (2, 4)]


@pytest.mark.parametrize("size", [1, 2, 5, 64])
def test_clips_come_back_in_order_whatever_the_size(size: int) -> None:
    counts = [1, 7, 2, 2, 5, 1, 3]
    cut = [chunks(*[4] * count, first=100.0 * clip) for clip, count in enumerate(counts)]
    embed = Embed()
    found = list(Passes(embed, window=4, size=size, device=CPU).clips(cut))
    assert [[row[0] for row in clip.tolist()] for clip in found] == [[chunk[0] for chunk in clip] for clip in cut]
    assert len(embed.shapes) == -(-sum(counts) // size)  # at most one pass is filled up


def test_clips_are_read_no_further_than_a_pass_needs() -> None:
    read = itertools.count()

    def endless() -> Iterator[list[Tensor]]:
        while True:
            yield chunks(4, 4, first=10.0 * next(read))

    found = Passes(Embed(), window=4, size=4, device=CPU).clips(endless())
    assert [next(found)[0, 0].item() for _ in range(5)] == [0, 10, 20, 30, 40]
    assert next(read) == 6


def test_a_clip_that_waits_for_a_full_pass_does_not_hold_up_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "_WAITING", 3)
    endless = itertools.chain([chunks(4, first=5)], ([torch.full((3,), 6.0)] for _ in itertools.count()))
    found = Passes(Embed(), window=4, size=1000, device=CPU).clips(endless)
    assert next(found).tolist() == [[5, 1000]]


def test_nothing_in_nothing_out() -> None:
    embed = Embed()
    assert list(Passes(embed, window=4, size=2, device=CPU).clips([])) == []
    assert embed.shapes == []

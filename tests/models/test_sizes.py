"""How many chunks go through a pass together, with embeddings whose bits are known to depend on the pass or not."""

import pytest
import torch
from torch import Tensor

from ray_asd.models import sizes
from ray_asd.models.sizes import Sizes


class Embed:
    """Chunks [B, T] to their sums [B, 1]; the first row, or all of a pass of more than one, may be a bit off."""

    def __init__(self, first: bool = False, together: bool = False) -> None:
        self.first, self.together = first, together
        self.passes: list[tuple[int, ...]] = []

    def __call__(self, batch: Tensor) -> Tensor:
        self.passes.append(tuple(batch.shape))
        rows = batch.double().sum(dim=1, keepdim=True).float()
        off = torch.nextafter(rows, torch.tensor(torch.inf))
        if self.together and len(batch) > 1:
            rows = off
        elif self.first:
            rows[0] = off[0]
        return rows


@pytest.mark.parametrize(("embed", "free"), [(Embed(), True), (Embed(together=True), True), (Embed(first=True), False)])
def test_the_place_in_a_pass_may_change_bits(embed: Embed, free: bool) -> None:
    tried = Sizes(embed)
    assert [tried.is_place_free(50, 4) for _ in range(3)] == [free] * 3
    assert set(embed.passes) == {(4, 50)}
    assert len(embed.passes) <= sizes._TRIED, "it is tried once"


@pytest.mark.parametrize(("embed", "together"), [(Embed(), 8), (Embed(together=True), 1), (Embed(first=True), 1)])
def test_chunks_of_a_length_go_together_once_it_is_worth_finding_out(embed: Embed, together: int) -> None:
    tried = Sizes(embed)
    for _ in range(sizes._WORTH_TRYING):
        assert tried.alike(50, samples=400) == 1
    assert embed.passes == []
    assert [tried.alike(50, samples=400) for _ in range(3)] == [together] * 3
    assert set(embed.passes) <= {(8, 50), (1, 50)}
    assert tried.alike(60, samples=400) == 1, "of which it is the first one"


@pytest.mark.parametrize(("length", "together"), [(50, 16), (100, 10), (600, 1), (1_500, 1)])
def test_no_more_than_a_pass_holds(length: int, together: int) -> None:
    tried = Sizes(Embed())
    found = [tried.alike(length, samples=1_000) for _ in range(sizes._WORTH_TRYING + 1)]
    assert found[-1] == together

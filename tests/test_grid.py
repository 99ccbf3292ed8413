"""Grids: the packaged ones hold what the paper's table does, and each way to write a wrong one has its line."""

from collections import Counter
from pathlib import Path

import pytest

from ray_asd import grid
from ray_asd.errors import UserError

FAMILIES = ["wav2vec2", "unispeech", "hubert", "wavlm"]


def written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return tmp_path / "mine.yaml"


def parts(cell: grid.Cell) -> tuple[str, bool, bool, bool]:
    recipe = cell.recipe
    return (
        recipe.backbone.family,
        recipe.backbone.weighted_sum,
        recipe.augmentation is not None,
        recipe.transformer_pooling is not None,
    )


def test_the_papers_grid_is_the_papers_table() -> None:
    cells = grid.load("paper", "paper")
    assert [cell.system for cell in cells[:2]] == ["AutoEncoder (MSE)", "MobileNet"]
    ladder = [(False, False, False), (True, False, False), (True, True, False), (True, True, True)]
    expected = [(family, *switches) for switches in ladder for family in FAMILIES]
    assert [parts(cell) for cell in cells[2:]] == expected
    assert cells[-2].system == "hubert+WS+SA+TFP"


def test_the_full_grid_is_every_combination_and_both_baselines() -> None:
    cells = grid.load("full", "tiny")
    assert Counter(cell.recipe.method for cell in cells) == {"autoencoder": 1, "mobilenet": 1, "backbone": 32}
    assert len({parts(cell) for cell in cells if cell.recipe.method == "backbone"}) == 32


def test_what_a_row_leaves_out_is_as_in_the_recipe(mine: Path) -> None:
    cells = grid.load(written(mine, "- {backbone: [hubert, wavlm]}"), "tiny", ("seed=3", "training.steps=7"))
    assert [parts(cell) for cell in cells] == [("hubert", True, True, True), ("wavlm", True, True, True)]
    assert {(cell.recipe.seed, cell.recipe.training.steps) for cell in cells} == {(3, 7)}


def test_any_setting_can_vary_and_names_the_system(mine: Path) -> None:
    row = "- {backbone: hubert, TFP: false, set: {training.learning_rate: [1.0e-4, 5.0e-4], embedding.dim: 32}}"
    cells = grid.load(written(mine, row), "tiny", seeds=[0, 1])
    assert [(cell.recipe.training.learning_rate, cell.recipe.seed) for cell in cells] == [
        (1e-4, 0),
        (1e-4, 1),
        (5e-4, 0),
        (5e-4, 1),
    ]
    assert {cell.recipe.embedding.dim for cell in cells} == {32}
    assert cells[0].system == "hubert+WS+SA (random:tiny) [training.learning_rate=0.0001] [embedding.dim=32]"
    assert cells[1].label == f"{cells[0].system} seed 1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {bakbone: hubert}", "row 1: unknown key 'bakbone'; allowed: method, backbone, WS, SA, TFP, set"),
        ("- {WS: true}\n- {backbone: huber}", "row 2: backbone: 'huber': Input should be 'wav2vec2', 'unispeech'"),
        ("- {SA: maybe}", "row 1: SA: 'maybe': Input should be a valid boolean"),
        ("- {backbone: []}", r"row 1: backbone: \[\]: Value should have at least 1 item"),
        ("- 3", "row 1: a mapping is needed, not 3"),
        ("backbone: hubert", "a list of rows is needed, not dict"),
        ("", "a list of rows is needed, not NoneType"),
        ("{[", "not YAML: "),
    ],
)
def test_mistakes_are_named(mine: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^grid {mine}: {message}"):
        grid.load(written(mine, text), "tiny")


def test_a_grid_needs_rows_and_no_two_alike(mine: Path) -> None:
    with pytest.raises(UserError, match=r"has no rows; allowed: at least one$"):
        grid.load(written(mine, "[]"), "tiny")
    with pytest.raises(UserError, match=r"hubert\+WS\+SA\+TFP \(random:tiny\) seed 0 stands there more than once$"):
        grid.load(written(mine, "- {backbone: [hubert, wavlm]}\n- {backbone: hubert, WS: true}"), "tiny")
    with pytest.raises(UserError, match="seed 1 stands there more than once"):
        grid.load(written(mine, "- {backbone: hubert}"), "tiny", seeds=[1, 1])


def test_a_grid_fits_its_recipe(mine: Path) -> None:
    written(mine, "- {TFP: true}")
    with pytest.raises(UserError, match=r"^TFP: true needs a recipe with transformer_pooling; recipe tiny has none$"):
        grid.load(str(mine), "tiny", ("transformer_pooling=null",))
    with pytest.raises(UserError, match=r"^recipe tiny: unknown key 'training.stepz'; allowed: steps"):
        grid.load(written(mine, "- {set: {training.stepz: 1}}"), "tiny")


def test_a_grid_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^unknown grid 'huge'; allowed: full, paper, a path ending in .yaml$"):
        grid.load("huge", "tiny")
    with pytest.raises(UserError, match=r"^no grid file '.*/none.yaml'$"):
        grid.load(str(tmp_path / "none.yaml"), "tiny")

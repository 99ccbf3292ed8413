"""Recipes: what is packaged, what a reader may override, and one line for each thing that cannot be."""

import re
from importlib import resources
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from ray_asd import config
from ray_asd.config import loading
from ray_asd.errors import UserError

# What the paper states (section 3 and its table; the learning rate is printed "Se-4").
PAPER = {
    "backbone.family": "wav2vec2",
    "backbone.weighted_sum": True,
    "backbone.freeze": "nothing",
    "augmentation.modes": ["resample", "stretch"],
    "training.steps": 10_000,
    "training.crop_seconds": 2.0,
    "training.learning_rate": 0.0005,
    "training.weight_decay": 0.0001,
    "calibration_fraction": 0,
    "scoring.backend.neighbours": 2,
    "scoring.backend.metric": "cosine",
}
MINIMAL = """
name: mine
backbone: {family: wavlm, source: "random:tiny"}
training: {steps: 2, batch_size: 4}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(MINIMAL)
    return str(path)


def packaged(name: str) -> str:
    return (resources.files("ray_asd") / "recipes" / f"{name}.yaml").read_text()


def leaves(values: dict[str, object], prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in values.items():
        found |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def lines_of_leaves(text: str) -> dict[str, str]:
    """Each setting's dotted key and the line of the file that sets it."""
    found, parents = {}, [""]
    for line in text.splitlines():
        entry = re.fullmatch(r"( *)(\w+): *([^#]*)(#.*)?", line)
        if entry is None:
            assert line.startswith("#"), line
            continue
        depth = len(entry[1]) // 2
        key = f"{parents[depth]}{entry[2]}"
        parents[depth + 1 :] = [f"{key}."]
        if entry[3].strip():
            found[key] = line
    return found


def test_packaged_recipes_are_named_after_their_files() -> None:
    assert config.packaged_recipes() == ["frozen", "paper", "release", "tiny"]
    assert [config.load(name).name for name in config.packaged_recipes()] == ["frozen", "paper", "release", "tiny"]


def test_the_release_recipe_is_the_papers_method_with_clips_to_set_thresholds_on() -> None:
    release, paper = config.load("release"), config.load("paper", ("backbone.family=wavlm",))
    assert release.system == paper.system == "wavlm+WS+SA+TFP"
    assert (release.calibration_fraction, paper.calibration_fraction) == (0.1, 0)
    assert release.scoring.threshold == config.Threshold(method="quantile", false_positive_rate=0.1)
    assert release.training == paper.training.model_copy(update={"learning_rate": 1e-4})
    same = ("backbone", "augmentation", "transformer_pooling", "embedding", "aam", "inference", "resources")
    assert {name: getattr(release, name) for name in same} == {name: getattr(paper, name) for name in same}


def test_the_paper_recipe_holds_what_the_paper_states() -> None:
    set_to = leaves(yaml.safe_load(packaged("paper")))
    assert {key: set_to[key] for key in PAPER} == PAPER
    recipe = config.load("paper")
    assert recipe.backbone.checkpoint == "facebook/wav2vec2-xls-r-300m"
    assert recipe.transformer_pooling is not None
    assert recipe.system == "wav2vec2+WS+SA+TFP"


def test_all_else_in_the_paper_recipe_is_marked_as_ours() -> None:
    text = packaged("paper")
    lines = lines_of_leaves(text)
    assert lines.keys() == leaves(yaml.safe_load(text)).keys()
    assert {key for key, line in lines.items() if not re.search(r"  # ours: \w", line)} == PAPER.keys()


def test_the_paper_recipe_leaves_nothing_to_defaults() -> None:
    """A changed default cannot change it: only what depends on the family or the cluster stays open."""
    open_keys = leaves(config.load("paper").model_dump()).keys() - leaves(yaml.safe_load(packaged("paper"))).keys()
    assert {key for key in open_keys if not key.startswith("resources.")} == {
        "backbone.source",
        "backbone.revision",
        "scoring.threshold.value",
    }


def test_no_score_reads_the_hidden_attributes_of_a_test_clip_unasked() -> None:
    assert config.Scoring().mobilenet_class == config.load("paper").scoring.mobilenet_class == "nearest"


@pytest.mark.parametrize(
    ("overrides", "system"),
    [
        (("backbone.weighted_sum=false", "augmentation=null", "transformer_pooling=null"), "wav2vec2"),
        (("backbone.family=hubert", "transformer_pooling=null"), "hubert+WS+SA"),
        (("backbone.family=wavlm", "augmentation=null"), "wavlm+WS+TFP"),
        (("backbone.family=unispeech",), "unispeech+WS+SA+TFP (microsoft/unispeech-sat-base-plus)"),
        (("backbone.source=s3://b/mine",), "wav2vec2+WS+SA+TFP (s3://b/mine)"),
    ],
)
def test_the_rows_of_the_papers_table_are_overrides(overrides: tuple[str, ...], system: str) -> None:
    assert config.load("paper", overrides).system == system


def test_a_file_gives_a_recipe(recipe: str) -> None:
    loaded = config.load(recipe)
    assert (loaded.name, loaded.training.steps, loaded.seed, loaded.augmentation) == ("mine", 2, 0, None)


def test_overrides_are_yaml_and_the_last_one_counts(recipe: str) -> None:
    loaded = config.load(
        recipe,
        (
            "training.steps=3",
            "training.steps=5",
            "training.learning_rate=1e-4",
            "augmentation.speeds=[0.8]",
            "scoring.threshold.method=manual",
            "scoring.threshold.value=0.25",
            "resources.train.labels={zone: a}",
            "backbone.revision=",
        ),
    )
    assert loaded.training.steps == 5
    assert loaded.training.learning_rate == 0.0001
    assert loaded.augmentation == config.Augmentation(speeds=(0.8,))
    assert loaded.scoring.threshold == config.Threshold(method="manual", value=0.25)
    assert loaded.resources.train.labels == {"zone": "a"}
    assert loaded.backbone.revision is None


@pytest.mark.parametrize(
    ("override", "resample", "stretch"),
    [
        ("speeds=[0.9]", "new_class", "keep"),
        ("label_policy=keep", "keep", "keep"),
        ("label_policy.stretch=drop_speed_attrs", "new_class", "drop_speed_attrs"),
    ],
)
def test_labels_of_variants_go_by_mode_and_one_word_stands_for_both(
    recipe: str, override: str, resample: str, stretch: str
) -> None:
    augmentation = config.load(recipe, (f"augmentation.{override}",)).augmentation
    assert augmentation is not None
    assert augmentation.label_policy == config.LabelPolicy(resample=resample, stretch=stretch)


def test_recipes_are_frozen(recipe: str) -> None:
    loaded = config.load(recipe)
    with pytest.raises(ValidationError, match="frozen"):
        loaded.training.steps = 9


def mistake(name: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        config.load(name, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_recipes_that_are_not_there(tmp_path: Path) -> None:
    assert mistake("huge") == "unknown recipe 'huge'; allowed: frozen, paper, release, tiny, a path ending in .yaml"
    assert mistake(f"{tmp_path}/huge.yaml") == f"no recipe file '{tmp_path}/huge.yaml'"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("resources.train.gpus=2",), "resources.train.gpus 2: a worker trains on one GPU; allowed: 0 to 1"),
        (
            ("resources.train.gpus=0.5", "training.workers=2"),
            "resources.train.gpus 0.5 with 2 workers: NCCL takes no two on one GPU; allowed: 1",
        ),
        (
            ("resources.train.gpus=0.5", "transformer_pooling.workers=4"),
            "resources.train.gpus 0.5 with 4 workers: NCCL takes no two on one GPU; allowed: 1",
        ),
    ],
)
def test_gpus_that_no_training_can_use(overrides: tuple[str, ...], message: str) -> None:
    assert message in mistake("tiny", "training.workers=1", "transformer_pooling.workers=1", *overrides)
    config.load("tiny", ("training.workers=1", "transformer_pooling.workers=1", "resources.train.gpus=0.5"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "not YAML: while parsing a flow sequence .* line 1, column 4.*"),
        ("- a\n- b", "a mapping of settings is needed, not list"),
        ("", "a mapping of settings is needed, not NoneType"),
        ("name: x\nbackbone: {family: wavlm}", "training: this key is needed"),
        ("name: x\nbackbone: {}\ntraining: {steps: 1, batch_size: 1}", "backbone.family: this key is needed"),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    assert re.fullmatch(f"recipe {path}: {message}", mistake(str(path)))


def test_a_recipe_is_text_in_utf_8_with_or_without_a_mark(tmp_path: Path) -> None:
    path, text = tmp_path / "x.yaml", "# größer\n" + loading.text_of("recipe", "tiny")
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text(text, encoding)
        assert config.load(str(path)) == config.load("tiny")
    path.write_text(text, "latin-1")
    assert mistake(str(path)) == f"recipe {path}: line 1 is not UTF-8; allowed: text in UTF-8"
    path.write_bytes(b"\xef\xbb\xbfa\n\xe4")
    assert mistake(str(path)) == f"recipe {path}: line 2 is not UTF-8; allowed: text in UTF-8"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stepz=1", "unknown key 'stepz'; allowed: .*name, method, seed, audio, backbone.*"),
        ("training.stepz=1", "unknown key 'training.stepz'; allowed: steps, batch_size, .*crop_seconds"),
        ("transformer_pooling.x=1", "unknown key 'transformer_pooling.x'; allowed: .*layers, heads.*"),
        ("scoring.threshold.x=1", "unknown key 'scoring.threshold.x'; allowed: method, false_positive_rate, value"),
        ("backbone.family=bert", "backbone.family: 'bert': Input should be 'wav2vec2', .*'hubert' or 'wavlm'"),
        ("backbone.normalize=5", "backbone.normalize: 5: .*boolean.* or Input should be 'auto'"),
        ("audio.channel=left", "audio.channel: 'left': .*integer.* or Input should be 'mean'"),
        ("audio.channel=-1", "audio.channel: -1: .*greater than or equal to 0 or Input should be 'mean'"),
        ("backbone.source=random:huge", "backbone: unknown random size 'huge'; allowed: tiny, small, base"),
        ("augmentation.modes=[pitch]", "augmentation.modes: 'pitch': Input should be 'resample' or 'stretch'"),
        ("augmentation.label_policy=x", "augmentation.label_policy.resample: 'x': Input should be 'new_class', .*"),
        ("augmentation.label_policy.pitch=keep", "unknown key 'augmentation.label_policy.pitch'; allowed: resample.*"),
        ("augmentation.speeds=[]", "augmentation: speeds and modes need at least one value each; leave .*"),
        ("augmentation.speeds=[0.9, 1]", "augmentation: speed 1.0 is the original clip.*; allowed: any other factor"),
        ("aam.ramp=[0.5, 0.2]", r"aam: ramp \[0.5, 0.2\] must rise within \[0, 1\]"),
        ("aam.ramp=[0.5]", "aam.ramp: .*0.5.*: Field required"),
        ("training.steps=0", "training.steps: 0: Input should be greater than or equal to 1"),
        ("training.steps=many", "training.steps: 'many': Input should be a valid integer.*"),
        ("training.learning_rate=.inf", "training.learning_rate: inf: Input should be a finite number"),
        ("training.workers=3", "training: batch_size 4 is not a multiple of workers 3"),
        ("training=5", "training: 5: Input should be a valid dictionary .*"),
        ("embedding.dim=30", "embedding.dim 30 is not a multiple of transformer_pooling.heads 4"),
        ("scoring.threshold.method=manual", "scoring.threshold: threshold.value belongs to method manual, .*"),
        ("scoring.threshold.value=1", "scoring.threshold: threshold.value belongs to method manual, .*"),
        ("calibration_fraction=1", "calibration_fraction: 1: Input should be less than 1"),
        ("name=a/b", "name: 'a/b': String should match pattern .*"),
        ("seed=-1", "seed: -1: Input should be greater than or equal to 0"),
    ],
)
def test_values_that_cannot_be(recipe: str, override: str, message: str) -> None:
    with_pooling = "transformer_pooling={steps: 1, batch_size: 4}"
    assert re.fullmatch(f"recipe {recipe}: {message}", mistake(recipe, with_pooling, override))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.steps", "--set 'training.steps' is not of the form key=value, e.g. training.steps=100"),
        ("=5", "--set '=5' is not of the form key=value, e.g. training.steps=100"),
        ("name.first=5", "--set 'name.first=5': 'name' holds 'mine', not settings"),
        ("seed=[1", "--set 'seed=[1': the value is not YAML"),
    ],
)
def test_overrides_that_cannot_be_read(recipe: str, override: str, message: str) -> None:
    assert mistake(recipe, override) == message


def test_usage_takes_what_needs_no_new_training() -> None:
    recipe = config.load("tiny")
    used = config.usage(recipe, ("scoring.backend.neighbours=3", "inference.mode=whole"))
    assert (used.scoring.backend.neighbours, used.inference.mode) == (3, "whole")
    assert config.usage(recipe) == config.Usage(
        inference=recipe.inference, scoring=recipe.scoring, resources=recipe.resources
    )
    with pytest.raises(UserError, match=r"^settings: unknown key 'training'; allowed: inference, scoring, resources$"):
        config.usage(recipe, ("training.steps=3",))


FROZEN = ("training", "augmentation", "transformer_pooling")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("training=null",), "training null leaves augmentation and transformer_pooling without use; allowed: null"),
        (
            (
                "training=null",
                "augmentation=null",
                "transformer_pooling=null",
                "embedding.pooling=attentive_statistics",
            ),
            "training null leaves attentive_statistics untrained; allowed: mean, statistics",
        ),
        (("scoring.index.kind=ivf",), "index.kind 'ivf' needs scoring.backend paper; allowed: exact"),
        (("scoring.backend=best",), "unknown back-end; allowed: paper, or a mapping of settings"),
    ],
)
def test_what_goes_without_training_or_not_with_a_back_end(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config.load("tiny", overrides)


def test_the_word_paper_is_the_back_end_of_the_paper() -> None:
    assert config.load("tiny", ("scoring.backend=paper",)).scoring.backend == config.load("paper").scoring.backend
    assert config.load("paper").scoring.backend.is_paper
    assert not config.load("tiny").scoring.backend.is_paper

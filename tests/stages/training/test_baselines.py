"""The baselines through all stages: trained, saved, scored, evaluated, and refused where they cannot be."""

import numpy as np
import pyarrow.compute as pc
import pytest
import safetensors.torch
import torch

from ray_asd import build, tables
from ray_asd.build import Output, steps
from ray_asd.config import Recipe
from ray_asd.data.features import log_mel
from ray_asd.data.recordings import waveform
from ray_asd.engine.progress import silent
from ray_asd.errors import UserError
from ray_asd.models import model_folder
from ray_asd.models.autoencoder import AutoEncoder, Covariances, Reconstruction
from ray_asd.models.card import CARD, WEIGHTS, read_card
from ray_asd.models.mobilenet import anomaly_score, patches
from ray_asd.stages.comparison import evaluate
from ray_asd.stages.detection.baselines import load
from ray_asd.stages.training import systems, usage
from ray_asd.stages.training.baseline_objectives import PatchModel
from ray_asd.stages.training.usage import Used
from ray_asd.tables import Folder
from stages import chain

pytestmark = pytest.mark.usefixtures("baselines")


def trained(system: chain.Chain, chosen: Recipe) -> Output:
    return steps.ensure(systems.system(chosen, system.clips, silent), system.root)


def used(model: Output, chosen: Recipe, clips: Output) -> Used:
    return usage.planned(model, chosen, clips)


def scored(system: chain.Chain, chosen: Recipe) -> Output:
    detector = chain.enrolled([used(trained(system, chosen), chosen, system.clips)], system.clips, system.root)
    return chain.scored(detector, system.clips, system.root)


@pytest.mark.parametrize("method", ["autoencoder", "mobilenet"])
def test_a_baseline_gives_scores_thresholds_and_metrics(system: chain.Chain, method: str) -> None:
    output = scored(system, chain.baseline(method))
    table = output.table(Folder.SCORES)
    assert table.schema.equals(tables.SCORES)
    test = system.clips.table(Folder.CLIPS).filter(pc.field("split") == "test")
    assert table["clip_id"].to_pylist() == sorted(test["clip_id"].to_pylist())
    assert pc.all(pc.is_finite(table["score"])).as_py()
    assert set(map(tuple, table["neighbours"].to_pylist())) == {()}
    thresholds = output.table(Folder.THRESHOLDS).to_pylist()
    assert [(row["machine_type"], row["num_clips"]) for row in thresholds] == [("fan", 2), ("valve", 2)]
    metrics = steps.ensure(evaluate.step([output], silent), system.root)
    name = {"autoencoder": "AutoEncoder (MSE)", "mobilenet": "MobileNet"}[method]
    assert [found["system"] for found in metrics.marker.summary["systems"]] == [name, "spectral"]
    floor = next(uri for key, uri in metrics.marker.inputs.items() if key.startswith("baseline"))
    assert floor == next(source for key, source in system.metrics.marker.inputs.items() if key.startswith("baseline"))


def test_an_autoencoders_scores_are_those_of_its_saved_weights(system: chain.Chain) -> None:
    """Put together here from the tensors alone, one machine type at a time."""
    chosen = chain.baseline("autoencoder")
    model = trained(system, chosen)
    card = read_card(model.fetch(CARD))
    assert card.machine_types == ["fan", "valve"]
    tensors = safetensors.torch.load_file(model.fetch(WEIGHTS))
    scores = {row["clip_id"]: row["score"] for row in scored(system, chosen).table(Folder.SCORES).to_pylist()}
    mahalanobis = chain.baseline("autoencoder", "scoring.autoencoder.score=mahalanobis")
    assert trained(system, mahalanobis).uri == model.uri, "another score needs no training"
    other = scored(system, mahalanobis)
    assert other.marker.summary["system"] == "AutoEncoder (Mahalanobis)"
    selective = {row["clip_id"]: row["score"] for row in other.table(Folder.SCORES).to_pylist()}
    for number, machine_type in enumerate(card.machine_types):
        network = AutoEncoder()
        prefix = f"{number}.network."
        network.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        covariances = Covariances(tensors[f"{number}.covariance_source"], tensors[f"{number}.covariance_target"])
        detector = Reconstruction(network, covariances)
        for clip in system.clips.table(Folder.CLIPS).to_pylist():
            if clip["machine_type"] == machine_type and clip["split"] == "test":
                mel = log_mel(waveform(clip, 0))
                assert detector.score(mel, chosen.scoring.autoencoder) == pytest.approx(scores[clip["clip_id"]])
                found = detector.score(mel, mahalanobis.scoring.autoencoder)
                assert found == pytest.approx(selective[clip["clip_id"]])


def test_each_machine_type_has_a_training_of_its_own(system: chain.Chain) -> None:
    model = trained(system, chain.baseline("autoencoder"))
    parts = [build.find(source.uri) for name, source in model.marker.inputs.items() if name.startswith("machine ")]
    assert [part.marker.config["machine_type"] for part in parts if part] == ["fan", "valve"]
    for part in parts:
        assert part is not None
        # 18 clips of 2 s: 63 frames, 59 vectors each, of which a tenth is never trained on
        assert part.marker.counts["steps"] == int(np.ceil(round(18 * 59 * 0.9) / 256))
        assert part.marker.held.cpus == 1
        weights = safetensors.torch.load(part.read("autoencoder.safetensors"))
        assert weights["covariance_source"].abs().sum() > 0
        assert not torch.equal(weights["covariance_source"], weights["covariance_target"])


def test_the_true_class_is_the_clips_own_or_the_best_fitting(system: chain.Chain) -> None:
    chosen = chain.baseline("mobilenet")
    model = trained(system, chosen)
    card = read_card(model.fetch(CARD))
    network = PatchModel(len(card.conditions), chosen.mobilenet)
    network.load_state_dict(safetensors.torch.load_file(model.fetch(WEIGHTS)))
    (clip, *_) = (row for row in system.clips.table(Folder.CLIPS).to_pylist() if row["condition"] in card.conditions)
    wave = waveform(clip, 0)
    with torch.inference_mode():
        logits = network.eval().classifier(patches(torch.from_numpy(log_mel(wave)), 32, 32))
    own = anomaly_score(logits, [card.conditions.index(clip["condition"])])
    of_machine = [n for n, name in enumerate(card.conditions) if name.split("|")[0] == clip["machine_type"]]
    best = anomaly_score(logits, of_machine)
    recorded, nearest = (
        load(used(model, chain.baseline("mobilenet", f"scoring.mobilenet_class={name}"), system.clips))
        for name in ("recorded", "nearest")
    )
    assert recorded(wave, clip) == pytest.approx(own, rel=1e-5)
    assert recorded(wave, clip | {"condition": "fan|never=seen"}) == pytest.approx(best, rel=1e-5)
    assert nearest(wave, clip) == pytest.approx(best, rel=1e-5)
    assert best <= own
    short = wave[: 512 * 5]
    assert np.isfinite(recorded(short, clip)), "a clip shorter than a patch is repeated"
    with pytest.raises(UserError, match=r"^x: the MobileNet knows no condition of 'pump'$"):
        recorded(wave, {"clip_id": "x", "machine_type": "pump", "condition": None})


def test_a_machine_type_without_an_autoencoder_is_named(system: chain.Chain) -> None:
    chosen = chain.baseline("autoencoder")
    scorer = load(used(trained(system, chosen), chosen, system.clips))
    with pytest.raises(UserError, match=r"^x: no AutoEncoder was trained on 'pump'; allowed: fan, valve$"):
        scorer(np.zeros(16_000, np.float32), {"clip_id": "x", "machine_type": "pump", "condition": None})


def test_a_baseline_is_no_backbone(system: chain.Chain) -> None:
    model = trained(system, chain.baseline("mobilenet"))
    assert usage.use(model.uri, None, ()).method == "mobilenet"
    with pytest.raises(UserError, match=r"a mobilenet has no embeddings; allowed: a fine-tuned backbone$"):
        model_folder.load(model.fetch(CARD), model.fetch(WEIGHTS))

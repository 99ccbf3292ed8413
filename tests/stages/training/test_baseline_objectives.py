"""What the baselines train on, down to the frames of a batch."""

import math

import numpy as np
import pytest
import torch

from ray_asd.build import Output
from ray_asd.data.features import log_mel
from ray_asd.data.sampling import Draw
from ray_asd.data.training_set import TrainingSet
from ray_asd.stages.training.baseline_objectives import Patches, Pieces, Reconstruction, long_enough
from training_clips import hums, recipe, training_set

CLIPS = hums(6, 0.5)  # half a second: 16 frames


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Output:
    return training_set(str(tmp_path_factory.mktemp("set")), CLIPS)


def frames(clip: int) -> np.ndarray:
    """[F, 128] of a clip, in the order of clip_ids."""
    wave = sorted(CLIPS, key=lambda clip: clip[0])[clip][2]
    return np.asarray(log_mel(wave).T)


def test_pieces_are_all_there_and_stay_within_their_clips(clips: Output) -> None:
    pieces = Pieces(TrainingSet([clips], []), frames=7, hop=3)
    count = (len(frames(0)) - 7) // 3 + 1
    assert len(pieces) == 6 * count
    np.testing.assert_array_equal(np.bincount(pieces.clips), [count] * 6)
    taken = pieces.take([0, 1, count, 6 * count - 1])
    assert taken.shape == (4, 7, 128)
    for found, (clip, start) in zip(taken, [(0, 0), (0, 3), (1, 0), (5, 3 * (count - 1))], strict=True):
        np.testing.assert_array_equal(found, frames(clip)[start : start + 7])


def test_a_clip_shorter_than_a_piece_is_repeated(clips: Output) -> None:
    pieces = Pieces(TrainingSet([clips], []), frames=40, hop=3)
    assert len(pieces) == 6
    assert pieces.take([0]).shape == (1, 40, 128)
    wave = np.arange(5.0, dtype=np.float32)
    np.testing.assert_array_equal(long_enough(wave, 1), wave)
    assert log_mel(long_enough(wave, 4)).shape == (128, 4)


def reconstruction(clips: Output, **settings: float) -> Reconstruction:
    return Reconstruction([clips], [], "fan", recipe(autoencoder=settings, seed=3))


def test_a_share_of_the_vectors_is_never_trained_on(clips: Output) -> None:
    total = 6 * (len(frames(0)) - 4)
    task = reconstruction(clips, validation_fraction=0.25, epochs=3, batch_size=10)
    prepared = task.prepare()
    assert prepared.num_items == total - round(0.25 * total)
    assert task.settings.steps == math.ceil(3 * prepared.num_items / 10)
    assert (task.settings.weight_decay, task.settings.workers) == (0, 1)
    pieces, trained = task.vectors()
    assert len(set(trained)) == prepared.num_items
    assert len(pieces) == total
    (batch,) = prepared.batch([Draw(0, 0.0), Draw(5, 0.0)], step=0)
    torch.testing.assert_close(batch, pieces.take(trained[[0, 5]]).flatten(1))
    assert reconstruction(clips, validation_fraction=0.0).prepare().num_items == total


def test_training_learns_and_ends_with_covariances(clips: Output) -> None:
    prepared = reconstruction(clips, batch_size=16).prepare()
    before = prepared.module.covariance_source.clone()
    optimizer = torch.optim.Adam(prepared.module.parameters(), lr=1e-2)
    losses = []
    for step in range(60):
        draws = [Draw(item % prepared.num_items, 0.0) for item in range(16 * step, 16 * step + 16)]
        optimizer.zero_grad()
        loss = prepared.module(*prepared.batch(draws, step))["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    prepared.finish()
    found = prepared.module.state_dict()["covariance_source"]
    assert not torch.equal(found, before)
    torch.testing.assert_close(found, found.T)
    assert torch.equal(found, prepared.module.covariance_target), "there are no clips of the target domain"


def test_the_start_depends_on_the_seed_alone(clips: Output) -> None:
    torch.manual_seed(1)
    one = reconstruction(clips).prepare().module.state_dict()
    torch.manual_seed(2)
    other = reconstruction(clips).prepare().module.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_patches_are_of_all_conditions(clips: Output) -> None:
    settings = {"frames": 8, "hop_frames": 4, "epochs": 2, "batch_size": 5}
    task = Patches([clips], ["fleet/000.wav"], recipe(mobilenet=settings))
    prepared = task.prepare()
    count = (len(frames(0)) - 8) // 4 + 1
    assert prepared.num_items == 5 * count
    assert task.settings.steps == math.ceil(2 * 5 * count / 5)
    labels, patches = prepared.batch([Draw(0, 0.0), Draw(count, 0.0), Draw(1, 0.0)], step=0)
    data = TrainingSet([clips], ["fleet/000.wav"])
    assert labels.tolist() == data.labels[[0, 1, 0]].tolist()
    np.testing.assert_array_equal(patches[2], frames(1)[4:12].T)
    measured = prepared.module(labels, patches)
    assert sorted(measured) == ["accuracy", "loss"]
    measured["loss"].backward()
    assert all(parameter.grad is not None for parameter in prepared.module.parameters())

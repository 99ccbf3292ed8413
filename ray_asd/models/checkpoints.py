"""Which pre-trained weights a recipe means: found, checked and identified before anything is loaded.

A checkpoint is a Hugging Face folder (``config.json`` and weights) on the hub, on disk or in an object store, or
``random:<size>``. This module imports neither torch nor transformers, so that a wrong source is refused at once.
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from ray_asd import build, store
from ray_asd.config import Backbone
from ray_asd.errors import UserError, unknown
from ray_asd.models import hub, weights

FAMILIES = {
    "wav2vec2": ("wav2vec2",),
    "unispeech": ("unispeech-sat", "unispeech"),
    "hubert": ("hubert",),
    "wavlm": ("wavlm",),
}
"""Values of ``model_type`` in a checkpoint's config.json that each family takes; the first one is its random model."""

CONFIG = "config.json"
SOURCE = "source.json"  # in a mirror: where its files came from, and their digests
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)  # in order of preference; an index lists the shards

_CONVOLUTIONS = {"conv_kernel": (10, 3, 3, 3, 3, 2, 2), "conv_stride": (5, 2, 2, 2, 2, 2, 2)}  # 50 frames per second
_GROUP_NORM = {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False}
_LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}  # as XLS-R


@dataclass(frozen=True)
class Checkpoint:
    """Weights that were found, and what makes them these and no others."""

    source: str  # hub id, absolute directory, s3:// URI or random:<size>
    identity: dict[str, str]  # enters digests: repository and commit, or sha256 per file, or size, family and seed
    config: dict[str, Any]  # the parsed config.json
    files: tuple[str, ...] = field(default=())  # config.json, the weights' index if there is one, weights

    @property
    def weights(self) -> list[str]:
        """Names of the weight files; none when random."""
        return [name for name in self.files if not name.endswith(".json")]


def resolve(backbone: Backbone, seed: int) -> Checkpoint:
    """The checkpoint that ``backbone`` names; only ``random:<size>`` depends on ``seed``.

    Raises:
        UserError: nothing is there, a file is missing, it is a checkpoint of another family, or the header of its
            weights does not fit its config.json.
    """
    source = backbone.checkpoint
    if source.startswith("random:"):
        checkpoint = _random(source.removeprefix("random:"), backbone.family, seed)
    else:
        checkpoint = _found(source, backbone.revision)
    kind = checkpoint.config.get("model_type")
    if kind not in FAMILIES[backbone.family]:
        known = [name for name, kinds in FAMILIES.items() if kind in kinds]
        owner = f"belongs to backbone.family {known[0]}" if known else "belongs to no family"
        allowed = " or ".join(FAMILIES[backbone.family])
        raise UserError(f"{source}: model_type {kind!r} {owner}; {backbone.family} needs {allowed}")
    needed = weights.needed(checkpoint.config, f"{source}: {CONFIG}")
    found = _weights_of(checkpoint)
    if found is not None:
        weights.check(found, needed, f"{kind.replace('-', '_')}.", source)
    return checkpoint


def fetch(checkpoint: Checkpoint) -> list[Path]:
    """Local copies of the weight files, downloaded once per machine where they are remote.

    Raises:
        UserError: a file is gone or is no longer the one that was identified.
    """
    return [_local(checkpoint, name) for name in checkpoint.weights]


@dataclass(frozen=True)
class Mirror:
    """A copy of a checkpoint: where, how many files, and whether it was there already."""

    uri: str
    files: int
    reused: bool


def mirror(source: str, revision: str | None, to: str) -> Mirror:
    """Copy the checkpoint at ``source`` (hub id, folder or s3://) to ``to``, which can then be a ``backbone.source``.

    ``source.json`` there says where it came from. It is written last: where it stands, nothing is copied again.

    Raises:
        UserError: ``source`` is no checkpoint, or ``to`` holds something else.
    """
    if source.startswith("random:"):
        raise UserError(f"{source} has no files to copy; allowed: a hub id, a local directory, an s3:// URI")
    to = store.absolute(to)
    there = _origin(to)
    if there and there["source"] == source and there["commit"] and revision in (None, there["commit"]):
        return Mirror(to, len(there["files"]), reused=True)
    store.check_writable(to)
    checkpoint = _found(source, revision)
    _weights_of(checkpoint)
    copies = {name: _local(checkpoint, name) for name in checkpoint.files}
    digests = {name: store.sha256(str(path)) for name, path in copies.items()}
    present = {entry.path for entry in store.listing(to)} - {SOURCE}
    for name in sorted(present):
        if name not in digests or store.sha256(store.join(to, name)) != digests[name]:
            raise UserError(f"{to} holds a {name} that is not of {source}; allowed: an empty place, or its own mirror")
    for name in digests.keys() - present:
        store.upload(copies[name], store.join(to, name))
    origin = {"source": checkpoint.source, "commit": checkpoint.identity.get("commit"), "files": digests}
    if there is None:
        store.write(store.join(to, SOURCE), json.dumps(origin, indent=1).encode())
    return Mirror(to, len(digests), reused=there is not None)


def within_reach(checkpoint: Checkpoint, place: str) -> Checkpoint:
    """The same weights for workers that may not reach the hub: a hub's checkpoint is copied to ``place``.

    Raises:
        UserError: see ``mirror``.
    """
    commit = checkpoint.identity.get("commit")
    if commit is None:
        return checkpoint
    mirror(checkpoint.source, commit, place)
    return _in_folder(place)


def _origin(uri: str) -> dict[str, Any] | None:
    """What a mirror's source.json says; None where there is none."""
    if not store.exists(store.join(uri, SOURCE)):
        return None
    return _parsed(uri, SOURCE, lambda name: store.read(store.join(uri, name)))


def _found(source: str, revision: str | None) -> Checkpoint:
    if store.is_remote(source) or source.startswith(("/", ".", "~")) or os.path.isdir(source):
        return _in_folder(store.absolute(source))
    return _on_hub(source, revision)


def _local(checkpoint: Checkpoint, name: str) -> Path:
    """A local copy of one of the checkpoint's files."""
    commit = checkpoint.identity.get("commit")
    if commit:
        return hub.download(checkpoint.source, name, commit)
    return store.fetch(store.join(checkpoint.source, name), checkpoint.identity[name])


def _random(size: str, family: str, seed: int) -> Checkpoint:
    large = family == "wav2vec2"
    hidden, layers, heads, channels = {
        "tiny": (96, 3, 4, 32),
        "small": (256, 6, 4, 128),
        "base": (1024, 24, 16, 512) if large else (768, 12, 12, 512),
    }[size]
    config = {
        "model_type": FAMILIES[family][0],
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
        "conv_dim": (channels,) * 7,
        "num_conv_pos_embeddings": 16 if size == "tiny" else 128,
        "num_conv_pos_embedding_groups": hidden // max(16, hidden // 16),  # oneDNN gets bf16 groups under 16 wide wrong
        **_CONVOLUTIONS,
        **(_LAYER_NORM if large else _GROUP_NORM),
    }
    identity = {"random": size, "family": family, "seed": str(seed), "config": build.digest_of(config)}
    return Checkpoint(f"random:{size}", identity, config)


def _digest(uri: str) -> str:
    """sha256 of a file that is there, read once by all the cells of a sweep."""
    entry = store.stat(uri)
    if entry is None:
        raise UserError(f"{uri} is no file; allowed: a file of a checkpoint")
    return _digest_of_version(uri, entry)


@lru_cache
def _digest_of_version(uri: str, entry: store.Entry) -> str:
    return store.sha256(uri)


def _in_folder(uri: str) -> Checkpoint:
    if not store.exists(store.join(uri, CONFIG)):
        raise UserError(f"{uri}: no {CONFIG}; a folder with {CONFIG} and weights in Hugging Face format is needed")
    present = [name for name in WEIGHTS if store.exists(store.join(uri, name))]

    def read(name: str) -> bytes:
        return store.read(store.join(uri, name))

    files = (CONFIG, *_weight_files(uri, present, read))
    missing = [name for name in files if not store.exists(store.join(uri, name))]
    if missing:
        raise UserError(f"{uri}: the weights index lists {missing[0]}, which is not there")
    recorded = (_origin(uri) or {}).get("files", {}) if store.is_remote(uri) else {}  # checked when fetched
    weights = {name: digest for name, digest in recorded.items() if name in files and not name.endswith(".json")}
    identity = {name: weights.get(name) or _digest(store.join(uri, name)) for name in files}
    return Checkpoint(uri, identity, _parsed(uri, CONFIG, read), files)


def _weights_of(checkpoint: Checkpoint) -> dict[str, weights.Tensor] | None:
    """What the headers of a folder's weights tell; None where only loading them can.

    Raises:
        UserError: a file of weights is something else.
    """
    if "commit" in checkpoint.identity or not checkpoint.weights:  # the hub's are looked at when they are fetched
        return None
    described = [weights.described(checkpoint.source, name) for name in checkpoint.weights]
    if None in described:
        return None
    return {name: tensor for found in described for name, tensor in (found or {}).items()}


def _on_hub(repository: str, revision: str | None) -> Checkpoint:
    """The hub is not asked for a commit that this machine's cache holds as a whole; where it does not answer, the cache
    says which commit a branch or tag was.
    """
    cached = hub.cached(repository, revision)
    if cached and cached.digest == revision:
        with suppress(UserError):  # it is not whole
            return _at(cached)
    try:
        return _at(hub.asked(repository, revision))
    except hub.OutOfReach:
        if cached is None:
            raise
        return _at(cached)


def _at(commit: hub.Commit) -> Checkpoint:
    files = (CONFIG, *_weight_files(commit.place, [name for name in WEIGHTS if name in commit.files], commit.read))
    if not commit.files.issuperset(files):
        raise UserError(f"{commit.place}: not a complete Hugging Face checkpoint; it lacks {CONFIG} or some weights")
    identity = {"repository": commit.repository, "commit": commit.digest}
    return Checkpoint(commit.repository, identity, _parsed(commit.repository, CONFIG, commit.read), files)


def _weight_files(place: str, present: list[str], read: Callable[[str], bytes]) -> tuple[str, ...]:
    """Names of the files that hold the weights, after their index; given those of ``WEIGHTS`` that are there."""
    if not present:
        raise UserError(f"{place}: no weights; one of {', '.join(WEIGHTS)} is needed")
    if not present[0].endswith(".json"):
        return (present[0],)
    shards = _parsed(place, present[0], read).get("weight_map")
    if not isinstance(shards, dict) or not all(store.is_file_name(str(name)) for name in shards.values()):
        raise UserError(f"{place}: {present[0]} is no index of weight files beside it")
    return (present[0], *sorted(set(shards.values())))


def _parsed(place: str, name: str, read: Callable[[str], bytes]) -> dict[str, Any]:
    try:
        values = json.loads(read(name))
    except ValueError as error:
        raise UserError(f"{place}: {name} is not JSON") from error
    if not isinstance(values, dict):
        raise unknown(f"content of {place}/{name}", type(values).__name__, ["a JSON object"])
    return values

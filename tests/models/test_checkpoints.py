import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import safetensors.numpy

from ray_asd import store
from ray_asd.config import Backbone
from ray_asd.errors import StageError, UserError
from ray_asd.models import hub
from ray_asd.models.checkpoints import Mirror, fetch, mirror, resolve, within_reach
from ray_asd.models.weights import needed

TINY = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 6, "conv_dim": [2] * 7}


def state(**others: np.ndarray) -> dict[str, np.ndarray]:
    """The tensors that a backbone of every family has, as small as they can be."""
    return {name: np.zeros(shape, np.float32) for name, shape in needed(TINY, "config.json").items()} | others


WEIGHTS, OTHERS = (safetensors.numpy.save(state(bias=np.full(2, value, np.float32))) for value in (0, 1))


def folder(path: Path, model_type: str = "hubert", **files: bytes) -> Path:
    """A folder that looks like a checkpoint; ``__`` in a name stands for a dot."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"model_type": model_type, **TINY}))
    for name, content in files.items():
        (path / name.replace("__", ".")).write_bytes(content)
    return path


def hubert(source: object, revision: str | None = None) -> Backbone:
    return Backbone(family="hubert", source=str(source), revision=revision)


def test_neither_torch_nor_transformers_is_imported() -> None:
    program = (
        "import sys; from ray_asd.config import Backbone; from ray_asd.models.checkpoints import resolve;"
        "resolve(Backbone(family='hubert', source='random:tiny'), 0);"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_random_weights_are_identified_by_size_family_and_seed() -> None:
    checkpoint = resolve(hubert("random:tiny"), 7)
    assert checkpoint.identity.items() >= {"random": "tiny", "family": "hubert", "seed": "7"}.items()
    others = [resolve(hubert("random:small"), 7), resolve(Backbone(family="wav2vec2", source="random:tiny"), 7)]
    assert len({other.identity["config"] for other in [checkpoint, *others]}) == 3
    assert checkpoint.weights == []


def test_a_folder_is_identified_by_its_content_wherever_it_lies(tmp_path: Path) -> None:
    first = folder(tmp_path / "first", model__safetensors=WEIGHTS)
    shutil.copytree(first, tmp_path / "second")
    identity = resolve(hubert(first), 0).identity
    assert identity["model.safetensors"] == hashlib.sha256(WEIGHTS).hexdigest()
    assert sorted(identity) == ["config.json", "model.safetensors"]
    assert resolve(hubert(tmp_path / "second"), 1).identity == identity
    (first / "model.safetensors").write_bytes(OTHERS)
    assert resolve(hubert(first), 0).identity != identity


def test_a_relative_folder_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "mine", model__safetensors=WEIGHTS)
    monkeypatch.chdir(tmp_path)
    checkpoint = resolve(hubert("mine"), 0)
    assert checkpoint.source == str(tmp_path / "mine")
    assert fetch(checkpoint) == [tmp_path / "mine" / "model.safetensors"]


def test_safetensors_are_preferred_to_bin(tmp_path: Path) -> None:
    both = folder(tmp_path / "both", pytorch_model__bin=b"old", model__safetensors=WEIGHTS)
    assert resolve(hubert(both), 0).weights == ["model.safetensors"]


@pytest.mark.parametrize("index", ["model__safetensors__index__json", "pytorch_model__bin__index__json"])
def test_an_index_stands_for_its_shards(tmp_path: Path, index: str) -> None:
    content = json.dumps({"weight_map": {"a": "part-2", "b": "part-1", "c": "part-2"}}).encode()
    sharded = folder(tmp_path / "sharded", **{index: content, "part-1": b"1", "part-2": b"2"})
    assert resolve(hubert(sharded), 0).weights == ["part-1", "part-2"]
    (sharded / "part-2").unlink()
    with pytest.raises(UserError, match="lists part-2, which is not there"):
        resolve(hubert(sharded), 0)


@pytest.mark.parametrize("name", ["../secret", "..", ".", "", "/etc/passwd", "a/b"])
def test_an_index_cannot_point_outside_its_folder(tmp_path: Path, name: str) -> None:
    content = json.dumps({"weight_map": {"a": name}}).encode()
    with pytest.raises(UserError, match="no index of weight files beside it"):
        resolve(hubert(folder(tmp_path / "sly", model__safetensors__index__json=content)), 0)


def test_what_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent: no config\.json"):
        resolve(hubert(tmp_path / "absent"), 0)
    with pytest.raises(UserError, match=r"no weights; one of model\.safetensors, .*pytorch_model\.bin"):
        resolve(hubert(folder(tmp_path / "empty")), 0)
    broken = folder(tmp_path / "broken", model__safetensors=b"")
    (broken / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json is not JSON"):
        resolve(hubert(broken), 0)
    (broken / "config.json").write_text("[]")
    with pytest.raises(UserError, match="'list'; allowed: a JSON object"):
        resolve(hubert(broken), 0)


@pytest.mark.parametrize(
    ("model_type", "message"),
    [
        ("wavlm", "model_type 'wavlm' belongs to backbone.family wavlm; hubert needs hubert"),
        ("bert", "model_type 'bert' belongs to no family; hubert needs hubert"),
    ],
)
def test_a_checkpoint_of_another_family_is_refused(tmp_path: Path, model_type: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve(hubert(folder(tmp_path / "other", model_type, model__safetensors=b"")), 0)


@pytest.mark.parametrize("model_type", ["unispeech", "unispeech-sat"])
def test_unispeech_takes_both_of_its_kinds(tmp_path: Path, model_type: str) -> None:
    source = str(folder(tmp_path / "any", model_type, model__safetensors=WEIGHTS))
    assert resolve(Backbone(family="unispeech", source=source), 0).config["model_type"] == model_type


@pytest.mark.parametrize("source", [None, "someone/something", "not a hub id/at all/"])
def test_an_unreachable_hub_is_one_line_with_the_alternatives(
    monkeypatch: pytest.MonkeyPatch, source: str | None
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError) as refused:
        resolve(Backbone(family="hubert", source=source), 0)
    message = str(refused.value)
    assert (source or "facebook/hubert-base-ls960") in message
    assert "local directory, an s3:// URI, random:tiny, random:small, random:base" in message
    assert "\n" not in message


def test_a_cached_commit_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "models--someone--hubert" / "snapshots" / commit
    folder(snapshot, pytorch_model__bin=b"weights")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    checkpoint = resolve(hubert("someone/hubert", commit), 0)
    assert checkpoint.identity == {"repository": "someone/hubert", "commit": commit}
    assert fetch(checkpoint) == [snapshot / "pytorch_model.bin"]
    with pytest.raises(UserError, match="someone/hubert at revision main"):
        resolve(hubert("someone/hubert", "main"), 0)


A, B = "a" * 40, "b" * 40


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the hub's cache holds of a repository on a machine that is offline: two commits, of which one is whole."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    kept = tmp_path / "cache" / "models--someone--hubert"
    folder(kept / "snapshots" / A, model__safetensors=WEIGHTS)
    folder(kept / "snapshots" / B)
    for name, commit in (("main", A), ("v1.0", A), ("team/next", A), ("empty", B), ("gone", "c" * 40)):
        place = kept / "refs" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(commit)
    return kept


@pytest.mark.parametrize("revision", [None, "main", "v1.0", "team/next", A])
def test_offline_the_cache_says_which_commit_a_branch_or_tag_is(hub_cache: Path, revision: str | None) -> None:
    checkpoint = resolve(hubert("someone/hubert", revision), 0)
    assert checkpoint.identity == {"repository": "someone/hubert", "commit": A}
    assert fetch(checkpoint) == [hub_cache / "snapshots" / A / "model.safetensors"]


@pytest.mark.parametrize("revision", ["v2.0", "gone", "c" * 40, "../refs/main", "/etc", ".."])
def test_offline_what_the_cache_does_not_know_is_refused(hub_cache: Path, revision: str) -> None:
    with pytest.raises(UserError, match=rf"someone/hubert at revision {revision}: not found .*OfflineModeIsEnabled"):
        resolve(hubert("someone/hubert", revision), 0)


@pytest.mark.parametrize("revision", ["empty", B])
def test_offline_half_a_checkpoint_says_what_the_cache_lacks(hub_cache: Path, revision: str) -> None:
    with pytest.raises(UserError, match=r"someone/hubert in the hub's cache on .*: no weights; one of"):
        resolve(hubert("someone/hubert", revision), 0)
    index = hub_cache / "snapshots" / B / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "part-1"}}))
    with pytest.raises(UserError, match="in the hub's cache on .*: not a complete Hugging Face checkpoint"):
        resolve(hubert("someone/hubert", revision), 0)


def test_the_variable_of_transformers_means_offline_too(hub_cache: Path) -> None:
    program = (
        "import sys; from ray_asd.config import Backbone; from ray_asd.models.checkpoints import resolve;"
        "print(resolve(Backbone(family='hubert', source='someone/hubert'), 0).identity['commit'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {"TRANSFORMERS_OFFLINE": "1", "HF_HUB_CACHE": str(hub_cache.parent)}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == A


def test_a_hub_that_answers_is_believed_before_the_cache(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub of this test's own: it fails, then says that there is no such repository, then that main has moved on."""
    answers = [(503, b""), (404, b""), (200, json.dumps({"id": "someone/hubert", "sha": B, "siblings": []}).encode())]

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, content = answers[0]
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "HfApi", lambda: huggingface_hub.HfApi(f"http://127.0.0.1:{server.server_port}"))
    assert resolve(hubert("someone/hubert"), 0).identity["commit"] == A
    answers.pop(0)
    with pytest.raises(UserError, match="someone/hubert: not found"):
        resolve(hubert("someone/hubert"), 0)
    assert resolve(hubert("someone/hubert", A), 0).identity["commit"] == A  # is not asked for
    answers.pop(0)
    with pytest.raises(UserError, match="^someone/hubert: no weights"):
        resolve(hubert("someone/hubert"), 0)
    server.shutdown()
    server.server_close()


def test_weights_are_brought_within_reach_of_who_cannot_reach_the_hub(
    hub_cache: Path, tmp_path: Path, root: str
) -> None:
    ours = resolve(hubert(folder(tmp_path / "ours", model__safetensors=OTHERS)), 0)
    assert within_reach(ours, root) is ours
    checkpoint = resolve(hubert("someone/hubert", "v1.0"), 0)
    theirs = within_reach(checkpoint, root)
    shutil.rmtree(hub_cache)
    assert [path.read_bytes() for path in fetch(theirs)] == [WEIGHTS]
    assert theirs.config == checkpoint.config
    with pytest.raises(UserError, match="cannot reach the hub .* and lacks it in its cache"):
        fetch(checkpoint)


def sharded(path: Path) -> Path:
    index = json.dumps({"weight_map": {"a": "part-1", "b": "part-2"}}).encode()
    return folder(path, model__safetensors__index__json=index, **{"part-1": b"1", "part-2": b"2"}, README=b"not copied")


def test_a_mirror_is_the_same_checkpoint_elsewhere(tmp_path: Path, root: str) -> None:
    source = sharded(tmp_path / "source")
    assert mirror(str(source), None, root) == Mirror(root, files=4, reused=False)
    names = ["config.json", "model.safetensors.index.json", "part-1", "part-2", "source.json"]
    assert [entry.path for entry in store.listing(root)] == names
    origin = json.loads(store.read(f"{root}/source.json"))
    assert (origin["source"], origin["commit"]) == (str(source), None)
    assert origin["files"]["part-1"] == hashlib.sha256(b"1").hexdigest()
    copy = resolve(hubert(root), 0)
    assert copy.identity == resolve(hubert(source), 0).identity
    assert [path.read_bytes() for path in fetch(copy)] == [b"1", b"2"]


def test_a_mirror_made_again_is_left_alone_and_one_broken_off_goes_on(tmp_path: Path, root: str) -> None:
    source = str(sharded(tmp_path / "source"))
    mirror(source, None, root)
    store.remove(f"{root}/source.json")
    store.remove(f"{root}/part-2")
    kept = store.stat(f"{root}/part-1")
    assert mirror(source, None, root) == Mirror(root, files=4, reused=False)
    assert mirror(source, None, root) == Mirror(root, files=4, reused=True)
    assert store.read(f"{root}/part-2") == b"2"
    assert store.stat(f"{root}/part-1") == kept


@pytest.mark.parametrize(("name", "content"), [("model__safetensors", b"mine"), ("notes__txt", b"")])
def test_a_mirror_writes_over_nothing(tmp_path: Path, name: str, content: bytes) -> None:
    source = folder(tmp_path / "source", model__safetensors=WEIGHTS)
    target = folder(tmp_path / "target", **{name: content})
    found = name.replace("__", ".")
    with pytest.raises(UserError, match=rf"target holds a {found} that is not of .*/source; allowed: an empty place"):
        mirror(str(source), None, str(target))
    assert (target / found).read_bytes() == content
    assert not (target / "source.json").exists()


def test_a_mirror_in_an_object_store_is_not_read_to_be_identified_but_checked_when_fetched(
    tmp_path: Path, bucket: str
) -> None:
    own = safetensors.numpy.save(state(bias=np.full(2, 2, np.float32)))  # which no cache holds yet
    mirror(str(folder(tmp_path / "source", model__safetensors=own)), None, bucket)
    identity = resolve(hubert(bucket), 0).identity
    store.write(f"{bucket}/model.safetensors", OTHERS)
    assert resolve(hubert(bucket), 0).identity == identity
    with pytest.raises(StageError, match=r"model\.safetensors: its content is not the recorded one"):
        fetch(resolve(hubert(bucket), 0))


def test_a_mirror_of_a_hub_commit_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "cache"
    folder(cache / "models--someone--hubert" / "snapshots" / commit, pytorch_model__bin=b"weights")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    target = str(tmp_path / "target")
    assert not mirror("someone/hubert", commit, target).reused
    assert json.loads(store.read(f"{target}/source.json"))["commit"] == commit
    shutil.rmtree(cache)  # now nothing but the mirror is left
    assert mirror("someone/hubert", commit, target).reused
    assert mirror("someone/hubert", None, target).reused
    with pytest.raises(UserError, match="someone/hubert at revision main: not found"):
        mirror("someone/hubert", "main", target)


@pytest.mark.parametrize(
    ("source", "message"),
    [("random:tiny", "random:tiny has no files to copy; allowed: a hub id"), ("/nonexistent", r"no config\.json")],
)
def test_what_cannot_be_mirrored_is_refused(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        mirror(source, None, str(tmp_path / "target"))

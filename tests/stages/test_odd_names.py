"""Whatever machines, sections, data sets and files are called: each clip is accounted for, nothing lies elsewhere."""

import csv
import io
import json
import os
import re
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from html.parser import HTMLParser
from itertools import islice
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from markdown_it import MarkdownIt

from odd_names import texts
from ray_asd import build, cli, store
from ray_asd.data import audio
from ray_asd.tables import Folder

TRAIN, TEST = 4, 2  # clips of a machine
MACHINES = 15
ODD_FILES = (b"not \xff UTF-8.wav", b"ends.wav ", b"ends.wav.", b"no sound", b"%2e%2e%2fx.wav", b"x" * 251 + b".wav")
PLACES = ["disk", *["s3"] * ("CLUSTER_JOBS" in os.environ)]  # on disk a name could lead out of its folder


def run(*arguments: str, codes: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """What a command said last, as it must on one line; its exit code is one of ``codes``."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        cli.main([*arguments, "--json"])
    assert ended.value.code in codes, err.getvalue()
    assert "Traceback" not in err.getvalue()
    found: dict[str, Any] = json.loads(out.getvalue().splitlines()[-1])
    return found


def everything(place: str) -> set[bytes]:
    """Files below a place, hidden ones too, as storage itself tells of them."""
    if not store.is_remote(place):
        below = os.fsencode(place)
        return {
            os.path.relpath(os.path.join(above, name), below) for above, _, names in os.walk(below) for name in names
        }
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/")
    return {entry["Key"].removeprefix(f"{prefix}/").encode() for page in pages for entry in page.get("Contents", [])}


def put(place: str, path: bytes, data: bytes) -> None:
    """A file, whose name need not be text on disk."""
    if store.is_remote(place):
        store.write(f"{place}/{path.decode()}", data)
        return
    file = Path(os.fsdecode(os.path.join(os.fsencode(place), path)))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


def recordings() -> Iterator[bytes]:
    """Short ones, no two alike."""
    rng = np.random.default_rng(3)
    while True:
        yield audio.encode_wav(rng.uniform(-0.5, 0.5, (4800, 1)), 16_000)


def parts(seed: int, root: str) -> Iterator[str]:
    """Odd names of files: one part of a path, not hidden, no longer than storage allows."""
    # The object store of the tests, unlike others, knows no key with a line break.
    without, most = ("[/\r\n]", 600) if store.is_remote(root) else ("/", 255)
    for number, text in enumerate(texts(seed)):
        own = re.sub(without, "", text).lstrip(".")
        end = f"{number}.wav"
        yield own.encode()[: most - len(end)].decode(errors="ignore") + end


@pytest.fixture
def plant(root: str) -> tuple[str, list[dict[str, str]]]:
    """A CSV file of recordings, and its rows: odd machines, others with odd sections, and odd file names throughout."""
    names, sounds = parts(21, root), recordings()
    odd = [text.strip() for text in islice(texts(20), 2 * MACHINES)]
    odd = [text for text in dict.fromkeys(odd) if text]
    keys = [(text, "00") for text in odd[::2]] + [("fan", text) for text in odd[1::2]]
    rows = []
    for machine, section in keys:
        for number in range(TRAIN + TEST):
            uri = f"sounds/{next(names)}"
            put(f"{root}/plant", uri.encode(), next(sounds))
            split, label = ("train", "") if number < TRAIN else ("test", "anomaly" if number % 2 else "normal")
            row = {"uri": uri, "machine_type": machine, "section": section, "split": split, "label": label}
            rows.append(row | {"note": machine})
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    put(f"{root}/plant", b"list.csv", text.getvalue().encode())
    return f"{root}/plant", rows


class Tags(HTMLParser):
    """All tags of a page, but for what it says in script elements of its own."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)


@pytest.mark.parametrize("root", PLACES, indirect=True)
def test_each_clip_is_accounted_for_and_nothing_lies_elsewhere(
    ray_session: None, root: str, plant: tuple[str, list[dict[str, str]]]
) -> None:
    source, rows = plant
    before = everything(root)
    place, deep, report = f"{root}/runs", f"{root}/deep/er", f"{root}/report"
    made = run("ingest", f"{source}/list.csv", "--out", place, "--dataset", "../..")
    assert (made["counts"]["clips"], made["counts"]["rejects"]) == (len(rows), 0)
    clips = made["outputs"]["clips"]
    table = build.resolve(clips, "ingest").table(Folder.CLIPS)
    assert sorted(table["clip_id"].to_pylist()) == sorted(f"../../{row['uri']}" for row in rows)

    given = ["--model", "spectral", "--clips", clips, "--out", place, "--set", "resources.embed_workers=1"]
    scored = run("score", *given, "--submission", deep, codes=(3,))  # too few clips for thresholds
    expected = sorted(row["uri"].rpartition("/")[2] for row in rows if row["split"] == "test")
    scores = scored["outputs"]["scores"]
    assert scored["counts"]["clips"] + scored["counts"]["unscored"] == len(expected)
    written = [store.read(f"{deep}/{name}").decode() for name in store.files(deep)]
    lines = [name for text in written for name, _ in csv.reader(io.StringIO(text, newline=""))]
    assert sorted(lines) == expected

    run("evaluate", "--scores", scores, "--out", place)
    run("report", "--runs", place, "--out", report, "--no-audio")
    for page in store.listing(report):
        text = store.read(f"{report}/{page.path}").decode()
        if not page.path.endswith(".csv"):
            shown = MarkdownIt().render(text) if page.path.endswith(".md") else text
            assert not Tags(shown).found & {"script", "b", "iframe"}

    new = everything(root) - before
    assert before <= everything(root)
    assert {path.split(b"/")[0] for path in new} == {b"runs", b"deep", b"report"}
    assert len([path for path in new if path.startswith(b"deep/er/") and b"/." not in path]) == len(written)
    assert {path.split(b"/")[1] for path in new if path.startswith(b"deep/")} == {b"er"}
    listed = set(run("ls", place)["outputs"].values())
    markers = {path for path in new if path.endswith(b"/marker.json")}
    assert {f"{root}/{path.decode()}".removesuffix("/marker.json") for path in markers} == listed
    assert clips in listed
    run("gc", place, "--keep", scores, "--older-than", "0")
    left = everything(root)
    assert {path for path in before | new if not path.startswith(b"runs/")} <= left
    assert set(run("ls", place)["outputs"].values()) < listed


@pytest.mark.parametrize("dataset", ["..", ".a/b\nc 50%2F ", "x" * 300])
def test_a_folder_of_odd_files_is_ingested_whole_under_any_name(ray_session: None, root: str, dataset: str) -> None:
    source, sounds = f"{root}/night", recordings()
    names = [name.encode() for name in islice(parts(len(dataset), root), 20)]
    odd = [name for name in ODD_FILES if not store.is_remote(root) or b"\xff" not in name]
    for name in [*names, *odd, b".hidden.wav"]:
        put(source, name, next(sounds))
    before = everything(root)
    options = ["--layout", "flat", "--machine-type", dataset, "--split", "train", "--dataset", dataset]
    made = run("ingest", source, "--out", f"{root}/runs", *options)
    good = [*names, *(name for name in odd if name.endswith(b".wav") and b"\xff" not in name)]
    assert made["counts"]["clips"] == len(good)
    assert made["counts"]["rejects"] == len(odd) + len(names) - len(good)
    output = build.resolve(made["outputs"]["clips"], "ingest")
    assert sorted(output.table(Folder.CLIPS)["clip_id"].to_pylist()) == sorted(f"{dataset}/{n.decode()}" for n in good)
    assert {path.split(b"/")[0] for path in everything(root) - before} == {b"runs"}
    assert list(run("ls", f"{root}/runs")["outputs"].values()) == [output.uri]
    assert run("ingest", source, "--out", f"{root}/runs", *options)["reused"]

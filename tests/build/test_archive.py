"""What lies below a root, where it came from, and what can go."""

import time

import pytest

from ray_asd import build, store
from ray_asd.build import archive
from ray_asd.errors import StageError, UserError
from s3_faults import failing


def stage(root: str, stage: str, name: str, **inputs: build.Source) -> build.Output:
    key = build.Key(stage=stage, name=name, code_version=1, config={}, inputs=inputs)
    return build.run(root, key, lambda attempt: build.Outcome([attempt.put("a", name.encode())], {}))


def test_nothing_is_there_yet(root: str) -> None:
    assert archive.outputs(root) == []
    assert archive.leftovers(root, [], 0) == []


def test_outputs_are_listed_in_the_order_they_were_begun(root: str) -> None:
    made = [stage(root, *names) for names in (("train", "z"), ("ingest", "b"), ("ingest", "a"))]
    store.write(store.join(root, "status", "train-1.json"), b"{}")
    store.write(store.join(root, "train", "unfinished-0123456789ab", "attempt-1", "a"), b"1")
    store.write(store.join(root, "README"), b"mine")
    store.write(store.join(root, "photos", "holiday", "marker.json"), b"mine too")
    assert [output.uri for output in archive.outputs(root)] == [output.uri for output in made]


def test_whatever_a_stage_is_called_it_is_listed_found_again_and_cleared_away(root: str) -> None:
    """Two dots, slashes, a leading dot, line breaks, percent signs, 300 letters: no folder is hidden or elsewhere."""
    above = store.join(root, "above", "root")
    names = ["..", ".hidden", "../../x", "a/b", "two\nlines", "100%", "50%2F", "y" * 300, "ends. ", "*?[a]", "-"]
    made = [stage(above, "ingest", name) for name in names]
    assert store.folders(root) == ["above"]
    assert store.folders(above) == ["ingest"]
    assert [output.uri for output in archive.outputs(above)] == [output.uri for output in made]
    assert [output.marker.name for output in archive.outputs(above)] == names
    for name, output in zip(names, made, strict=True):
        assert [found.uri for found in archive.newest_first(store.join(above, "ingest"), name)] == [output.uri]
    found = archive.leftovers(above, [made[0].uri], 0)
    assert {leftover.uri for leftover in found} == {output.uri for output in made[1:]}
    for leftover in found:
        archive.remove(leftover)
    assert [output.uri for output in archive.outputs(above)] == [made[0].uri]


def test_find(root: str) -> None:
    output = stage(root, "train", "a")
    assert archive.find(f"{output.uri}/").marker == output.marker
    with pytest.raises(UserError, match=rf"^{root}/train holds no finished stage .*; allowed: a URI that `ls` prints$"):
        archive.find(f"{root}/train")


def test_lineage_is_each_ancestor_once_nearest_first(root: str) -> None:
    recordings = build.Source(digest="r", uri=store.join(root, "recordings"))
    clips = stage(root, "ingest", "clips", recordings=recordings)
    augmented = stage(root, "augment", "augmented", clips=clips.source)
    model = stage(root, "train", "model", clips=clips.source, training_set=augmented.source)
    stage(root, "train", "other", clips=clips.source)
    scores = stage(root, "score", "scores", model=model.source, clips=clips.source)
    assert [output.marker.name for output in archive.lineage(scores)] == ["scores", "model", "clips", "augmented"]


def test_lineage_ends_where_a_bucket_is_gone(s3: str, root: str) -> None:
    gone = build.Source(digest="r", uri="s3://a-bucket-of-last-year/recordings")
    clips = stage(root, "ingest", "clips", recordings=gone)
    assert archive.lineage(clips) == [clips]


@pytest.fixture
def tree(root: str) -> dict[str, build.Output]:
    """Two models from one set of clips, and what two killed runs left."""
    clips = stage(root, "ingest", "clips")
    kept = stage(root, "train", "kept", clips=clips.source)
    dropped = stage(root, "train", "dropped", clips=clips.source)
    store.write(store.join(clips.uri, "attempt-lost", "a"), b"1")
    store.write(store.join(root, "photos", "holiday", "a.jpeg"), b"mine")
    store.write(store.join(root, "train", "unfinished-0123456789ab", "checkpoints", "a"), b"1")
    return {"clips": clips, "kept": kept, "dropped": dropped}


def test_what_killed_runs_left_can_go(root: str, tree: dict[str, build.Output]) -> None:
    left = archive.leftovers(root, [], older_than=-5)
    assert [place.uri for place in left] == [
        f"{tree['clips'].uri}/attempt-lost",
        f"{root}/train/unfinished-0123456789ab/checkpoints",
    ]
    assert {place.why for place in left} == {"left by a run that ended before its commit"}
    for place in left:
        archive.remove(place)
    assert archive.leftovers(root, [], older_than=-5) == []
    assert [output.read("a") for output in archive.outputs(root)] == [b"clips", b"kept", b"dropped"]


def parts_of_two_tries(root: str) -> build.Output:
    """A resumable stage whose run was killed after its commit, and which another run had begun otherwise."""

    def work(attempt: build.Attempt) -> build.Outcome:
        attempt.put("clips/0.parquet", b"of another try")
        return build.Outcome([attempt.put("clips/0.parquet", b"counts")], {})

    key = build.Key(stage="embed", name="a", code_version=1, config={}, inputs={})
    output = build.run(root, key, work, resumable=True)
    for number in range(2):
        store.write(store.join(output.uri, build.PARTS, build.RECEIPTS, f"{number}.json"), b"{}")
    return output


def test_what_a_marker_does_not_list_can_go(root: str) -> None:
    output = parts_of_two_tries(root)
    (counts,) = output.marker.files
    other, receipts = sorted(archive.leftovers(root, [], older_than=-5), key=lambda place: place.uri)
    assert receipts.uri == f"{output.uri}/parts/receipts"
    assert other.uri.startswith(f"{output.uri}/parts/clips/0-")
    assert other.why == receipts.why == "not listed by its marker"
    assert archive.leftovers(root, [], older_than=3600) == []
    for place in (other, receipts):
        archive.remove(place)
    assert [entry.path for entry in store.listing(f"{output.uri}/parts")] == [counts.path]
    assert archive.leftovers(root, [], older_than=-5) == []


def test_a_removal_that_is_broken_off_leaves_no_marker(bucket: str) -> None:
    output = stage(bucket, "train", "a")
    with failing("go on", "AccessDenied"), pytest.raises(StageError, match="was not deleted"):
        archive.remove(archive.Leftover(output.uri, "not needed by what is kept"))
    assert build.find(output.uri) is None
    assert store.read(output.file_uri("a")) == b"a"
    (left,) = archive.leftovers(bucket, [], older_than=-5)
    assert left.uri == f"{output.uri}/{output.marker.attempt}"


def test_what_nothing_kept_needs_can_go(root: str, tree: dict[str, build.Output]) -> None:
    left = archive.leftovers(root, [f"{tree['kept'].uri}/"], older_than=-5)
    assert {place.uri: place.why for place in left} == {
        f"{tree['clips'].uri}/attempt-lost": "left by a run that ended before its commit",
        tree["dropped"].uri: "not needed by what is kept",
        f"{root}/train/unfinished-0123456789ab/checkpoints": "left by a run that ended before its commit",
    }


def test_young_places_may_belong_to_a_running_job(root: str, tree: dict[str, build.Output]) -> None:
    assert archive.leftovers(root, [tree["kept"].uri], older_than=3600) == []
    time.sleep(3.1)  # object stores tell whole seconds
    young = store.join(root, "train", "unfinished-0123456789ab", "checkpoints")
    store.write(store.join(young, "b"), b"1")
    age = time.time() - store.last_write(young)
    left = archive.leftovers(root, [tree["kept"].uri], older_than=age + 2)
    assert [place.uri for place in left] == [f"{tree['clips'].uri}/attempt-lost", tree["dropped"].uri]


def test_only_what_is_there_can_be_kept(root: str, tree: dict[str, build.Output]) -> None:
    for place in (f"{root}/train/unfinished-0123456789ab", "/elsewhere"):
        with pytest.raises(UserError, match=rf"^--keep {place}: no finished stage below {root}; allowed: a URI that"):
            archive.leftovers(root, [place], older_than=0)

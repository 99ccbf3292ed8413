"""Releasing: a DETECTOR becomes a version of a registry, file by file, and then what is current there."""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ray_asd import build, store
from ray_asd.build import MARKER, Output, archive
from ray_asd.errors import Retryable, StageError, UserError
from ray_asd.stages.detection import detector as detectors
from ray_asd.stages.fleet import checks, registry
from ray_asd.stages.fleet.registry import FILES, RELEASE, Change, Release, Version

_WRITERS = 8


@dataclass(frozen=True)
class Order:
    """Why a detector is released, as its version and the history will tell.

    Args:
        seen: the newest change of the registry when this was decided; another one may not come between.
        metrics: what is known of how good it is.
        compared: with the version that ``seen`` made current.
        forced: although it is worse.
    """

    who: str
    note: str = ""
    seen: Change | None = None
    metrics: Mapping[str, Any] | None = None
    compared: Mapping[str, Any] | None = None
    forced: bool = False


def check(detector: Output) -> None:
    """Return when a detector may be released: its files are what was committed, and it passes its self-test.

    Raises:
        StageError: a file is damaged or missing, or the self-test fails.
        UserError: its format is another one.
    """
    checks.check_files(detector.uri, checks.of_marker(detector))
    checks.self_test(detector)


def add(detector: Output, place: str, order: Order) -> Output:
    """The version of the registry at ``place`` that has the files of ``detector``: one that is there, or a new one.

    A release that was broken off is gone on with. Of two at once that release the same files one names the version,
    and both write the same; a version that is damaged is left as it is and another one made.

    Raises:
        UserError: the store has no conditional writes.
        StageError: what was written there is not what was read.
    """
    content = build.digest_of({file.path: file.sha256 for file in detector.marker.files})
    store.check_conditional_writes(place)
    damaged: set[str] = set()
    while True:
        known = registry.versions(place)
        same = [one for one in known if one.release and one.release.content == content and one.name not in damaged]
        if not same:
            _claim(detector, place, known, order, content)
            continue
        name = same[-1].name
        if same[-1].detector is None:
            _fill(detector, place, name)
        try:
            return registry.found(place, name)
        except Retryable:
            raise
        except StageError:
            damaged.add(name)


def _claim(detector: Output, place: str, known: Sequence[Version], order: Order, content: str) -> None:
    """Write the record of the next version, unless another process is faster, as the next look will tell."""
    name = f"v{max((int(one.name[1:]) for one in known if one.is_claimed), default=0) + 1}"
    release = Release(
        version=name,
        who=order.who,
        note=order.note,
        content=content,
        source=detector.uri,
        metrics=dict(order.metrics) if order.metrics else None,
        provenance=_provenance(detector),
    )
    store.create(store.join(registry.folder_of(place, name), RELEASE), release.model_dump_json(indent=1).encode())


def make_current(version: Output, place: str, order: Order) -> Change | None:
    """Switch the registry to one of its versions; None where that is current already.

    Raises:
        Retryable: another change came between, after which this may be decided otherwise.
    """
    before = order.seen.version if order.seen else None
    name = store.name(version.uri)
    if before == name:
        return None
    change = Change(
        version=name,
        who=order.who,
        note=order.note,
        number=order.seen.number + 1 if order.seen else 1,
        action="release",
        before=before,
        forced=order.forced,
        compared=dict(order.compared) if order.compared else None,
    )
    if not registry.switch(place, change):
        raise Retryable(f"{place}: {registry.told(registry.newest(place))} meanwhile; {name} is not current; try again")
    return change


def _fill(detector: Output, place: str, name: str) -> None:
    """Write all files of a version whose number is claimed; its marker last."""
    folder = registry.folder_of(place, name)

    def copy(path: str) -> None:
        store.upload(detector.fetch(path), store.join(folder, FILES, path))

    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(copy, (file.path for file in detector.marker.files)))
    record = store.read(store.join(folder, RELEASE))
    release = {detectors.VERSION: name, detectors.RELEASE: Release.model_validate_json(record).id}
    summary = detector.marker.summary | release
    marker = detector.marker.model_copy(update={"attempt": FILES, "summary": summary})
    written = {MARKER: marker.model_dump_json(indent=1).encode(), RELEASE: record}
    sums = checks.of_marker(Output(folder, marker))
    sums |= {path: hashlib.sha256(content).hexdigest() for path, content in written.items()}
    store.write(store.join(folder, checks.SUMS), checks.listed(sums))
    store.create(store.join(folder, MARKER), written[MARKER])


def _provenance(detector: Output) -> dict[str, Any]:
    """What a detector was made of and with, which is told even where that is not there any more."""
    card, marker = detectors.read(detector), detector.marker
    return {
        "system": card.system,
        "seed": card.seed,
        "digest": marker.digest,
        "members": [member.model_dump(mode="json", include={"method", "system", "digest"}) for member in card.members],
        "sources": card.sources,
        "counts": marker.counts,
        "learning": sorted(marker.summary.get("learning", {})),
        "enrolled": marker.started_at.isoformat(),
        "made_with": marker.versions,
        "made_from": [
            output.marker.model_dump(include={"stage", "name", "digest"}) | {"uri": output.uri}
            for output in archive.lineage(detector)[1:]
        ],
    }


def figures(metrics: Output, detector: Output) -> dict[str, Any]:
    """What METRICS say of a detector.

    Raises:
        UserError: they are not of scores that it gave.
    """
    from ray_asd.stages.comparison import evaluate

    for system, scores in evaluate.systems(metrics):
        if scores.marker.inputs["detector"].digest == detector.marker.content:
            seed = scores.marker.summary["seed"]
            for row in metrics.marker.summary["systems"]:
                if (row["system"], row["seed"]) == (system, seed):
                    return {"uri": metrics.uri, **row}
    raise UserError(f"--metrics {metrics.uri}: nothing of what {detector.uri} scores; allowed: METRICS of its SCORES")

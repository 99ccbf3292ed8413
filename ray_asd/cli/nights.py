"""What is told of a night: what was made, what somebody should know of it, and why it is not good enough to act on."""

from collections.abc import Callable, Iterator
from datetime import date
from typing import TYPE_CHECKING, Any

from ray_asd import store
from ray_asd.cli.console import Result
from ray_asd.cli.detection import most_unscored
from ray_asd.errors import StageError, UserError

if TYPE_CHECKING:
    from ray_asd.stages.fleet.manifests import Night
    from ray_asd.stages.fleet.nightly import Ended
    from ray_asd.stages.fleet.revisions import Fleet

_MOST_TOLD = 10  # machines by name


def told(fleet: "Fleet", asked: date, ended: "Ended") -> Iterator[str]:
    """What a run made, and what somebody should know of the night."""
    for one in ended.others:
        yield f"night {one.night}: revision {one.revision}, {one.counts['clips']} clips with the late ones"
    last = ended.night
    if last is None:
        return
    counts = last.counts
    yield (
        f"night {asked}: revision {last.revision} by {last.version or last.detector}: {counts['scored']} of "
        f"{counts['clips']} clips scored, {counts['alarms']} of {counts['machines']} machines alarm"
    )
    from ray_asd.stages.fleet import manifests

    found = manifests.output(fleet.uri, last).marker.summary
    yield found["could_alarm"]
    for what, of_machines in (
        ("unknown", found["unknown"]),
        ("learning", found["learning"]),
        ("repeated", found["repeated"]),
    ):
        yield from _lines(what, of_machines)
    yield from missed(fleet.uri, last)


def missed(root: str, last: "Night") -> Iterator[str]:
    """The machines that were not heard."""
    from ray_asd.stages.fleet import manifests

    silent = manifests.output(root, last).marker.summary["silent"]
    yield from _lines("silent", {machine: f"last heard on {night}" for machine, night in silent.items()})


def _lines(what: str, of_machines: dict[str, Any]) -> Iterator[str]:
    names = list(of_machines)
    for name in names[:_MOST_TOLD]:
        yield f"{what}: {name}: {of_machines[name]}"
    if len(names) > _MOST_TOLD:
        yield f"{what}: {len(names) - _MOST_TOLD} more"


def note(result: Result, fleet: "Fleet", last: "Night") -> None:
    """Where the night is, and its counts."""
    from ray_asd.stages.fleet import manifests
    from ray_asd.store import ledger

    folder = manifests.folder_of(fleet.uri, last.night)
    result.outputs = {
        "night": store.join(fleet.uri, last.output),
        "manifest": ledger.path(folder, last.revision),
        "latest": store.join(fleet.uri, manifests.LATEST),
    }
    if store.exists(page := page_of(fleet, last)):
        result.outputs["page"] = page
    result.counts = last.counts


def events(fleet: "Fleet", url: str | None) -> "Callable[[Night], Iterator[str]]":
    """What sends the events of alerts to ``url``, once a night is done, and tells of it.

    Raises:
        UserError: that is no URL of HTTP, or there is no secret in the variable of that.
    """
    if not url:
        return lambda last: iter(())
    from ray_asd.stages.fleet import alerting, webhook

    to, secret = webhook.receiver(url), webhook.secret()

    def send(last: "Night") -> Iterator[str]:
        page = page_of(fleet, last)
        shown = page if store.exists(page) else None
        done = webhook.deliver(fleet.uri, url, secret, alerting.current(fleet.uri), shown)
        if done.sent:
            yield f"webhook: {done.sent} event(s) sent to {to.name}"
        if done.failed or done.waiting:
            yield f"webhook: {done.failed + done.waiting} event(s) are sent by the next run: {done.why}"

    return send


def pages(fleet: "Fleet", ended: "Ended") -> Iterator[str]:
    """Write the morning page of each night that was made, and of one whose page is missing; tells what could not be."""
    from ray_asd.cli import morning

    for one in filter(None, [*ended.others, ended.night]):
        if ended.reused and store.exists(page_of(fleet, one)):
            continue
        try:
            morning.write(fleet.uri, one.night)
        except (UserError, StageError, OSError) as error:
            yield f"no page of night {one.night}: {error}; `ray-asd morning {fleet.uri}` writes it"


def page_of(fleet: "Fleet", last: "Night") -> str:
    """Where the morning page of a night is."""
    from ray_asd.cli import morning

    return store.join(fleet.uri, morning.PAGES, f"{last.night}.html")


def gate(
    last: "Night",
    max_unscored: str | None,
    max_rejects: int | None,
    max_silent: int | None,
    **others: Any,
) -> str | None:
    """Why the night is not good enough to act on, where it is not."""
    counts, which = last.counts, f"night {last.night}"
    allowed = most_unscored(max_unscored, counts["clips"])
    if not counts["clips"]:
        rejected = f"; {counts['rejects']} files were rejected" if counts.get("rejects") else ""
        return f"{which} has no recordings{rejected}"
    if not counts["scored"]:
        why = sorted(name.removeprefix("unscored_") for name in counts if name.startswith("unscored_"))
        return f"{which}: none of {counts['clips']} clips could be scored: {', '.join(why)}; UNSCORED says why"
    if allowed is not None and counts["unscored"] > allowed:
        return f"{which}: {counts['unscored']} clips could not be scored; --max-unscored allows {allowed}"
    if max_rejects is not None and counts.get("rejects", 0) > max_rejects:
        return f"{which}: {counts['rejects']} files were rejected; --max-rejects allows {max_rejects}"
    if max_silent is not None and counts["silent"] > max_silent:
        return f"{which}: {counts['silent']} machines were not heard; --max-silent allows {max_silent}"
    return None

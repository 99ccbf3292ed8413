"""Alerts of a fleet: what people look at in the morning, and what they do with it."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import click

from ray_asd import store
from ray_asd.cli.app import command, existing, json_option
from ray_asd.cli.console import Result, summary
from ray_asd.errors import UserError

if TYPE_CHECKING:
    from ray_asd.scoring.alerts import Alert

_ACTIONS = ("list", "show", "ack", "snooze", "resolve", "feedback")
_STATES = ("open", "acknowledged", "snoozed", "resolved")
_VERDICTS = ("real", "false", "maintenance")
_ONLY_OF = {"until": "snooze", "verdict": "resolve", "states": "list", "root": "feedback"}


@command("alerts s3://plant/fleet resolve 20261125-0123456789 --verdict real --note 'bearing replaced'")
@click.argument("fleet", metavar="FLEET")
@click.argument(
    "action", type=click.Choice(_ACTIONS), default="list", metavar="[list|show|ack|snooze|resolve|feedback]"
)
@click.argument("alert_ids", nargs=-1, metavar="[ID]...")
@click.option("--state", "states", type=click.Choice(_STATES), multiple=True, help="List: by default all not resolved.")
@click.option("--until", metavar="DATE", help="Snooze: the last night on which nothing is heard of it.")
@click.option("--verdict", type=click.Choice(_VERDICTS), help="Resolve: what it was.")
@click.option("--out", "root", metavar="ROOT", help="Feedback: where CLIPS of false ones are kept, by default FLEET.")
@click.option("--note", default="", help="Why, for whoever reads it next.")
@click.option("--by", "who", metavar="NAME", help="Who does it; by default USER@HOST.")
@json_option
def alerts(fleet: str, action: str, alert_ids: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """List the alerts of FLEET, most urgent first, and say what becomes of them.

    `feedback` makes CLIPS of those resolved as false (or of those named), for `enroll --detector D --add CLIPS`.
    """
    with summary("alerts", None, as_json) as result:
        for name, own in _ONLY_OF.items():
            if options[name] and action != own:
                shown = {"states": "state", "root": "out"}.get(name, name)
                raise UserError(f"--{shown} goes with {own}, not with {action}; allowed: alerts FLEET {own} ...")
        fleet = _fleet(fleet)
        if action == "list":
            _list(result, fleet, alert_ids, options["states"], as_json)
        elif action == "show":
            _show(result, fleet, _named(alert_ids, action), as_json)
        elif action == "feedback":
            _feedback(result, fleet, alert_ids, options["root"])
        else:
            _change(result, fleet, action, _named(alert_ids, action), **options)


def _fleet(uri: str) -> str:
    from ray_asd.stages.fleet import alerting, manifests

    place = existing(uri)
    if not any(store.is_folder(store.join(place, folder)) for folder in (manifests.NIGHTS, alerting.ALERTS)):
        raise UserError(f"{place} holds no fleet (no {manifests.NIGHTS}/); allowed: what `nightly --out` was given")
    return place


def _named(alert_ids: Sequence[str], action: str) -> Sequence[str]:
    if not alert_ids:
        raise UserError(f"{action} of which alert? allowed: ids that `ray-asd alerts FLEET` lists")
    return alert_ids


def _list(result: Result, fleet: str, alert_ids: Sequence[str], states: Sequence[str], as_json: bool) -> None:
    from ray_asd.stages.fleet import alerting

    if alert_ids:
        raise UserError(f"list {alert_ids[0]}: that is one alert; allowed: show {alert_ids[0]}")
    known = alerting.current(fleet)
    wanted = [alert for alert in known if alert.state in (states or _STATES[:-1])]
    result.counts = Counter(alert.state for alert in known)
    _tell(result, fleet, wanted, as_json)
    if not wanted and not as_json:
        click.echo(f"no alerts that are {' or '.join(states or _STATES[:-1])}", err=True)


def _tell(result: Result, fleet: str, wanted: "Sequence[Alert]", as_json: bool) -> None:
    from ray_asd.stages.fleet import alerting

    result.rows = alerting.rows(wanted)
    if as_json:
        result.outputs["alerts"] = store.join(fleet, alerting.TABLE)
        return
    for alert in wanted:
        click.echo(_line(alert))


def _line(alert: "Alert") -> str:
    from ray_asd.stages.fleet.hearing_of_night import label

    more = f" ({alert.verdict})" if alert.verdict else f" until {alert.snoozed_until}" if alert.snoozed_until else ""
    nights = f"{alert.count} night{'s' if alert.count > 1 else ''} from {alert.first_seen} to {alert.last_seen}"
    why = f": {alert.why}" if alert.why else ""
    return (
        f"{alert.alert_id}  {alert.state}{more}  {label(alert.machine)}  severity {alert.severity:.1f}, {nights}{why}"
    )


def _show(result: Result, fleet: str, alert_ids: Sequence[str], as_json: bool) -> None:
    from ray_asd.stages.fleet import alerting

    wanted = alerting.find(alerting.current(fleet), alert_ids)
    result.rows = alerting.rows(wanted)
    if as_json:
        return
    for alert in wanted:
        click.echo(_line(alert))
        if alert.clip_id:
            click.echo(f"    sounds least healthy: {alert.clip_id}")
        for state, then in alerting.history(fleet, alert.alert_id):
            note = f": {then.changed.note}" if then.changed and then.changed.note else ""
            by = f" by {state.who}" if not state.cause.startswith("night ") else ""
            told = note if by else f", severity {then.severity:.1f}"
            click.echo(f"    {state.when:%Y-%m-%d %H:%M}  {state.cause}{by}{told}")


def _change(
    result: Result,
    fleet: str,
    action: str,
    alert_ids: Sequence[str],
    until: str | None,
    verdict: str | None,
    note: str,
    who: str | None,
    **others: Any,
) -> None:
    from ray_asd.scoring.alerts import Change
    from ray_asd.stages.fleet import alerting, registry

    change = Change(who or registry.whoever(), datetime.now(UTC), note)
    act, cause = _action(action, until, verdict, change)
    changed = alerting.change(fleet, alert_ids, act, cause, change.who)
    result.rows, result.outputs = alerting.rows(changed), {"alerts": store.join(fleet, alerting.TABLE)}
    result.counts = Counter(alert.state for alert in changed)
    for alert in changed:
        click.echo(_line(alert), err=True)


def _action(action: str, until: str | None, verdict: str | None, change: Any) -> "tuple[Callable[[Alert], Alert], str]":
    """What is done to each alert, and what it is called."""
    from ray_asd.scoring import alerts as of_alerts

    if action == "ack":
        return lambda alert: of_alerts.acknowledge(alert, change), "acknowledge"
    if action == "snooze":
        last = _date(until)
        return lambda alert: of_alerts.snooze(alert, last, change), f"snooze until {last}"
    if verdict is None:
        raise UserError(f"resolve needs --verdict; allowed: {', '.join(_VERDICTS)}")
    return lambda alert: of_alerts.resolve(alert, verdict, change), f"resolve as {verdict}"


def _date(until: str | None) -> date:
    try:
        return date.fromisoformat(until or "")
    except ValueError:
        wrong = f"--until {until!r} is no date" if until else "snooze needs --until"
        raise UserError(f"{wrong}; allowed: a night such as 2026-11-30") from None


def _feedback(result: Result, fleet: str, alert_ids: Sequence[str], root: str | None) -> None:
    from ray_asd.build import steps
    from ray_asd.stages.fleet import alerting, feedback

    known = alerting.current(fleet)
    named = alerting.find(known, alert_ids) if alert_ids else [one for one in known if one.verdict == "false"]
    output = steps.ensure(feedback.step(fleet, named), store.absolute(root) if root else fleet)
    result.outputs["clips"], result.counts, result.reused = output.uri, output.marker.counts, output.reused
    click.echo(f"to make them healthy: ray-asd enroll --detector REGISTRY --add {output.uri} --out ROOT", err=True)

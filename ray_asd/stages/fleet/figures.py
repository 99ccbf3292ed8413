"""What Prometheus is told of a fleet: how its last night ended, as the fleet's folder says.

Told when a run begins and again when it ends: the cluster of a nightly job is gone soon after, with what it said.
"""

from collections import Counter

from ray_asd.stages.fleet import alerting, manifests

OUTCOMES = {"scored": "scored", "unscored": "unscored", "rejected": "rejects"}  # of recordings, by name of their count
SCOPES = {"fleet": "drift_fleet", "machine": "drift_machines"}  # of notices of drift


def tell(fleet: str) -> None:
    """Tell all of it; nothing before the first night."""
    from ray_asd.engine import telemetry

    last = manifests.last(fleet)
    if last is None:
        return
    telemetry.tell("asd_night_finished", last.when.timestamp(), fleet=fleet)
    for outcome, count in OUTCOMES.items():
        telemetry.tell("asd_night_clips", last.counts.get(count, 0), fleet=fleet, outcome=outcome)
    for scope, count in SCOPES.items():
        telemetry.tell("asd_night_drift", last.counts.get(count, 0), fleet=fleet, scope=scope)
    telemetry.tell("asd_night_silent", last.counts.get("silent", 0), fleet=fleet)
    states = Counter(alert.state for alert in alerting.current(fleet))
    for state in ("open", "acknowledged", "snoozed"):
        telemetry.tell("asd_night_alerts", states[state], fleet=fleet, state=state)

"""What becomes of alerts, told to another program: each event by one POST, exactly once where it is answered.

FLEET/deliveries/20261125-0123456789.opened.json   the receipt of an event that was answered with 2xx
                 since.json                        alerts that were over before anybody was told of any

What an alert has no receipt of is sent, whichever run comes to it; so a run that is killed, or whose receiver is down,
leaves to the next one what it could not send. A lease lets one process send at a time. An event is repeated under its
own id where the answer was lost, or the process died before it wrote the receipt.

Requests are those of Standard Webhooks (standardwebhooks.com), with the headers ``webhook-id``, ``webhook-timestamp``
and, where there is a secret, ``webhook-signature``: ``v1,`` and the base64 of the HMAC-SHA256 of ``id.timestamp.body``.
"""

import base64
import binascii
import hashlib
import hmac
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import urlsplit

import requests

from ray_asd import store
from ray_asd.errors import UserError
from ray_asd.scoring.alerts import Alert
from ray_asd.stages.fleet import alerting
from ray_asd.store import lease

DELIVERIES, SINCE = "deliveries", "since.json"
SECRET_VARIABLE = "RAY_ASD_WEBHOOK_SECRET"
PATIENCE = 60.0  # seconds that all events of a run may take
_ANSWER_SECONDS = 10.0  # that one answer may take
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 16.0  # seconds between tries, doubled each time
_LATER = (408, 425, 429)  # statuses below 500 that another try may change
_PREFIX = "whsec_"  # of secrets in base64


@dataclass(frozen=True)
class Event:
    """Something that happened to an alert, which its id names for good."""

    alert: Alert
    what: Literal["opened", "resolved"]

    @property
    def id(self) -> str:
        return f"{self.alert.alert_id}.{self.what}"


@dataclass
class Delivered:
    """How many events were sent, answered with an error, or not answered; the next run sends again what was not.

    ``why`` tells of the first that failed or waits, without anything of the URL but its host.
    """

    sent: int = 0
    failed: int = 0
    waiting: int = 0
    why: str | None = None


@dataclass(frozen=True)
class Receiver:
    """Where events go, and the secret that signs them."""

    url: str
    secret: bytes | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """What may be shown of it: paths of such URLs hold keys."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def receiver(url: str, secret: bytes | None = None) -> Receiver:
    """The receiver at ``url``.

    Raises:
        UserError: it is no URL of HTTP.
    """
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port)
    except ValueError:  # of the port or an IPv6 address
        known = False
    if not known:
        raise UserError("webhook: no URL that events could be sent to; allowed: https://HOST/PATH or http://HOST/PATH")
    return Receiver(url, secret)


def secret() -> bytes | None:
    """What the environment says to sign with; None where it says nothing.

    Raises:
        UserError: it begins like a secret in base64, and is none.
    """
    text = os.environ.get(SECRET_VARIABLE, "")
    if not text.startswith(_PREFIX):
        return text.encode() or None
    try:
        return base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except binascii.Error as error:
        raise UserError(
            f"{SECRET_VARIABLE} begins with {_PREFIX}; allowed: base64 behind that, or other text"
        ) from error


def signature(key: bytes, event_id: str, timestamp: str, body: bytes) -> str:
    """Of a request, as its header has it."""
    digest = hmac.new(key, f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def deliver(
    fleet: str, url: str, secret: bytes | None, alerts: Sequence[Alert], page: str | None, patience: float = PATIENCE
) -> Delivered:
    """Send what was not sent yet, within ``patience`` seconds.

    Raises:
        UserError: ``url`` is none of HTTP.
    """
    to, folder, deadline = receiver(url, secret), store.join(fleet, DELIVERIES), time.monotonic() + patience
    if not _unsent(folder, alerts):
        return Delivered()

    def finished() -> bool:
        return time.monotonic() > deadline or not _unsent(folder, alerts)

    held = lease.take(store.join(folder, "lease"), finished)
    if held is None:
        return Delivered(waiting=len(_unsent(folder, alerts)), why="another process sends events")
    with held:
        return _Sending(folder, to, page, deadline).all(_unsent(folder, alerts))


def _unsent(folder: str, alerts: Sequence[Alert]) -> list[Event]:
    """Events without a receipt, in the order in which they are to arrive."""
    receipts = {name.removesuffix(".json") for name in store.files(folder)}
    before = _over_before(folder, alerts)
    events = [Event(alert, "opened") for alert in alerts if alert.alert_id not in before]
    events += [Event(event.alert, "resolved") for event in events if event.alert.state == "resolved"]
    return [event for event in events if event.id not in receipts]


def _over_before(folder: str, alerts: Sequence[Alert]) -> set[str]:
    """Alerts that were resolved before the first delivery of a fleet: nobody has to be told of them."""
    place = store.join(folder, SINCE)
    if not store.exists(place):
        over = [alert.alert_id for alert in alerts if alert.state == "resolved"]
        store.create(place, _json({"unique": uuid.uuid4().hex, "when": _now(), "over": over}))
    return set(json.loads(store.read(place))["over"])


class _Sending:
    """Of events to one receiver, until a deadline of the monotonic clock."""

    def __init__(self, folder: str, to: Receiver, page: str | None, deadline: float) -> None:
        self._folder, self._to, self._page, self._deadline = folder, to, page, deadline
        self._refused: set[str] = set()  # alerts of which something was answered with an error for good

    def all(self, events: Sequence[Event]) -> Delivered:
        done, left, pause = Delivered(), list(events), _FIRST_PAUSE
        while left:
            left = list(self._tried(left, done))
            if not left or time.monotonic() + pause > self._deadline:
                break
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        done.waiting += len(left)
        return done

    def _tried(self, events: Sequence[Event], done: Delivered) -> Iterator[Event]:
        """Each event once; yields those to be tried again: all from one on to which nobody answered."""
        held_back: set[str] = set()  # alerts of which nobody knows yet that they were opened
        is_there = True
        for event in events:
            if event.alert.alert_id in self._refused:
                done.waiting += 1
                continue
            if not is_there or event.alert.alert_id in held_back or time.monotonic() > self._deadline:
                yield event
                continue
            status = self._post(event)
            if isinstance(status, int) and 200 <= status < 300:
                self._receipt(event, status)
                done.sent += 1
                continue
            said = f"status {status}" if isinstance(status, int) else status
            done.why = done.why or f"{self._to.name}: {said} to {event.id}"
            is_there = isinstance(status, int)
            if isinstance(status, int) and status < 500 and status not in _LATER:
                done.failed += 1
                self._refused.add(event.alert.alert_id)
            else:
                held_back.add(event.alert.alert_id)
                yield event

    def _post(self, event: Event) -> int | str:
        """The status of the answer, or why there is none; in a thread, for a timeout of a socket bounds no request."""
        found: list[int | str] = []
        body = _json({"type": f"alert.{event.what}", "timestamp": _now(), "data": self._data(event)})
        timestamp = str(int(time.time()))
        headers = {"content-type": "application/json", "webhook-id": event.id, "webhook-timestamp": timestamp}
        if self._to.secret:
            headers["webhook-signature"] = signature(self._to.secret, event.id, timestamp, body)
        seconds = min(_ANSWER_SECONDS, self._deadline - time.monotonic())

        def post() -> None:
            try:
                answer = requests.post(
                    self._to.url,
                    data=body,
                    headers=headers,
                    timeout=max(seconds, 0.1),
                    allow_redirects=False,
                    stream=True,
                )
                answer.close()
                found.append(answer.status_code)
            except requests.RequestException as error:  # whose words repeat the URL
                found.append(_kind(error))

        thread = threading.Thread(target=post, name="webhook", daemon=True)
        thread.start()
        thread.join(max(seconds, 0.1))
        return found[0] if found else f"no answer within {seconds:.0f} s"

    def _data(self, event: Event) -> dict[str, Any]:
        (row,) = alerting.rows([event.alert])
        return {"alert": row, "page": self._page}

    def _receipt(self, event: Event, status: int) -> None:
        told = {"id": event.id, "unique": uuid.uuid4().hex, "when": _now(), "to": self._to.name, "status": status}
        store.create(store.join(self._folder, f"{event.id}.json"), _json(told))


def _kind(error: requests.RequestException) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return "no trusted certificate"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return type(error).__name__


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

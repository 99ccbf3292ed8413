"""Make a RayJob of what a RayCronJob describes and follow it to its end.

    python start.py RAYCRONJOB RAYJOB

Exit codes: 0 it succeeded, 1 it failed or was refused, 75 Kubernetes has not answered for ten minutes. A RayJob that is
there already is followed, so that the pod that comes after a lost one starts no second night.
"""

import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import requests

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
ENDED = ("Complete", "Failed", "ValidationFailed")
POLL_SECONDS, PATIENCE_SECONDS = 15.0, 600.0
FAILED, TRY_AGAIN = 1, 75
CONFLICT, SERVER_ERROR = 409, 500

log = logging.getLogger("start")


class Kubernetes:
    """The objects of ray.io in a namespace, as this pod's account may see them."""

    def __init__(self, server: str, namespace: str, account: Path = ACCOUNT) -> None:
        self._objects = f"{server}/apis/ray.io/v1/namespaces/{namespace}"
        self._account = account

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """Raises ``requests.RequestException``, as does ``create``."""
        return self._ask("GET", f"{kind}/{name}")

    def create(self, kind: str, described: dict[str, Any]) -> dict[str, Any]:
        """The new object, or the one that has its name already."""
        try:
            return self._ask("POST", kind, described)
        except requests.HTTPError as error:
            if _status(error) != CONFLICT:
                raise
            return self.get(kind, described["metadata"]["name"])

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Asked again for ten minutes where nobody answers, or the server says that it cannot just now."""
        begun = time.monotonic()
        while True:
            try:
                return self._answer(method, path, body)
            except requests.RequestException as error:
                if _status(error) < SERVER_ERROR or time.monotonic() > begun + PATIENCE_SECONDS:
                    raise
                log.warning("no answer from Kubernetes: %s", error)
            time.sleep(POLL_SECONDS)

    def _answer(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        token = (self._account / "token").read_text()  # each time, since Kubernetes replaces it
        headers = {"Authorization": f"Bearer {token}"}
        url, authority = f"{self._objects}/{path}", str(self._account / "ca.crt")
        answer = requests.request(method, url, json=body, headers=headers, verify=authority, timeout=30)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found


def run(kubernetes: Kubernetes, described: str, name: str) -> int:
    """Start the RayJob ``name`` and tell each change of its state until it ends; returns the exit code."""
    template = kubernetes.get("raycronjobs", described)["spec"]["jobTemplate"]
    job = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": name}, "spec": template}
    kubernetes.create("rayjobs", job)
    told = ""
    while True:
        status = kubernetes.get("rayjobs", name).get("status") or {}
        deployment, outcome = status.get("jobDeploymentStatus") or "New", status.get("jobStatus") or "-"
        state = f"{name}: {deployment}, {outcome} {status.get('message') or ''}".rstrip()
        if state != told:
            log.info(state)
            told = state
        if deployment in ENDED:
            return 0 if (deployment, outcome) == ("Complete", "SUCCEEDED") else FAILED
        time.sleep(POLL_SECONDS)


def main(arguments: list[str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    kubernetes = Kubernetes("https://kubernetes.default.svc", os.environ["NAMESPACE"])
    try:
        return run(kubernetes, *arguments)
    except requests.RequestException as error:
        log.error("%s", error)
        return FAILED if _status(error) < SERVER_ERROR else TRY_AGAIN


def _status(error: requests.RequestException) -> int:
    """Of the server's answer; where there was none, that of a server that cannot answer."""
    return SERVER_ERROR if error.response is None else error.response.status_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

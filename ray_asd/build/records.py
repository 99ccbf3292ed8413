"""What every run leaves below its root, however it ends: one JSON file under ``status/``, named by what ran and when.

While a run is under way its record says ``running``, and that of one that was killed without a word says so for ever.
"""

import json
import os
import socket
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from ray_asd import store
from ray_asd.errors import redacted

STATUS = "status"


class Record:
    """The record of one run of ``what``, a command or a step, below ``root``; ``moment`` is when it is made."""

    def __init__(self, root: str, what: str, moment: Literal["begun", "failed"] = "begun") -> None:
        now = datetime.now(UTC)
        self.name = f"{store.file_name(what)}-{now:%Y%m%dT%H%M%S.%f}"
        self.uri = store.join(root, STATUS, f"{self.name}.json")
        self._about = {"host": socket.gethostname(), "pid": os.getpid(), moment: f"{now:%Y-%m-%dT%H:%M:%SZ}"}

    def write(self, told: Mapping[str, Any], error: BaseException | None = None) -> None:
        """Write ``told``, and the traceback of ``error``, with those of workers that Ray has put into it.

        Raises:
            UserError, StageError: as ``store.write``.
        """
        traced = {"traceback": "".join(traceback.format_exception(error))} if error else {}
        store.write(self.uri, redacted(json.dumps({**told, **self._about, **traced}, indent=1)).encode())

"""Why there is no Ray to be had, in one line each, in processes of their own: what Ray knows of tokens it keeps."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import ray

_ASKING = """
import json, sys
from ray_asd.engine import connection, joining
from ray_asd.errors import StageError, UserError
import os
joining._ANSWER_SECONDS = 2.0
for address in json.loads(sys.argv[1]):
    os.environ["RAY_ADDRESS"] = address
    try:
        with connection.connected():
            print("joined")
    except (UserError, StageError) as error:
        print(f"{type(error).__name__}: {error}")
"""


def said(addresses: Sequence[str], folder: Path, **variables: str) -> list[str]:
    """What connecting to each of ``addresses`` says, from the working directory ``folder``."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TMPDIR"))}
    environment = clean | {"HOME": str(folder)} | variables
    command = [sys.executable, "-c", _ASKING, json.dumps(addresses)]
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    assert finished.stderr == ""
    return finished.stdout.splitlines()


def test_an_address_of_another_form_is_named(tmp_path: Path) -> None:
    wrong = ["head", "6379", "head:ray", "head:0", "head:70000", ":6379", "redis://head:6379", "AUTO", "head:6379/"]
    lines = said(wrong, tmp_path)
    expected = [
        f"UserError: RAY_ADDRESS={address!r} is not a cluster's own address; allowed: host:" for address in wrong
    ]
    assert [line[: len(start)] for line, start in zip(lines, expected, strict=True)] == expected


def test_what_listens_and_is_no_ray_is_told_from_one(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        (line,) = said([address], tmp_path)
    assert line == f"UserError: RAY_ADDRESS={address!r}: no Ray cluster answers there (nothing was heard for 2 s)"


@pytest.mark.usefixtures("ray_session")
def test_a_cluster_that_does_not_take_the_token_says_so(tmp_path: Path) -> None:
    address = ray.get_runtime_context().gcs_address
    wrong, absent = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}, {"RAY_AUTH_MODE": "token"}
    allowed = (
        "allowed: RAY_AUTH_MODE=token and the cluster's own token in RAY_AUTH_TOKEN or the file RAY_AUTH_TOKEN_PATH"
    )
    refused = f"UserError: RAY_ADDRESS={address!r}: the cluster there does not take this token, or none; {allowed}"
    assert said([address], tmp_path, **wrong) == [refused]
    assert said([address], tmp_path, RAY_AUTH_MODE="disabled") == [refused]
    (line,) = said([address], tmp_path, **absent)
    assert line == f"UserError: RAY_ADDRESS={address!r}: RAY_AUTH_MODE=token, and there is no token; {allowed}"


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_folder_that_ray_cannot_use_is_named_by_its_variable(tmp_path: Path, variable: str) -> None:
    deep = tmp_path / ("a" * 30) / ("b" * 30) / ("c" * 30)
    deep.mkdir(parents=True)
    own = ["", "local", " "]  # ways to say that no cluster is to be joined
    lines = said(own, tmp_path, **{variable: str(deep)})
    assert len(lines) == len(own)
    for line in lines:
        assert line.startswith(
            f"UserError: {variable}={str(deep)!r} is too long for the sockets of Ray; allowed: RAY_TMPDIR"
        )


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    place = Path("/tmp") / f"ray_asd-{os.getpid()}"  # short enough for sockets
    place.touch()
    try:
        (line,) = said([""], tmp_path, RAY_TMPDIR=str(place))
    finally:
        place.unlink()
    assert line.startswith(f"UserError: no Ray could be started below {place}/ray: [Errno 20] Not a directory")


def test_a_working_directory_that_is_gone_is_told(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"import os; os.rmdir({str(gone)!r})\n" + _ASKING
    command = [sys.executable, "-c", script, json.dumps(["", "127.0.0.1:1"])]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    finished = subprocess.run(command, capture_output=True, text=True, env=clean, cwd=gone, check=False)
    line = "UserError: the working directory is gone; allowed: to start from a folder that is there"
    assert finished.stdout.splitlines() == [line] * 2, finished.stderr

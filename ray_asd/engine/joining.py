"""Why there is no Ray to be had, told within seconds by the name of what is wrong: an address, a token, a folder."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import ray
from ray._common.utils import get_default_ray_temp_dir
from ray._private import gcs_utils, services
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc
from ray.exceptions import AuthenticationError, RayError

from ray_asd import store
from ray_asd.engine.one_line import first_line
from ray_asd.errors import Retryable, StageError, UserError

_ANSWER_SECONDS = 10.0  # of a head
_ALLOWED = (
    "allowed: host:port of its head, auto, or none for a Ray of this command's own (jobs/submit.py takes http://)"
)
_TOKENS = "allowed: RAY_AUTH_MODE=token and the cluster's own token in RAY_AUTH_TOKEN or the file RAY_AUTH_TOKEN_PATH"
_SOCKET = "ray/session_2000-01-01_00-00-00_000000_{pid}/sockets/plasma_store"  # below the folder that Ray is given
_LONGEST_SOCKET = 107  # bytes of its path


def check(address: str) -> None:
    """Ask the head of the cluster at ``address`` once: Ray itself would try for a quarter of an hour.

    Raises:
        UserError: the address is of another form or kind, no Ray answers there, it does not take the token, or it is
            of another version.
    """
    _check_working_directory()
    named = f"RAY_ADDRESS={address!r}"
    host, _, port = address.rpartition(":")
    if "/" in address or not (address == "auto" or (host and port.isdigit() and 0 < int(port) < 1 << 16)):
        raise UserError(f"{named} is not a cluster's own address; {_ALLOWED}")
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)  # as ray.init does
        found = services.canonicalize_bootstrap_address(address) if address == "auto" else address
        with gcs_utils.create_gcs_channel(found) as channel:
            asked = gcs_service_pb2.CheckAliveRequest()
            said = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel).CheckAlive(asked, timeout=_ANSWER_SECONDS)
    except grpc.RpcError as error:
        if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            raise UserError(f"{named}: the cluster there does not take this token, or none; {_TOKENS}") from error
        raise UserError(f"{named}: no Ray cluster answers there ({_reason(error)})") from error
    except AuthenticationError as error:
        raise UserError(f"{named}: RAY_AUTH_MODE=token, and there is no token; {_TOKENS}") from error
    except OSError as error:
        raise UserError(f"{named}: no Ray cluster answers there ({error})") from error
    if said.ray_version != ray.__version__:
        raise UserError(f"{named}: the cluster there runs Ray {said.ray_version}; allowed: {ray.__version__}, as here")


@contextmanager
def explained(address: str | None) -> Iterator[None]:
    """While Ray is joined at ``address``, or started here where there is none: its errors in one line.

    Raises:
        UserError: what the user can mend: a folder that is gone, too long or may not be written, the cluster's Python.
        Retryable: there is no room for Ray's folder.
        StageError: anything else.
    """
    _check_working_directory()
    folder = get_default_ray_temp_dir()
    if not address:
        _check_length(folder)
    try:
        yield
    except OSError as error:
        if address:
            raise UserError(f"RAY_ADDRESS={address!r}: no Ray cluster answers there ({error})") from error
        if store.is_to_blame(error):
            raise Retryable(f"no Ray could be started below {folder}: {error}") from error
        raise UserError(f"no Ray could be started below {folder}: {error}; {_folders()}") from error
    except (RayError, RuntimeError, ValueError) as error:
        if address:
            raise UserError(f"RAY_ADDRESS={address!r}: that cluster cannot be joined: {first_line(error)}") from error
        raise StageError(f"no Ray could be started below {folder}: {first_line(error)}") from error


def _check_working_directory() -> None:
    """
    Raises:
        UserError: it is gone; Ray's processes would have none either.
    """
    try:
        os.getcwd()
    except OSError as error:
        raise UserError("the working directory is gone; allowed: to start from a folder that is there") from error


def _check_length(folder: str) -> None:
    """
    Raises:
        UserError: the paths of Ray's sockets would be longer than a socket's may be.
    """
    longest = _LONGEST_SOCKET - len("/" + _SOCKET.format(pid=os.getpid()))
    given = os.path.dirname(folder)
    if len(os.fsencode(given)) > longest:
        named = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
        raise UserError(f"{named}={given!r} is too long for the sockets of Ray; {_folders(longest)}")


def _folders(longest: int | None = None) -> str:
    room = f" of at most {longest} bytes" if longest else ""
    return f"allowed: RAY_TMPDIR, a folder{room} that may be written, such as /tmp"


def _reason(error: grpc.RpcError) -> str:
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"nothing was heard for {_ANSWER_SECONDS:g} s"
    return str(error.details()).rpartition("last error: ")[2]

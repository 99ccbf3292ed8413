"""The object store's client: s3fs, whose failures are mended where that is safe, and else said in one line.

Everything s3fs does passes through one coroutine, so this is the one place that knows the errors of its libraries. A
bucket that does not exist is a mistake here, never an empty folder.
"""

import asyncio
import hashlib
import io
import os
import random
from collections.abc import Sequence
from typing import Any

import s3fs
from aiohttp import ClientError
from botocore.exceptions import (
    BotoCoreError,
    ConfigNotFound,
    ConfigParseError,
    ConnectionError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    InvalidConfigError,
    InvalidIMDSEndpointError,
    MetadataRetrievalError,
    MissingDependencyException,
    NoAuthTokenError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
    UnknownCredentialError,
)
from botocore.parsers import ResponseParserError
from s3fs.core import sync_wrapper

from ray_asd.errors import Forbidden, Retryable, StageError, UserError

CONNECTIONS = 32  # of a process
ATTEMPTS = 10  # where AWS_MAX_ATTEMPTS says nothing
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 20.0  # seconds, as in botocore's standard mode
_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or give the machine a role"
_ALREADY_THERE = "PreconditionFailed"  # of a conditional write; not every store says which condition it was
_CONFLICT = "ConditionalRequestConflict"  # of conditional writes at the same moment: S3 asks to repeat the request
_NO_UPLOAD = "NoSuchUpload"
_NEVER = 501  # the status of what a store has not got
_OVERLOADED = ("InternalError", "ServiceUnavailable", "SlowDown")
# Of a store, or of the service that gives a role its credentials, whose status is below 500 all the same.
_BUSY = {
    *("OperationAborted", "RequestTimeout", "RequestThrottled", "RequestLimitExceeded", "IDPCommunicationError"),
    *("Throttling", "ThrottlingException", "ThrottledException", "TooManyRequestsException"),
}
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired")
_NO_BODY, _NO_RIGHT = "400", "403"  # codes of answers to HEAD, which say no more
_WRONG_TOKEN = "InvalidToken"
_OF_AN_OBJECT = ("get_object", "head_object")
_FORBIDDEN = ("AccessDenied", _NO_RIGHT, "InvalidObjectState")  # the last one: it is archived
# Of botocore, about what variables and configuration files say.
_MISTAKES = (ParamValidationError, NoRegionError, InvalidIMDSEndpointError)
_WRONG_CREDENTIALS = (
    *(PartialCredentialsError, ProfileNotFound, ConfigNotFound, ConfigParseError, InvalidConfigError),
    *(MissingDependencyException, UnknownCredentialError),
)
# Of botocore, which may pass by.
_LOST_CREDENTIALS = (CredentialRetrievalError, MetadataRetrievalError, NoAuthTokenError, TokenRetrievalError, SSOError)
# What reading an answer's body raises; before that botocore has errors of its own.
_BROKEN = (ClientError, ResponseParserError, IncompleteReadError, FlexibleChecksumError)


def client() -> "Client":
    """A client for the endpoint, region, credentials and number of attempts that the AWS variables name."""
    retries: dict[str, Any] = {"mode": "standard"}
    if "AWS_MAX_ATTEMPTS" not in os.environ:
        retries["total_max_attempts"] = ATTEMPTS
    # Listings are not cached: another process may have written since.
    settings = {"retries": retries, "max_pool_connections": CONNECTIONS}
    return Client(use_listings_cache=False, config_kwargs=settings)


class Client(s3fs.S3FileSystem):  # type: ignore[misc]
    """An s3fs file system that raises UserError for what the user can mend, Retryable for a store or credentials
    that fail, StageError where it refuses what it is asked for.

    FileNotFoundError (no such object) and FileExistsError (a refused conditional write) are answers and stay.

    botocore repeats a request until the head of an answer is there. What fails after that is repeated here, by the
    same rule: at most AWS_MAX_ATTEMPTS times, after random and exponentially longer waits. All requests of s3fs can be
    repeated: they put or delete the same thing again, and of a conditional write ``storage.create`` knows its own.

    A role's credentials come from a service that many processes ask at the same time, and botocore calls it "no
    credentials" when that answers none of them; they expire, and a file that holds them is written anew. So credentials
    that are not there or have expired are looked for again, by the same rule.
    """

    retries = 1  # of s3fs itself, which would multiply with botocore's and wait the same time in every process

    async def _call_s3(self, method: str, *arguments: Any, **parameters: Any) -> Any:
        bucket = f"s3://{parameters.get('Bucket', '')}"
        attempt = 1
        while True:
            try:
                return await self._once(bucket, method, *arguments, **parameters)
            except _Unanswered as error:
                if attempt >= self._attempts():
                    tried = f"object storage failed at {method} (attempt {attempt})"
                    raise Retryable(f"{bucket}: {tried}: {_one_line(error)}") from error
            except _NoCredentials as error:
                if attempt >= self._attempts():
                    tried = f"no credentials (attempt {attempt}): {_one_line(error)}"
                    raise Retryable(f"{bucket}: {tried}; {_CREDENTIALS}") from error
                self._s3 = self.session = None  # which keep what they found, and that they found nothing
            await asyncio.sleep(random.random() * min(_FIRST_WAIT * 2 ** (attempt - 1), _LONGEST_WAIT))
            attempt += 1

    def split_path(self, path: str) -> tuple[str, str, None]:
        """Bucket and key, which may hold what s3fs takes for an object's version: none is ever asked for."""
        before, marker, behind = path.partition("?versionId=")
        bucket, key, _ = super().split_path(before)
        return bucket, key + marker + behind, None

    call_s3 = sync_wrapper(_call_s3)  # s3fs's own, which files that are written call, would pass by the above

    def _attempts(self) -> int:
        if self._s3 is None:  # it found no credentials to begin with
            return int(os.environ.get("AWS_MAX_ATTEMPTS", ATTEMPTS))
        return int(self._s3.meta.config.retries["total_max_attempts"])

    async def _once(self, bucket: str, method: str, *arguments: Any, **parameters: Any) -> Any:
        try:
            answer = await super()._call_s3(method, *arguments, **parameters)
            return await self._whole(bucket, method, "Range" in parameters, answer)
        except NoCredentialsError as error:
            if _no_role():
                raise UserError(f"{bucket}: no credentials ({error}); {_CREDENTIALS}") from error
            raise _NoCredentials(str(error)) from error
        except _WRONG_CREDENTIALS as error:
            raise UserError(f"{bucket}: no credentials ({_one_line(error)}); {_CREDENTIALS}") from error
        except _BROKEN as error:
            raise _Unanswered(str(error)) from error
        except (*_MISTAKES, ValueError) as error:
            raise UserError(f"{bucket}: {_one_line(error)}") from error
        except (ConnectionError, HTTPClientError) as error:
            raise Retryable(f"{bucket}: cannot reach object storage: {_one_line(error)}") from error
        except _LOST_CREDENTIALS as error:
            raise _NoCredentials(str(error)) from error
        except BotoCoreError as error:
            raise _Unanswered(str(error)) from error
        except RuntimeError as error:
            if "credentials" not in str(error):
                raise
            raise _NoCredentials(str(error)) from error  # a role's new credentials that had expired before they came
        except FileExistsError:
            raise
        except OSError as error:
            return await self._refused(bucket, method, parameters, error)

    async def _whole(self, bucket: str, method: str, ranged: bool, answer: Any) -> Any:
        """``answer`` once nothing of it can fail any more.

        The body of an object is read here, where the request can be repeated, except that of a large one whose
        request names no range: s3fs closes it unread and asks for ranges.
        """
        if method == "delete_objects" and answer.get("Errors"):
            left = answer["Errors"][0]
            said = f"{left.get('Key')} was not deleted ({left.get('Code')})"
            raise _Unanswered(said) if left.get("Code") in _OVERLOADED else StageError(f"{bucket}: {said}")
        if method != "get_object" or not (ranged or answer.get("ContentLength", 0) <= self.default_block_size):
            return answer
        try:
            return answer | {"Body": _Body(await answer["Body"].read())}
        except HTTPClientError as error:
            raise _Unanswered(str(error)) from error
        finally:
            answer["Body"].close()

    async def _refused(self, bucket: str, method: str, parameters: dict[str, Any], error: OSError) -> Any:
        code, status = _code(error)
        if not code:  # no answer of the store, but of this machine: a file with a role's token, or a connection
            raise _NoCredentials(str(error)) if error.filename else _Unanswered(str(error)) from error
        if code in _EXPIRED:
            raise _NoCredentials(f"{code}: {error}") from error
        if code == _CONFLICT:
            raise _Unanswered(f"{code}: {error}") from error
        if code == _NO_BODY:
            await self._call_s3("list_objects_v2", Bucket=parameters["Bucket"], MaxKeys=1)  # is refused in words
            raise _Unanswered(f"{code}: {error}") from error  # it was not: credentials are new by now
        if code == _ALREADY_THERE:
            raise FileExistsError(bucket) from error
        if code == "NoSuchBucket":
            raise UserError(f"{bucket}: no such bucket") from error
        if code == _NO_UPLOAD and await self._ended_before(method, parameters):
            return {}
        if isinstance(error, FileNotFoundError) and code != _NO_UPLOAD:
            raise error
        if code == _NO_RIGHT:
            await self._call_s3("list_objects_v2", Bucket=parameters["Bucket"], MaxKeys=1)  # as above
        if method in _OF_AN_OBJECT and (code in _FORBIDDEN or code.startswith("KMS.")):
            raise Forbidden(f"{bucket}/{parameters['Key']}: access denied ({code}): {_one_line(error)}") from error
        if isinstance(error, PermissionError) or code == _WRONG_TOKEN:
            raise UserError(f"{bucket}: access denied ({code}): {_one_line(error)}") from error
        kind = Retryable if (status >= 500 and status != _NEVER) or code in _BUSY else StageError
        raise kind(f"{bucket}: object storage failed at {method} ({code}): {_one_line(error)}") from error

    async def _ended_before(self, method: str, parameters: dict[str, Any]) -> bool:
        """Whether a multipart upload that the store does not know (any more) ended as asked, its answer being lost."""
        if method != "complete_multipart_upload":
            return method == "abort_multipart_upload"
        try:
            head = await self._call_s3("head_object", Bucket=parameters["Bucket"], Key=parameters["Key"])
        except FileNotFoundError:
            return False
        return str(head["ETag"]).strip('"') == _etag(parameters["MultipartUpload"]["Parts"])


class _Unanswered(Exception):
    """A request without a whole answer, or one that the store asks to repeat."""


class _NoCredentials(Exception):
    """A request that could not be signed, or whose signature has expired."""


class _Body:
    """What s3fs needs of the body of an answer, with all of it in memory."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    async def read(self, size: int = -1) -> bytes:
        return self._content.read(size)

    def close(self) -> None:
        self._content.close()


def _etag(parts: Sequence[dict[str, Any]]) -> str | None:
    """What S3 calls the object made of ``parts``: the MD5 of their MD5s; None where their etags are something else."""
    try:
        digests = b"".join(bytes.fromhex(part["ETag"].strip('"')) for part in parts)
    except ValueError:
        return None
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"


def _no_role() -> bool:
    """Whether no service is asked for credentials, so that there will be none later either."""
    return os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"


def _code(error: OSError) -> tuple[str, int]:
    """What the store said and the status of its answer; nothing and 0 where it gave none."""
    response = getattr(error.__cause__, "response", {})
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return str(response.get("Error", {}).get("Code", "")), int(status)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())

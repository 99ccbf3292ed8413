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
    ConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.parsers import ResponseParserError
from s3fs.core import sync_wrapper

from ray_asd.errors import StageError, UserError

ATTEMPTS = 10  # where AWS_MAX_ATTEMPTS says nothing
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 20.0  # seconds, as in botocore's standard mode
_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or give the machine a role"
_ALREADY_THERE = "PreconditionFailed"  # of a conditional write; not every store says which condition it was
_CONFLICT = "ConditionalRequestConflict"  # of conditional writes at the same moment: S3 asks to repeat the request
_NO_UPLOAD = "NoSuchUpload"
_OVERLOADED = ("InternalError", "ServiceUnavailable", "SlowDown")
# What reading an answer's body raises; before that botocore has errors of its own.
_BROKEN = (ClientError, ResponseParserError, IncompleteReadError, FlexibleChecksumError)


def client() -> "Client":
    """A client for the endpoint, region, credentials and number of attempts that the AWS variables name."""
    retries: dict[str, Any] = {"mode": "standard"}
    if "AWS_MAX_ATTEMPTS" not in os.environ:
        retries["total_max_attempts"] = ATTEMPTS
    # Listings are not cached: another process may have written since.
    return Client(use_listings_cache=False, config_kwargs={"retries": retries})


class Client(s3fs.S3FileSystem):  # type: ignore[misc]
    """An s3fs file system that raises UserError for what the user can mend, StageError for a store that fails.

    FileNotFoundError (no such object) and FileExistsError (a refused conditional write) are answers and stay.

    botocore repeats a request until the head of an answer is there. What fails after that is repeated here, by the
    same rule: at most AWS_MAX_ATTEMPTS times, after random and exponentially longer waits. All requests of s3fs can be
    repeated: they put or delete the same thing again, and of a conditional write ``storage.create`` knows its own.
    """

    retries = 1  # of s3fs itself, which would multiply with botocore's and wait the same time in every process

    async def _call_s3(self, method: str, *arguments: Any, **parameters: Any) -> Any:
        bucket = f"s3://{parameters.get('Bucket', '')}"
        attempt = 1
        while True:
            try:
                return await self._once(bucket, method, *arguments, **parameters)
            except _Unanswered as error:
                if attempt >= self._s3.meta.config.retries["total_max_attempts"]:
                    tried = f"object storage failed at {method} (attempt {attempt})"
                    raise StageError(f"{bucket}: {tried}: {_one_line(error)}") from error
            await asyncio.sleep(random.random() * min(_FIRST_WAIT * 2 ** (attempt - 1), _LONGEST_WAIT))
            attempt += 1

    call_s3 = sync_wrapper(_call_s3)  # s3fs's own, which files that are written call, would pass by the above

    async def _once(self, bucket: str, method: str, *arguments: Any, **parameters: Any) -> Any:
        try:
            answer = await super()._call_s3(method, *arguments, **parameters)
            return await self._whole(bucket, method, "Range" in parameters, answer)
        except (NoCredentialsError, PartialCredentialsError, ProfileNotFound) as error:
            raise UserError(f"{bucket}: no credentials ({error}); {_CREDENTIALS}") from error
        except _BROKEN as error:
            raise _Unanswered(str(error)) from error
        except (ParamValidationError, ValueError) as error:
            raise UserError(f"{bucket}: {_one_line(error)}") from error
        except (ConnectionError, HTTPClientError) as error:
            raise StageError(f"{bucket}: cannot reach object storage: {_one_line(error)}") from error
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
        code = _code(error)
        if code == _CONFLICT:
            raise _Unanswered(f"{code}: {error}") from error
        if code == _ALREADY_THERE:
            raise FileExistsError(bucket) from error
        if code == "NoSuchBucket":
            raise UserError(f"{bucket}: no such bucket") from error
        if code == _NO_UPLOAD and await self._ended_before(method, parameters):
            return {}
        if isinstance(error, FileNotFoundError) and code != _NO_UPLOAD:
            raise error
        if isinstance(error, PermissionError):
            raise UserError(f"{bucket}: access denied ({code}): {_one_line(error)}") from error
        raise StageError(f"{bucket}: object storage failed at {method} ({code}): {_one_line(error)}") from error

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


def _code(error: OSError) -> str:
    response = getattr(error.__cause__, "response", {})
    return str(response.get("Error", {}).get("Code", ""))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())

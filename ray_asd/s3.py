"""The object store's client: s3fs, whose failures are said in one line.

Everything s3fs does passes through one coroutine, so this is the one place that knows the errors of its libraries. A
bucket that does not exist is a mistake here, never an empty folder.
"""

import os
from typing import Any

import s3fs
from botocore.exceptions import (
    ConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
)

from ray_asd.errors import StageError, UserError

_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or give the machine a role"
_ALREADY_THERE = "PreconditionFailed"  # of a conditional write; not every store says which condition it was
_CONFLICT = "ConditionalRequestConflict"  # of conditional writes at the same moment: S3 asks to repeat the request


def client() -> "Client":
    """A client for the endpoint, region, credentials and number of attempts that the AWS variables name."""
    retries: dict[str, Any] = {"mode": "standard"}
    if "AWS_MAX_ATTEMPTS" not in os.environ:
        retries["total_max_attempts"] = 10
    # Listings are not cached: another process may have written since.
    return Client(use_listings_cache=False, config_kwargs={"retries": retries})


class Client(s3fs.S3FileSystem):  # type: ignore[misc]
    """An s3fs file system that raises UserError for what the user can mend, StageError for a store that fails.

    FileNotFoundError (no such object) and FileExistsError (a refused conditional write) are answers and stay.
    """

    async def _call_s3(self, method: str, *arguments: Any, **parameters: Any) -> Any:
        bucket = f"s3://{parameters.get('Bucket', '')}"
        try:
            return await super()._call_s3(method, *arguments, **parameters)
        except (NoCredentialsError, PartialCredentialsError, ProfileNotFound) as error:
            raise UserError(f"{bucket}: no credentials ({error}); {_CREDENTIALS}") from error
        except (ParamValidationError, ValueError) as error:
            raise UserError(f"{bucket}: {' '.join(str(error).split())}") from error
        except (ConnectionError, HTTPClientError) as error:
            raise StageError(f"{bucket}: cannot reach object storage: {error}") from error
        except FileExistsError:
            raise
        except OSError as error:
            code = _code(error)
            if code == _CONFLICT:
                return await self._call_s3(method, *arguments, **parameters)
            if code == _ALREADY_THERE:
                raise FileExistsError(bucket) from error
            if code == "NoSuchBucket":
                raise UserError(f"{bucket}: no such bucket") from error
            if isinstance(error, FileNotFoundError):
                raise
            if isinstance(error, PermissionError):
                raise UserError(f"{bucket}: access denied ({code}): {error}") from error
            raise StageError(f"{bucket}: object storage failed at {method} ({code}): {error}") from error


def _code(error: OSError) -> str:
    response = getattr(error.__cause__, "response", {})
    return str(response.get("Error", {}).get("Code", ""))

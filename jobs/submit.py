"""Submit a job to a Ray cluster, follow its output, and end with its exit code.

    python jobs/submit.py --address http://head:8265 -- train --recipe paper --clips URI --out s3://bucket/runs

Ray's own ``ray job submit`` turns every failure into exit code 1. The token, where the cluster wants one, comes from
``RAY_AUTH_TOKEN_PATH``. Ctrl-C or SIGTERM stops the job.
"""

import asyncio
import logging
import os
import shlex
import signal
import sys
import time
from pathlib import Path

import aiohttp
import click
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from ray_asd.console import FAILED, REFUSED, complain
from ray_asd.errors import UserError, unknown

JOBS = Path(__file__).parent
POLL_SECONDS = 0.5


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--address", envvar=["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"], help="Of the dashboard; or RAY_ADDRESS.")
@click.option("--working-dir", default=str(JOBS.parent), help="What the job runs in, uploaded; by default this checkout.")
@click.option("--submission-id", help="A name that no other job of the cluster has: the same one twice is refused.")
@click.option("--python", default=sys.executable, help="Absolute path of the interpreter on the cluster.")
@click.option("--env", multiple=True, help="Pass this variable on, repeatable. Whoever sees the job can read its value.")
@click.argument("name")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def submit(
    address: str | None,
    working_dir: str,
    submission_id: str | None,
    python: str,
    env: tuple[str, ...],
    name: str,
    arguments: tuple[str, ...],
) -> int:
    """Run jobs/NAME.py with ARGUMENTS on a Ray cluster."""
    command = _command(python, name, arguments)
    missing = [variable for variable in env if variable not in os.environ]
    if missing:
        raise UserError(f"--env {missing[0]}: no such environment variable here")
    runtime_env = {"working_dir": working_dir, "env_vars": {variable: os.environ[variable] for variable in env}}
    client = _connected(address)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    job = _submitted(client, command, runtime_env, submission_id)
    click.echo(f"job {job}: {command}", err=True)
    try:
        return _exit_code(_followed(client, job))
    except KeyboardInterrupt:
        client.stop_job(job)
        return _exit_code(_ended(client, job))


def _command(python: str, name: str, arguments: tuple[str, ...]) -> str:
    jobs = sorted(path.stem for path in JOBS.glob("*.py") if path != Path(__file__))
    if name not in jobs:
        raise unknown("job", name, jobs)
    if not os.path.isabs(python):
        raise UserError(f"--python {python!r}: an absolute path is needed, since the cluster has a PATH of its own")
    return shlex.join([python, f"{JOBS.name}/{name}.py", *arguments])


def _connected(address: str | None) -> JobSubmissionClient:
    if address:
        os.environ["RAY_API_SERVER_ADDRESS"] = address  # which Ray prefers to any argument
    try:
        return JobSubmissionClient()
    except (ConnectionError, requests.RequestException) as error:
        raise UserError(f"no Ray dashboard answers at {address or 'this machine'}: {error}") from error


def _submitted(
    client: JobSubmissionClient, command: str, runtime_env: dict[str, object], submission_id: str | None
) -> str:
    try:
        return str(client.submit_job(entrypoint=command, runtime_env=runtime_env, submission_id=submission_id))
    except RuntimeError as error:
        if submission_id and "already exists" in str(error):  # Ray answers with a traceback of its server
            raise UserError(f"--submission-id {submission_id!r}: the cluster has had a job of that name") from error
        raise


def _followed(client: JobSubmissionClient, job: str) -> JobDetails:
    """Copy the job's output to stdout until it has ended."""

    async def copy() -> None:
        async for text in client.tail_job_logs(job):
            click.echo(text, nl=False)

    try:
        asyncio.run(copy())
    except (RuntimeError, aiohttp.ClientError) as error:
        click.echo(f"lost the output of job {job} ({error}); waiting for its end", err=True)
    return _ended(client, job)


def _ended(client: JobSubmissionClient, job: str) -> JobDetails:
    while True:
        details = client.get_job_info(job)
        if details.status.is_terminal():
            return details
        time.sleep(POLL_SECONDS)


def _exit_code(details: JobDetails) -> int:
    """The entrypoint's own where it failed by itself, else 1."""
    if details.status == JobStatus.SUCCEEDED:
        return 0
    click.echo(f"job {details.submission_id}: {details.message}", err=True)
    own = details.driver_exit_code or 0
    return own if details.status == JobStatus.FAILED and own > 0 else FAILED


def main() -> None:
    """Entry point: every expected error is one line and an exit code."""
    logging.disable(logging.WARNING)  # Ray tells of every file that it packs
    try:
        code = submit.main(standalone_mode=False)
    except (click.UsageError, UserError) as error:
        message = error.format_message() if isinstance(error, click.UsageError) else str(error)
        code = complain(message, REFUSED)
    except (RuntimeError, ConnectionError, requests.RequestException, AuthenticationError) as error:
        code = complain(str(error), FAILED)
    sys.exit(code)


if __name__ == "__main__":
    main()

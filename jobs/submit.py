"""Submit a job to a Ray cluster, follow its output, and end with its exit code.

    python jobs/submit.py --address http://head:8265 -- train --recipe paper --clips URI --out s3://bucket/runs

Ray's own ``ray job submit`` turns every failure into exit code 1. The token, where the cluster wants one, comes from
``RAY_AUTH_TOKEN_PATH``. Ctrl-C or SIGTERM stops the job. If the cluster falls silent for minutes the exit code is 75.
"""

import asyncio
import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import click
import requests
from ray.exceptions import AuthenticationError, RayError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from ray_asd.cli.console import FAILED, complain, run
from ray_asd.errors import Retryable, StageError, UserError, unknown

JOBS = Path(__file__).resolve().parent
POLL_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 30.0
_NO_ANSWER = (ConnectionError, RuntimeError, RayError, requests.RequestException)
_Answer = TypeVar("_Answer")
_WORKING_DIR = "Uploaded, and what the job runs in: a folder that holds jobs/; by default this checkout."
_ENV = "Pass this environment variable on; repeatable. Whoever may see the cluster's jobs can read its value."


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--address", envvar=["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"], help="Of the dashboard; or RAY_ADDRESS.")
@click.option(
    "--working-dir", type=click.Path(exists=True, file_okay=False), default=str(JOBS.parent), help=_WORKING_DIR
)
@click.option("--submission-id", help="A name that no job of the cluster had yet: a second one is refused.")
@click.option(
    "--python", default=sys.executable, help="The interpreter on the cluster; by default the path of this one."
)
@click.option("--env", "variables", multiple=True, help=_ENV)
@click.option(
    "--patience", type=click.FloatRange(0), default=300.0, show_default=True, help="Seconds with a silent dashboard."
)
@click.argument("name")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def submit(address: str | None, name: str, python: str, arguments: tuple[str, ...], **options: Any) -> int:
    """Run jobs/NAME.py with ARGUMENTS on a Ray cluster."""
    command = _command(python, name, arguments)
    environment = _environment(options["variables"])
    client, patience = _connected(address), float(options["patience"])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        job = _submitted(client, command, options["submission_id"], options["working_dir"], environment)
        click.echo(f"job {job}: {command}", err=True)
        try:
            return _exit_code(_followed(client, job, patience))
        except KeyboardInterrupt:
            _answer(job, lambda: client.stop_job(job), patience)
            return _exit_code(_ended(client, job, patience))
    except _NO_ANSWER as error:
        raise StageError(str(error)) from error


def _environment(variables: tuple[str, ...]) -> dict[str, str]:
    for variable in variables:
        if variable not in os.environ:
            raise UserError(f"--env {variable}: no such environment variable here")
    return {variable: os.environ[variable] for variable in variables}


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
    place = address or "this machine"
    try:
        return JobSubmissionClient()
    except AuthenticationError as error:
        raise UserError(f"{place} refuses the token that RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH give") from error
    except _NO_ANSWER as error:
        raise UserError(f"no Ray dashboard answers at {place}: {error}") from error


def _submitted(
    client: JobSubmissionClient, command: str, submission_id: str | None, folder: str, environment: dict[str, str]
) -> str:
    runtime_env = {"working_dir": folder, "env_vars": environment}
    try:
        return str(client.submit_job(entrypoint=command, runtime_env=runtime_env, submission_id=submission_id))
    except RuntimeError as error:
        if submission_id and "already exists" in str(error):  # within a traceback of Ray's server
            raise UserError(f"--submission-id {submission_id!r}: the cluster has had a job of that name") from error
        raise


def _followed(client: JobSubmissionClient, job: str, patience: float) -> JobDetails:
    """Copy the job's output to stdout until it has ended."""

    async def copy() -> None:
        async for text in client.tail_job_logs(job):
            click.echo(text, nl=False)

    try:
        asyncio.run(copy())
    except (*_NO_ANSWER, aiohttp.ClientError, TimeoutError) as error:
        click.echo(f"lost the output of job {job} ({error}); waiting for its end", err=True)
    return _ended(client, job, patience)


def _ended(client: JobSubmissionClient, job: str, patience: float) -> JobDetails:
    while True:
        details = _answer(job, lambda: client.get_job_info(job), patience)
        if details.status.is_terminal():
            return details
        time.sleep(POLL_SECONDS)


def _answer(job: str, ask: Callable[[], _Answer], patience: float) -> _Answer:
    """What the dashboard says, asked again for a while where it says nothing: the job goes on without it."""
    begun, wait = time.monotonic(), POLL_SECONDS
    while True:
        try:
            return ask()
        except _NO_ANSWER as error:
            if time.monotonic() + wait > begun + patience:
                lost = f"job {job}: the dashboard has not answered for {patience:g} s; the job may still run"
                raise Retryable(f"{lost}: {error}") from error
        time.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT_SECONDS)


def _exit_code(details: JobDetails) -> int:
    """The entrypoint's own where it failed by itself, else 1."""
    if details.status == JobStatus.SUCCEEDED:
        return 0
    own = details.driver_exit_code or 0
    if details.status == JobStatus.FAILED and own > 0:
        return own
    return complain(f"job {details.submission_id} {details.status.lower()}: {details.message}", FAILED)


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # Ray tells of every file that it packs
    run(submit, "submit.py")

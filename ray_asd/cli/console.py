"""What every command shares: its result, told to a person or a machine; progress; the plan of a dry run."""

import errno
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ray_asd import store
from ray_asd.build import Output, events, records, steps
from ray_asd.build.steps import Step
from ray_asd.engine import where
from ray_asd.errors import STOPPED, Retryable, StageError, UserError, redacted

if TYPE_CHECKING:
    from ray_asd.build.estimates import Estimate

FAILED, REFUSED, GATE, TRY_AGAIN = 1, 2, 3, 75  # exit codes; the last one is sysexits' EX_TEMPFAIL
_LOGGED = ("status", "exit_code", "seconds", "counts", "error")  # of what is told at the end
_LINE_SECONDS = 5.0  # between progress lines where stderr is no terminal


@dataclass
class Result:
    """What a command has to show for itself; printed last, and kept as JSON below the root."""

    outputs: dict[str, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    reused: bool = False
    rows: Sequence[Mapping[str, Any]] | None = None  # what was asked for, for `--json` alone
    gate: str | None = None  # why the data is not good enough, where it is not


class Progress:
    """Progress on stderr: one line rewritten on a terminal, else a line every few seconds and at each end."""

    def __init__(self) -> None:
        self._last: tuple[str, float] = ("", 0.0)

    def __call__(self, what: str, done: int, total: int) -> None:
        task, now = what.split("  ")[0], time.monotonic()
        terminal = sys.stderr.isatty()
        due = now - self._last[1] > (0.1 if terminal else _LINE_SECONDS)
        if due or done >= total or task != self._last[0]:
            self._last = (task, now)
            end = "\n" if done >= total or not terminal else ""
            start = "\r\033[K" if terminal else ""
            click.echo(f"{start}{what}: {done}/{total}{end}", err=True, nl=False)


def run(command: click.Command, name: str, arguments: list[str] | None = None) -> NoReturn:
    """Run a command line and exit; every expected error is one line and an exit code.

    What ends before the command has a ``summary`` ends with a summary all the same.
    """
    given = sys.argv[1:] if arguments is None else arguments
    begun = time.monotonic()
    try:
        _check_arguments(given)
        code = command.main(given, prog_name=name, standalone_mode=False)
    except (click.ClickException, click.Abort, UserError, StageError, OSError, KeyboardInterrupt) as error:
        problem, code = _problem(error)
        complain(problem, code)
        if "--json" in given:
            first = next((word for word in given if word in getattr(command, "commands", ())), name)
            status = "refused" if code == REFUSED else "failed"
            click.echo(json.dumps(_told(first, status, Result(), time.monotonic() - begun) | {"error": problem}))
    sys.exit(code or 0)


def _check_arguments(arguments: Sequence[str]) -> None:
    """
    Raises:
        UserError: an argument is not text, whose bytes no table and no other process could be given; or it holds
            credentials, which others could read in the list of processes and in a job's metadata.
    """
    for argument in arguments:
        if redacted(argument) != argument:
            allowed = "allowed: s3://BUCKET/KEY, and credentials from a role or the environment"
            raise UserError(f"an argument is a URL with credentials in it: {redacted(argument)}; {allowed}")
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            shown = os.fsencode(argument)
            allowed = "allowed: UTF-8, in a locale that knows it, such as LC_ALL=C.UTF-8"
            raise UserError(f"an argument is not UTF-8 here: {shown!r}; {allowed}") from error


def _problem(error: BaseException) -> tuple[str, int]:
    """What went wrong in one line, and the exit code for it."""
    said, code = _said(error)
    return redacted(said), code


def _said(error: BaseException) -> tuple[str, int]:
    if isinstance(error, click.ClickException):
        return error.format_message(), REFUSED
    if isinstance(error, UserError):
        return str(error), REFUSED
    if isinstance(error, OSError):
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
        own = FAILED if isinstance(error, FileNotFoundError) else REFUSED
        code = TRY_AGAIN if store.is_to_blame(error) else own
        return f"{what} ({errno.errorcode.get(error.errno or 0, type(error).__name__)})", code
    return str(error) or "interrupted", TRY_AGAIN if isinstance(error, Retryable) else FAILED


def complain(message: str, code: int) -> int:
    """Print one line on stderr; returns ``code``."""
    click.echo(f"ray-asd: {redacted(' '.join(message.split()))}", err=True)
    return code


@contextmanager
def summary(command: str, root: str | None, as_json: bool) -> Iterator[Result]:
    """Collect the block's result; then tell it, keep it as ``<root>/status/<command>-<time>.json`` and end.

    What went wrong is told before the summary, so that this is the last line of a job's log, which is one stream.
    """
    run = _Run(command, root, as_json)
    try:
        with _sigterm_raises(), events.kept(run.log):
            yield run.result
    except BrokenPipeError:  # whoever read it has gone, which click knows
        raise
    except (UserError, StageError, OSError, KeyboardInterrupt) as error:
        problem, code = _problem(error)
        run.end("refused" if code == REFUSED else "failed", code, problem, error)
    except Exception as error:  # noqa: BLE001 - told and kept, or shown, with its traceback
        where = f"; {run.record.uri} has the traceback" if root else ""
        if not root:
            _show_traceback(error)
        run.end("failed", FAILED, redacted(f"{type(error).__name__}: {error}{where}"), error)
    if run.result.gate:
        run.end("gate", GATE, run.result.gate)
    run.end("done")


class _Run:
    """One run of a command: what is told of it at its end, and its record below the root."""

    def __init__(self, command: str, root: str | None, as_json: bool) -> None:
        self.result = Result()
        self.record = records.Record(root or "", command)
        self._command, self._root, self._as_json = command, root, as_json
        self._begun = time.monotonic()
        self.log = events.Log(root or "", self.record.name, command=command, host=socket.gethostname(), pid=os.getpid())
        self._keep("running")

    def end(self, status: str, code: int = 0, problem: str | None = None, error: BaseException | None = None) -> None:
        told = self._so_far(status) | ({"error": problem} if problem else {})
        if problem:
            complain(problem, code)
        self._keep(status, told | {"exit_code": code}, error)
        if self._as_json:
            click.echo(json.dumps(told))
        elif status in ("done", "gate"):
            _show(self.result)
        if code:
            sys.exit(code)

    def _so_far(self, status: str) -> dict[str, Any]:
        return _told(self._command, status, self.result, time.monotonic() - self._begun)

    def _keep(self, status: str, told: Mapping[str, Any] | None = None, error: BaseException | None = None) -> None:
        """Below the root, if it is there: one that was only named, perhaps wrongly, is not made for this alone."""
        if not self._root:
            return
        try:
            if status not in ("running", "refused") or store.is_folder(self._root):
                self.record.write(told or self._so_far(status), error)
                if told:
                    self.log.end(**{name: told[name] for name in _LOGGED if name in told})
        except (UserError, StageError, OSError) as unkept:
            unforeseen = error and not isinstance(error, (UserError, StageError, OSError, KeyboardInterrupt))
            if status in ("done", "gate") or unforeseen:  # else one line says already what went wrong
                complain(f"{self.record.uri} could not be written: {unkept}", 0)
            if error and unforeseen:
                _show_traceback(error)


def _show_traceback(error: BaseException) -> None:
    click.echo(redacted("".join(traceback.format_exception(error))), err=True, nl=False)


def _told(command: str, status: str, result: Result, seconds: float) -> dict[str, Any]:
    """The summary of a run, as ``--json`` prints it."""
    return {
        "command": command,
        "status": status,
        "outputs": result.outputs,
        "counts": dict(result.counts),
        "seconds": round(seconds, 3),
        "reused": result.reused,
        **({} if result.rows is None else {"rows": list(result.rows)}),
    }


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """So that a run that is stopped before or after its time on Ray ends like any other."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Retryable(STOPPED)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _show(result: Result) -> None:
    for name, uri in result.outputs.items():
        click.echo(f"{name}: {uri}")
    if result.counts:
        click.echo("counts: " + ", ".join(f"{name} {count}" for name, count in sorted(result.counts.items())))
    if result.reused:
        click.echo("nothing to do: the output was already there")


def bring(result: Result, root: str, step: Step, *names: str, dry_run: bool = False) -> Output | None:
    """Bring one step's output and note it under ``names``; None when it is only planned."""
    from ray_asd.build.estimates import estimates
    from ray_asd.engine.session import session

    if dry_run:
        planned_steps = steps.plan(step, root)
        steps.check(planned_steps)
        for estimate in estimates(planned_steps, root):
            click.echo(planned(estimate))
        return None
    with session(root, Progress()) as build:
        output = build(step)
    result.outputs |= dict.fromkeys(names, output.uri)
    result.counts, result.reused = output.marker.counts, output.reused
    return output


def planned(estimate: "Estimate") -> str:
    """One line of a dry run."""
    step, uri = estimate.planned.step, estimate.planned.uri
    if estimate.planned.done:
        return f"done   {uri}"
    workers = "as many workers as fit" if step.workers is None else f"{step.workers} worker(s)"
    size = "" if step.bytes is None else f", {step.bytes / 1e9:.2f} GB written"
    hours = "no estimate: none of its kind has run below this root"
    if estimate.hours is not None:
        hours = f"about {estimate.hours:.2f} h, {estimate.gpu_hours:.2f} GPU-hours"
    place = (
        f"{workers} of {step.worker.cpus:g} CPU, {step.worker.gpus:g} GPU" if where.on_ray(step) else "in this process"
    )
    return f"to do  {uri}: {step.units} units, {place}{size}, {hours}"

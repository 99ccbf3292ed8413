"""How commands end: codes, the summary line, what is kept of it, and progress where nobody watches a terminal."""

import errno
import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from ray_asd import cli, store
from ray_asd.cli import console
from ray_asd.errors import STOPPED, Retryable, StageError, UserError


def end_with(error: BaseException | None, root: str | None, as_json: bool = True, gate: str | None = None) -> int:
    """The exit code of a command that did something and then ended so."""
    try:
        with console.summary("try", root, as_json) as result:
            result.outputs, result.counts, result.gate = {"table": "s3://bucket/table"}, {"rows": 3, "files": 1}, gate
            if error:
                raise error
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.mark.parametrize(
    ("error", "gate", "code", "status", "line"),
    [
        (None, None, 0, "done", ""),
        (None, "too many", 3, "gate", "ray-asd: too many\n"),
        (UserError("not\n  this"), None, 2, "refused", "ray-asd: not this\n"),
        (StageError("full"), None, 1, "failed", "ray-asd: full\n"),
        (Retryable("the store is away"), None, 75, "failed", "ray-asd: the store is away\n"),
        (KeyboardInterrupt(), None, 1, "failed", "ray-asd: interrupted\n"),
    ],
)
def test_every_end_has_its_code_its_line_and_its_summary(
    error: BaseException | None,
    gate: str | None,
    code: int,
    status: str,
    line: str,
    root: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert end_with(error, root, gate=gate) == code
    out, err = capfd.readouterr()
    assert err == line
    told = json.loads(out)
    seconds = told.pop("seconds")
    assert seconds >= 0
    expected = {"command": "try", "status": status, "outputs": {"table": "s3://bucket/table"}}
    expected |= {"counts": {"rows": 3, "files": 1}, "reused": False}
    problem = str(error) if str(error or "") else "interrupted" if error else gate
    assert told == (expected | {"error": problem} if problem else expected)
    kept = store.files(f"{root}/status")
    assert len(kept) == (status != "refused"), "what did not begin leaves nothing behind"
    if kept:
        record = json.loads(store.read(f"{root}/status/{kept[0]}"))
        assert record.items() >= (told | {"seconds": seconds, "exit_code": code}).items()
        assert record["pid"] == os.getpid()
        assert ("traceback" in record) == (error is not None)
        (log,) = store.files(f"{root}/events")
        assert log == kept[0].replace(".json", ".jsonl")
        begun, ended = [json.loads(line) for line in store.read(f"{root}/events/{log}").splitlines()]
        assert (begun["event"], begun["command"], begun["run"]) == ("run begun", "try", log.removesuffix(".jsonl"))
        assert ended.items() >= {"event": "run ended", "exit_code": code, "status": status}.items()
    assert store.is_folder(f"{root}/events") == bool(kept)


def test_a_person_reads_places_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    end_with(None, None, as_json=False)
    assert capsys.readouterr().out == "table: s3://bucket/table\ncounts: files 1, rows 3\n"
    end_with(StageError("full"), None, as_json=False)
    assert capsys.readouterr().out == ""


def test_what_nobody_foresaw_is_not_hidden(capfd: pytest.CaptureFixture[str]) -> None:
    assert end_with(ZeroDivisionError("by zero"), None) == 1
    out, err = capfd.readouterr()
    assert json.loads(out)["error"] == "ZeroDivisionError: by zero"
    begun, *_, last = err.splitlines()
    assert (begun, last) == ("Traceback (most recent call last):", "ray-asd: ZeroDivisionError: by zero")


def test_what_nobody_foresaw_has_its_traceback_below_the_root(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert end_with(ZeroDivisionError("by zero"), str(tmp_path)) == 1
    (kept,) = (tmp_path / "status").iterdir()
    assert capfd.readouterr().err == f"ray-asd: ZeroDivisionError: by zero; {kept} has the traceback\n"
    assert "Traceback" in json.loads(kept.read_text())["traceback"]


def test_a_traceback_that_cannot_be_kept_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "file"
    root.touch()
    assert end_with(ZeroDivisionError("by zero"), str(root)) == 1
    out, err = capfd.readouterr()
    assert json.loads(out)["status"] == "failed"
    told, unkept, begun, *_, last = err.splitlines()
    assert told.startswith("ray-asd: ZeroDivisionError: by zero; ")
    assert re.match(rf"ray-asd: {root}/status/try-\S+\.json could not be written: ", unkept)
    assert (begun, last) == ("Traceback (most recent call last):", "ZeroDivisionError: by zero")
    assert end_with(StageError("full"), str(root)) == 1
    assert capfd.readouterr().err == "ray-asd: full\n"


def code_of(root: Path, work: Callable[[], None]) -> int:
    try:
        with console.summary("try", str(root), True):
            work()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_a_run_below_a_root_says_so_while_it_runs_and_a_refusal_stays(tmp_path: Path) -> None:
    def work() -> None:
        (kept,) = (tmp_path / "status").iterdir()
        assert json.loads(kept.read_text())["status"] == "running"
        raise UserError("not this")

    assert code_of(tmp_path, work) == 2
    assert [json.loads(entry.read_text())["status"] for entry in (tmp_path / "status").iterdir()] == ["refused"]


def test_sigterm_ends_a_run_as_any_other_end(tmp_path: Path) -> None:
    def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    assert code_of(tmp_path, work) == 75
    (kept,) = (tmp_path / "status").iterdir()
    assert json.loads(kept.read_text())["error"] == STOPPED


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (None, 0, ""),
        (UserError("no"), 2, "ray-asd: no\n"),
        (StageError("broken"), 1, "ray-asd: broken\n"),
        (KeyboardInterrupt(), 1, "ray-asd: interrupted\n"),
        (click.BadParameter("odd"), 2, "ray-asd: Invalid value: odd\n"),
    ],
)
def test_a_command_that_gives_no_summary_ends_likewise(
    error: BaseException | None, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def command() -> None:
        if error:
            raise error

    with pytest.raises(SystemExit) as ended:
        console.run(command, "ray-asd", [])
    assert ended.value.code == code
    assert capsys.readouterr().err.lstrip("\n") == line


def test_a_command_can_end_with_a_code_of_its_own() -> None:
    with pytest.raises(SystemExit) as ended:
        console.run(click.Command("job", callback=lambda: 3), "job", [])
    assert ended.value.code == 3


def test_a_log_holds_one_line_per_task_and_end_not_one_per_step(capsys: pytest.CaptureFixture[str]) -> None:
    progress = console.Progress()
    for step in range(1, 101):
        progress(f"train  loss {1 / step:.3f}", step, 100)
    progress("score", 0, 7)
    progress("score", 7, 7)
    expected = ["train  loss 1.000: 1/100", "train  loss 0.010: 100/100", "score: 0/7", "score: 7/7"]
    assert capsys.readouterr().err.splitlines() == expected


@pytest.mark.parametrize(
    ("arguments", "code", "status", "line"),
    [
        (["train", "--recipe"], 2, "refused", "Option '--recipe' requires an argument."),
        (["ls", "gs://bucket"], 2, "refused", "unknown scheme 'gs://'; allowed: s3://bucket/key, a local path"),
        (["gc", "/nowhere"], 2, "refused", "/nowhere: no such folder; allowed: a ROOT that earlier commands wrote to"),
        (["ls", os.fsdecode(b"/f\xfcr")], 2, "refused", "an argument is not UTF-8 here: b'/f\\xfcr'; allowed: UTF-8, "),
        (["show", "/" + "n" * 300], 2, "refused", "File name too long (ENAMETOOLONG)"),
    ],
)
def test_what_ends_before_it_began_has_its_summary_too(
    arguments: list[str], code: int, status: str, line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments, "--json"] if arguments[-1] != "--recipe" else ["train", "--json", "--recipe"])
    out, err = capfd.readouterr()
    told = json.loads(out)
    assert (ended.value.code, told["command"], told["status"]) == (code, arguments[0], status)
    assert err == f"ray-asd: {told['error']}\n"
    assert line in err


@pytest.mark.parametrize(
    ("number", "code", "status"),
    [
        (errno.ENOSPC, 75, "failed"),
        (errno.EROFS, 75, "failed"),
        (errno.EIO, 75, "failed"),
        (errno.EPERM, 2, "refused"),
        (errno.ENOTDIR, 2, "refused"),
        (errno.ENOENT, 1, "failed"),
    ],
)
def test_errors_of_the_file_system_are_lines(
    number: int, code: int, status: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for root in (None, str(tmp_path)):
        assert end_with(OSError(number, os.strerror(number), "/a/place"), root) == code
        out, err = capfd.readouterr()
        assert json.loads(out)["status"] == status
        assert err == f"ray-asd: /a/place: {os.strerror(number)} ({errno.errorcode[number]})\n"

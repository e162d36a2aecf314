"""From an exception to an exit code and one or two lines that say what to do next."""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import typer
from typer.exceptions import TyperException

from posthouse.cli.output import clean
from posthouse.cli.server import Problem
from posthouse.errors import Error, Misconfigured

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
_SHOWN_FAULTS = 5


@dataclass(frozen=True, slots=True)
class _Failure:
    exit_code: int
    code: str
    lines: tuple[str, ...]
    errors: tuple[tuple[str, str], ...] = ()
    detail: str = ""
    """For programs; the lines when empty."""


def guarded(run: Callable[[], object], *, as_json: bool) -> int:
    """The exit code of `run`; what it raised is told on standard error, never as a traceback
    unless POSTHOUSE_DEBUG asks for one."""
    try:
        result = run()
        sys.stdout.flush()
    except typer.Exit as left:
        return left.exit_code
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("\nInterrupted.\n")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader went away (`| head`); nothing more can be written, also not at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as wrong:
        from posthouse.config import Environment  # noqa: PLC0415 - `--help` needs no settings

        if Environment.read().debug:
            traceback.print_exc()
        if isinstance(wrong, TyperException) and not wrong.format_message():
            return USAGE  # no command was given; the help is on the screen already
        failure = _explained(wrong)
        _tell(failure, as_json)
        return failure.exit_code
    return result if isinstance(result, int) else DONE


def _tell(failure: _Failure, as_json: bool) -> None:
    if as_json:
        errors = [{"pointer": pointer, "message": message} for pointer, message in failure.errors]
        body = {"code": failure.code, "detail": failure.detail or "\n".join(failure.lines), "errors": errors}
        sys.stderr.write(json.dumps(body, ensure_ascii=False) + "\n")
        return
    first, *rest = failure.lines
    red, plain = ("\x1b[31m", "\x1b[0m") if sys.stderr.isatty() and "NO_COLOR" not in os.environ else ("", "")
    sys.stderr.write("\n".join([f"{red}Error:{plain} {clean(first)}", *map(clean, rest)]) + "\n")


def _explained(wrong: Exception) -> _Failure:
    match wrong:
        case TyperException():
            code = USAGE if wrong.exit_code == USAGE else FAILED
            return _Failure(code, "usage", (wrong.format_message(), "Add --help to see how the command is used."))
        case Problem():
            return _refused(wrong)
        case Misconfigured():
            return _Failure(USAGE, wrong.code, tuple(wrong.public.split("\n")), _pairs(wrong))
        case Error():
            return _Failure(FAILED, wrong.code, (wrong.public,), _pairs(wrong))
        case OSError():
            return _system(wrong)
        case _:
            text = f"{type(wrong).__name__}: {wrong}"
            return _Failure(FAILED, "internal_error", (text, "That is a defect; POSTHOUSE_DEBUG=1 shows where."))


def _pairs(wrong: Error) -> tuple[tuple[str, str], ...]:
    return tuple((fault.pointer, fault.message) for fault in wrong.faults)


def _refused(problem: Problem) -> _Failure:
    lines = [f"{problem.detail} ({problem.code})"]
    lines += [f"  {pointer or '/'}: {message}" for pointer, message in problem.errors[:_SHOWN_FAULTS]]
    if len(problem.errors) > _SHOWN_FAULTS:
        lines.append(f"  and {len(problem.errors) - _SHOWN_FAULTS} more")
    if hint := _HINTS.get(problem.status):
        lines.append(hint)
    if problem.retry_after:
        lines.append(f"Try again in {problem.retry_after} s.")
    return _Failure(FAILED, problem.code, tuple(lines), problem.errors, problem.detail)


_HINTS = {
    401: "Give a key with --key or POSTHOUSE_API_KEY; `posthouse init` makes a new operator key.",
    403: "Use a key that has the scope; `posthouse key list` shows what each may do.",
}


def _system(wrong: OSError) -> _Failure:
    what = f"{wrong.filename}: " if wrong.filename else ""
    text = f"{what}{wrong.strerror or wrong}"
    if wrong.errno == errno.EADDRINUSE:
        text = f"The port is taken: {wrong}. Stop what uses it, or choose another with --port."
    elif wrong.errno in {errno.EACCES, errno.EPERM}:
        text += ". Run as the owner, or choose another place with --data-dir."
    elif wrong.errno == errno.ENOSPC:
        text += ". Free some space; nothing was lost."
    return _Failure(FAILED, "system", (text,))

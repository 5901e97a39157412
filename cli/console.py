"""What the verbs share: consoles, logging, progress, and the command as it was typed."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..runtimes.core.files import write_error
from ..runtimes.core.partial_folder import PartialFolder

WIDE = 200


def command_line() -> str:
    """The command as it was typed, for artifacts and results."""
    return shlex.join(["edgerecall", *sys.argv[1:]])


def console(stderr: bool = False) -> Console:
    """A console that takes brackets as they are, and neither wraps nor colours what goes to a file."""
    probe = Console(stderr=stderr, markup=False)
    return probe if probe.is_terminal else Console(stderr=stderr, width=WIDE, highlight=False, markup=False)


def setup_logging(target: Console, log_file: Path | None = None, quiet: bool = False) -> logging.Logger:
    """The package's logger to a console and, with time stamps, to a file. quiet: warnings only, no file."""
    logger = logging.getLogger("edgerecall")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers.clear()
    handler: logging.Handler
    if target.is_terminal:  # prints above a progress bar
        handler = RichHandler(console=target, show_time=False, show_path=False, show_level=False, markup=False)
    else:
        handler = logging.StreamHandler(target.file)
    handler.setFormatter(PlainFormatter())
    logger.addHandler(handler)
    if quiet:
        logger.setLevel(logging.WARNING)
    elif log_file is not None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        file_handler = LogFile(log_file, encoding="utf-8")
        file_handler.setFormatter(logging.Formatter("[%(asctime)s] %(levelname)s: %(message)s"))
        logger.addHandler(file_handler)
    return logger


class LogFile(logging.FileHandler):
    """Appends; a log that cannot be written ends the command with its reason instead of printing a traceback."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            raise write_error(Path(self.baseFilename), error) from error
        super().handleError(record)


def options_of(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Options that several verbs have."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


class PlainFormatter(logging.Formatter):
    """The message; warnings and errors say so."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return prefix + record.getMessage() + trace


@contextmanager
def share_bar(width: int) -> Iterator[Callable[[str, float], None]]:
    """A bar on standard error; yields a function that is told what goes on, and the share of all that is done.

    width: of the words.
    """
    target = console(stderr=True)
    columns = (TextColumn(f"{{task.description:<{width}}}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=target, disable=not target.is_terminal, transient=True) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda what, share: bar.update(task, description=what, completed=share)


@contextmanager
def kept_for_resume(state: PartialFolder | None) -> Iterator[None]:
    """Says where an interrupted command's work is kept, or removes the folder where there is none."""
    try:
        yield
    except BaseException:
        if state is not None and state.begun:
            click.echo(f"kept in {state.folder}: repeat the command with --resume to go on", err=True)
        elif state is not None:
            state.remove()
        raise


@contextmanager
def progress_bar(title: str, total: int | None, target: Console | None = None) -> Iterator[Callable[[int], None]]:
    """A bar on standard error; yields a function that advances it. On a pipe it stays silent."""
    target = target or console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=target, disable=not target.is_terminal) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)


def tell_passed_over(folder: Path) -> None:
    """Says on standard error what below a folder of images is none."""
    from ..runtimes.preprocess.images import passed_over

    if told := passed_over(folder):
        console(stderr=True).print(f"warning: {told}", markup=False, soft_wrap=True)

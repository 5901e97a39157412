"""The command line: one module per verb, imported when it is called."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import warnings
from typing import Any, NoReturn

import click

# verb -> (module, one line of help): the overview imports no module.
COMMANDS = {
    "data": ("data", "Make or convert a data set in the Stanford Online Products layout."),
    "train": ("train", "Train an embedding with cross-batch memory (XBM) on PaddlePaddle."),
    "eval": ("evaluate", "recall@k and mAP of a checkpoint."),
    "export": ("export", "A checkpoint or a model to a bundle: Paddle, ONNX, OpenVINO, Lite and others."),
    "quantize": ("quantize", "Add int8 and fp16 artifacts to a bundle, calibrated and checked."),
    "verify": ("verify", "Golden images through every runtime of a bundle."),
    "predict": ("predict", "Images to embeddings, predict_rec style."),
    "gallery": ("serving.gallery", "Embeddings with ids and labels on disk: build, add, remove, search."),
    "detector": ("serving.detector", "Where in a picture something is: seal a detection network, check it, run it."),
    "embed": ("serving.embed", "Many images to Parquet files, on this machine or a Ray cluster, resumable."),
    "web": ("serving.web", "A static page that embeds and searches in the browser, offline too."),
    "serve": ("serving.serve", "Images in, embeddings or neighbours out, by the Open Inference Protocol."),
    "bench": ("bench", "Latency, memory, size and recall parity of every runtime."),
    "why": ("why", "Why two runtimes embed an image differently: the first stage where they part."),
    "compare": ("compare", "Two bench results: what got slower, larger or less right."),
    "upgrade": ("upgrade", "Bring a bundle of an earlier format to the present one."),
    "cross": ("cross", "Build the stand-alone C++ program for ARM and other machines, tested under QEMU."),
    "doctor": ("doctor", "What this machine can train, convert and run, and the exact fix for the rest."),
}
# Warnings of Paddle's that tell a user nothing: nothing is compiled here, and batch norms do what they should.
PADDLE_CHATTER = ("No ccache found", "When training, we now always track global mean and variance")
INTERRUPTED = 130
INTERNAL = 70


class LazyGroup(click.Group):
    """Lists verbs from the table above and imports one when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".{COMMANDS[cmd_name][0]}", __name__)
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else f" Commands: {', '.join(COMMANDS)}."
            raise click.UsageError(f"No such command '{args[0]}'.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="edgerecall", prog_name="edgerecall")
@click.option("--debug", is_flag=True, envvar="EDGERECALL_DEBUG", help="Show tracebacks.")
def group(debug: bool) -> None:
    """Train an image-retrieval embedding once, ship it to every edge runtime, and prove that neither recall nor
    latency was lost on the way."""


def fail(message: str, code: int) -> NoReturn:
    """One line on standard error, and the exit code."""
    from ..runtimes.core.text import readable

    click.echo(f"edgerecall: {readable(message)}", err=True)
    leave(code)


def open_streams() -> None:
    """Standard streams that the caller closed: without an output there is nothing to be done, and a file opened later
    must not take its place.
    """
    closed = [number for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)) if stream is None]
    for number in closed:
        found = os.open(os.devnull, os.O_RDWR)
        if found != number:
            os.dup2(found, number)
            os.close(found)
        os.set_inheritable(number, True)  # nor in what it starts
    if 2 in closed:
        sys.stderr = os.fdopen(os.dup(2), "w")
    if 1 in closed:
        sys.stdout = os.fdopen(os.dup(1), "w")
        fail("standard output is closed: expected a terminal, a file or a pipe", 2)


def leave(code: int) -> NoReturn:
    """Flushes and ends at once: some runtimes crash in their exit handlers and would spoil the exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def terminated(number: int, frame: object) -> NoReturn:
    """SIGTERM cleans up as Ctrl-C does."""
    raise KeyboardInterrupt


def of_a_runtime(error: ImportError) -> str | None:
    """One line with the remedy, when what is missing is a runtime's package."""
    try:
        from ..runtimes.core.versions import missing_package
        from ..runtimes.predictor.registry import packages

        return missing_package(error, packages())
    except Exception:  # the descriptions cannot be read without numpy, say: the error is told as it is
        return None


def main(args: list[str] | None = None) -> NoReturn:
    """Runs the command line. Exit codes: 0, 1 (a result does not hold), 2 (bad input), 3 (undecided, by --strict of
    `bench` and `compare`), 70 (a bug), 130 (Ctrl-C).
    """
    os.environ.setdefault("GLOG_minloglevel", "2")  # Paddle's C++ side: errors only
    for message in PADDLE_CHATTER:
        warnings.filterwarnings("ignore", message=message)
    open_streams()
    debug = "--debug" in (sys.argv[1:] if args is None else args) or bool(os.environ.get("EDGERECALL_DEBUG"))
    signal.signal(signal.SIGTERM, terminated)
    try:
        result: Any = group.main(args, standalone_mode=False)
    except click.exceptions.Exit as error:
        leave(error.exit_code)
    except click.Abort:
        fail("interrupted", INTERRUPTED)
    except click.ClickException as error:
        from ..runtimes.core.text import readable

        if not isinstance(error, click.exceptions.NoArgsIsHelpError):  # whose message is the help
            vars(error)["message"] = readable(error.message)
        error.show()
        leave(2)
    except KeyboardInterrupt:
        fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        os._exit(0)
    except Exception as error:
        from ..runtimes.core.errors import EdgeRecallError
        from ..runtimes.core.versions import missing_package

        if debug:
            import traceback

            traceback.print_exc()
        if isinstance(error, EdgeRecallError):
            fail(str(error), error.exit_code)
        if isinstance(error, ImportError) and (remedy := missing_package(error) or of_a_runtime(error)):
            fail(remedy, 2)
        if isinstance(error, OSError) and error.strerror:
            fail(f"{error.filename or 'system'}: {error.strerror}", 2)
        if isinstance(error, MemoryError):
            fail("not enough memory", 2)
        fail(f"internal error, a bug of ours: {type(error).__name__}: {error}; run again with --debug", INTERNAL)
    leave(result if isinstance(result, int) else 0)

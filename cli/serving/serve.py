"""`edgerecall serve`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import click

from ..console import console, options_of, setup_logging
from .gallery import ARTIFACT, PLACE

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("bundle", type=PATH)
@click.option("--gallery", type=PLACE, help="A folder, or a database's URL: answer with its nearest rows too.")
@click.option("--pictures", type=PATH, help="Folder in which the gallery's ids name images, for the web page to show.")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0: every address of this machine.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0: a free one.")
@click.option("--grpc-port", type=click.IntRange(0, 65535), help="By default the one after --port.")
@click.option("--no-grpc", is_flag=True, help="REST alone.")
@click.option("--name", help="Of the model in URLs; by default BUNDLE's folder.")
@options_of(*ARTIFACT)
@click.option("--replicas", type=click.IntRange(1, 256), help="Inferences at a time; by default one for each CPU.")
@click.option("--worker", is_flag=True, help="Replicas in processes of their own: the server outlives their death.")
@click.option(
    "--max-batch",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1024),
    help="Images of an inference, taken from what waits. More than 1: other last digits, and no faster on most CPUs.",
)
@click.option("--top", default=5, show_default=True, type=click.IntRange(1, 10_000), help="Rows, unless asked for k.")
@click.option("--queue", default=256, show_default=True, type=click.IntRange(1, 100_000), help="Images that may wait.")
@click.option("--images", default=64, show_default=True, type=click.IntRange(1, 10_000), help="Of a request, at most.")
@click.option("--seconds", default=30.0, show_default=True, type=click.FloatRange(0.001, 3600), help="For a request.")
@click.option("--max-body", default=32, show_default=True, type=click.IntRange(1, 2048), help="MiB of a request.")
@click.option(
    "--connections", default=512, show_default=True, type=click.IntRange(1, 100_000), help="At the same time."
)
@click.option("--token-file", type=PATH, help="Embed only for who brings this file's token ('Authorization: Bearer').")
@click.option(
    "--canary-seconds",
    default=60.0,
    show_default=True,
    type=click.FloatRange(0.1, 86_400),
    help="Between two looks at the golden images.",
)
@click.option("--request-log", type=PATH, help="A line of JSON for each request is added to this file; -: stdout.")
@click.option("--certificate", type=PATH, help="PEM file, for TLS.")
@click.option("--key", type=PATH, help="Its key.")
def command(bundle: Path, gallery: Path | str | None, pictures: Path | None, **given: Any) -> int:
    """Serve BUNDLE by the Open Inference Protocol and a web page: images in, embeddings or neighbours out."""
    from importlib.metadata import version

    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it listens: what is loaded then is what is on disk
    from ...runtimes.core.cpus import usable_cpus
    from ...runtimes.core.errors import InputError
    from ...serve.host import Host, Settings
    from ...serve.listen import Listen, check_tls
    from ...serve.server import serve
    from ...serve.service import Limits, Opening

    name = given["name"] or bundle.resolve().name
    if not name or "/" in name:
        raise InputError(f"--name: expected a text without '/', got {name!r:.80}")
    if given["no_grpc"] and given["grpc_port"] is not None:
        raise InputError("--no-grpc and --grpc-port: leave out one")
    grpc_port = None if given["no_grpc"] else given["grpc_port"]
    if grpc_port is None and not given["no_grpc"]:
        grpc_port = given["port"] and given["port"] + 1
        if grpc_port > 65535:
            raise InputError("--port 65535 leaves none for gRPC: give --grpc-port or --no-grpc")
    if pictures is not None and gallery is None:
        raise InputError("--pictures: of a gallery: give --gallery too")
    if grpc_port and grpc_port == given["port"]:
        raise InputError(f"--grpc-port {grpc_port}: is REST's port: give another one")
    if pictures is not None and not pictures.is_dir():
        raise InputError(f"--pictures {pictures}: expected a folder of images")
    listen = Listen(given["host"], given["port"], grpc_port, given["certificate"], given["key"], given["connections"])
    check_tls(listen)
    token = None if given["token_file"] is None else read_token(given["token_file"])
    make = Opening(
        bundle,
        gallery,
        given["runtime"],
        given["quantisation"],
        replicas=given["replicas"] or len(usable_cpus()),
        batch_size=given["max_batch"],
        worker=given["worker"],
        limits=Limits(given["queue"], given["images"], given["seconds"], given["top"]),
    )
    settings = Settings(name, version("edgerecall"), given["max_body"] << 20, 30.0, token, given["canary_seconds"])

    def told(url: str, grpc: str | None) -> None:
        click.echo(f"{name} at {url}/v2/models/{name}" + ("" if grpc is None else f", gRPC at {grpc}"))

    with contextlib.ExitStack() as stack:
        requests = None if given["request_log"] is None else stack.enter_context(opened(given["request_log"]))
        setup_logging(console(stderr=True))
        host = Host(make(), settings, make, requests)
        try:
            serve(host, listen, told, pictures)
        finally:
            if not host.close():
                click.echo("edgerecall: a replica hangs: ended without it", err=True)
                os._exit(1)
    return 0


@contextlib.contextmanager
def opened(file: Path) -> Iterator[TextIO]:
    """A file that lines are added to; -: stdout."""
    from ...runtimes.core.errors import InputError

    if str(file) == "-":
        yield sys.stdout
        return
    try:
        stream = file.open("a", encoding="utf-8")
    except OSError as error:
        raise InputError(f"--request-log {file}: {error.strerror}") from error
    try:
        yield stream
    finally:
        with contextlib.suppress(OSError):  # of what could not be written it was told
            stream.close()


def read_token(file: Path) -> str:
    """The token in a file, without the line's end."""
    from ...runtimes.core.errors import InputError

    try:
        token = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--token-file {file}: {getattr(error, 'strerror', None) or 'not ASCII'}") from error
    if len(token) < 8 or not token.isprintable() or " " in token:
        raise InputError(f"--token-file {file}: expected a token of 8 characters or more, without spaces")
    return token

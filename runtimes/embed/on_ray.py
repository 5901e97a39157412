"""Shards made by actors of a Ray cluster (https://docs.ray.io), each with the model."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from ..core import errors
from ..core.errors import EdgeRecallError, RuntimeFailed
from .shards import Shard, Work

LOCAL = "local"
TEMPORARY = "edgerecall-ray-"
REACHED_S = 10.0
TRIES = 3  # to start an actor that has died, and to make its shard again: Ray's default is for ever


class Maker:
    """An actor's work: the model, opened once, and shards. What is wrong with them is told, not raised: it is no reason
    to try again.
    """

    def __init__(self, work: Work) -> None:
        self.work = work
        self.problem: list[str] | None = None
        try:
            self.model = work.open()
        except EdgeRecallError as error:
            self.problem = [type(error).__name__, str(error)]

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch of shards, as JSON, to what came of each."""
        return {"number": batch["number"], "told": [self.made(json.loads(str(text))) for text in batch["shard"]]}

    def made(self, given: dict[str, Any]) -> str:
        """What could not be read of a shard, and what was wrong, as JSON."""
        if self.problem is not None:
            return json.dumps([[], self.problem])
        shard = Shard(given["number"], tuple(given["paths"]), tuple(given["ids"]), tuple(given["labels"]))
        try:
            return json.dumps([self.work.make(self.model, shard), None])
        except EdgeRecallError as error:
            return json.dumps([[], [type(error).__name__, str(error)]])


def require_reachable(address: str) -> None:
    """RuntimeFailed where nobody listens at HOST:PORT, for which Ray would wait many minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or "/" in address or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACHED_S).close()
    except (OSError, OverflowError) as error:
        raise RuntimeFailed(f"Ray at {address}: {error}") from error


@contextlib.contextmanager
def cluster(address: str, processes: int) -> Iterator[Any]:
    """Ray, of a cluster or (`local`) of this machine for as long as this lasts, with room for so many processes."""
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*ray_remote_args.*")
    import ray
    import ray.data

    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    with contextlib.ExitStack() as stack:
        if address == LOCAL:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=TEMPORARY, ignore_cleanup_errors=True))
            options |= {"num_cpus": processes, "include_dashboard": False, "_temp_dir": folder}
        else:
            require_reachable(address)
            options["address"] = address
        try:
            ray.init(**options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise RuntimeFailed(f"Ray at {address}: {str(error).splitlines()[0]:.300}") from error
        stack.callback(ray.shutdown)
        yield ray


def on_ray(
    work: Work, shards: Sequence[Shard], address: str, actors: int, done: Callable[[Shard, list[str]], object]
) -> None:
    """Makes shards by `actors` actors. address: of a cluster, `auto`, or `local`.

    Images, the bundle and the folder that is written to must be where the actors are, under the same names. An actor
    that dies is started again, and its shard made again, three times at most. The first that cannot be made ends all.
    """
    by_number = {shard.number: shard for shard in shards}
    with cluster(address, actors * work.threads + 1) as ray:
        ray.data.DataContext.get_current().enable_progress_bars = False
        items = [{"number": shard.number, "shard": json.dumps(asdict(shard))} for shard in shards]
        made = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            Maker,
            fn_constructor_args=(work,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_cpus=work.threads,
            max_restarts=TRIES,
            max_task_retries=TRIES,
        )
        try:
            for row in made.iter_rows():
                skipped, problem = json.loads(row["told"])
                if problem is not None:
                    raise getattr(errors, problem[0])(problem[1])
                done(by_number[int(row["number"])], skipped)
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error.__cause__ or error
            lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(cause)).splitlines() if line.strip()]
            raise RuntimeFailed(f"Ray: {type(cause).__name__}: {lines[-1] if lines else ''}"[:400]) from error

"""The served model behind both protocols: who may ask, what is counted and logged, whether it is ready, and its
successors.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TextIO, TypeVar

import anyio

from ..runtimes.core.errors import EdgeRecallError, InputError, RuntimeFailed
from ..runtimes.core.text import readable
from ..runtimes.gallery.disk_gallery import DiskGallery
from .deadline import Deadline, TooLate
from .formats.tensors import InferRequest, Outputs
from .metrics import Metrics
from .service import Busy, Service

LOGGER = logging.getLogger("edgerecall.serve")
EXTENSIONS = ["binary_tensor_data", "model_repository"]
SMALL = 1 << 16  # bytes, that are read or written in passing
LOOK_S = 120.0  # in which a replica embeds the golden images, at most
PAUSE_S = 0.005  # between two of them, in which requests have the replica
HELD = 16  # times the largest request, that all requests' bytes may be
END_S = 10.0  # in which a service must have ended
RETRY_S = 1  # that clients are told to wait
REFRESH_S = 1.0  # between two looks at the gallery and the replicas
LATEST_REVIVAL_S = 60.0  # between two tries to start replicas that have died
Result = TypeVar("Result")


@dataclass(frozen=True)
class Settings:
    """name: of the model in URLs. version: of the package.

    body_bytes: of a request, at most. body_seconds: in which it must have come. token: that requests must bring, where
    one is set. canary_seconds: between two looks at the golden images.
    """

    name: str
    version: str
    body_bytes: int = 32 << 20
    body_seconds: float = 30.0
    token: str | None = None
    canary_seconds: float = 60.0


class Refused(Exception):
    """A request that is not answered: HTTP's status code, and why."""

    def __init__(self, code: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.code, self.headers = code, {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass
class Told:
    """What is logged of a request."""

    protocol: str
    client: str
    id: str | None = None
    images: int = 0
    bytes: int = 0


class Host:
    """A service, and the next that takes its place. It owns them: close() it.

    make: gives what is on disk now; or, with the service before, the same model again beside its gallery.

    requests: where a line of JSON goes for each.
    """

    def __init__(
        self,
        service: Service,
        settings: Settings,
        make: Callable[[Service | None], Service],
        requests: TextIO | None = None,
    ) -> None:
        self.settings, self.metrics, self.healthy = settings, Metrics(), True
        self.service = service
        service.observed_by(self.metrics.observe)
        self.stopping = False
        self._reading: set[anyio.CancelScope] = set()
        self._make, self._requests = make, requests
        self._changing = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()
        self._revive_at, self._patience = 0.0, REFRESH_S
        self._reload: asyncio.Task[None] | None = None
        self._held = 0  # bytes of requests
        self._readers = ThreadPoolExecutor(2, "serve-read")
        self._watchers = ThreadPoolExecutor(4, "serve-watch")

    def close(self) -> bool:
        """Ends the service; False where it does not end: one of its replicas hangs."""
        self._readers.shutdown(wait=False)
        self._watchers.shutdown(wait=False, cancel_futures=True)
        ending = threading.Thread(target=self.service.close, daemon=True)
        ending.start()
        ending.join(END_S)
        return not ending.is_alive()

    def stop(self) -> None:
        """Whatever is still being read is not waited for."""
        self.stopping = True
        for scope in self._reading:
            scope.cancel()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """A body that comes: Refused where it does not come in time, or the server stops before."""
        with anyio.move_on_after(self.settings.body_seconds) as scope:
            self._reading.add(scope)
            try:
                if self.stopping:
                    scope.cancel()
                yield
            finally:
                self._reading.discard(scope)
        if scope.cancelled_caught:
            if self.stopping:
                raise Refused(503, "the server is stopping", retry_after=str(RETRY_S), connection="close")
            raise Refused(408, f"the body did not come within {self.settings.body_seconds:g} s", connection="close")

    def hold(self, size: int) -> None:
        """A request's bytes come, until they are let go. Busy where there are too many of all requests'."""
        most = HELD * self.settings.body_bytes
        if self._held + size > most:
            raise Busy(f"requests of {self._held} bytes are here already, at most {most} may be")
        self._held += size

    def let_go(self, size: int) -> None:
        """What is no longer here of what is held."""
        self._held -= size

    async def watched(self, work: Callable[..., Result], *arguments: object) -> Result:
        """Work that may take long, in a thread that no request waits for."""
        return await asyncio.get_running_loop().run_in_executor(self._watchers, work, *arguments)

    @property
    def ready(self) -> bool:
        """Whether a replica answers, and all rightly as far as was looked."""
        return self.healthy and self.service.alive > 0

    def check_token(self, authorization: str) -> None:
        """Refused without the token."""
        if self.settings.token is not None:
            scheme, _, given = authorization.partition(" ")
            same = hmac.compare_digest(given.encode(), self.settings.token.encode())
            if scheme.lower() != "bearer" or not same:
                raise Refused(401, "expected the header 'Authorization: Bearer TOKEN'", www_authenticate="Bearer")

    def check_model(self, name: str, version: str | None) -> None:
        """Refused for a model that is not here."""
        if name != self.settings.name:
            raise Refused(404, f"no model {name!r:.80} here: there is {self.settings.name!r}")
        if version not in (None, "", "1"):
            raise Refused(404, f"{name}: there is version '1'")

    def about_model(self) -> dict[str, Any]:
        """Model metadata, in the protocol's words."""
        service = self.service
        return {
            "name": self.settings.name,
            "versions": ["1"],
            "platform": f"edgerecall_{service.runtime}_{service.quantisation}",
            "inputs": service.inputs,
            "outputs": service.outputs,
        }

    async def infer(
        self,
        size: int,
        read: Callable[[int], InferRequest],
        write: Callable[[InferRequest, str, Outputs], Result],
        told: Told,
        seconds: float | None = None,
    ) -> Result:
        """The answer to a request of so many bytes, as it is read and written. seconds: that its client waits."""
        self.metrics.body_bytes.observe(size)
        told.bytes = size
        service = self.service
        began = time.perf_counter()
        limit = service.limits.seconds if seconds is None else min(seconds, service.limits.seconds)
        service.users += 1
        try:
            deadline = Deadline(asyncio.get_running_loop(), limit)
            most = service.limits.images
            asked = read(most) if size < SMALL else await self.aside(deadline, read, most)
            told.id = asked.id
            outputs = await service.infer(asked, deadline)
            told.images = len(outputs["embedding"])
            self.metrics.images.add(told.images)
            length = outputs["embedding"].nbytes + (100 * outputs["scores"].size if "scores" in outputs else 0)
            if length < SMALL:
                return write(asked, self.settings.name, outputs)
            return await self.aside(None, write, asked, self.settings.name, outputs)
        finally:
            service.users -= 1
            self.metrics.seconds.observe(time.perf_counter() - began)

    async def aside(self, deadline: Deadline | None, work: Callable[..., Result], *arguments: object) -> Result:
        """Work on many bytes, in a thread of its own: the others would notice. TooLate beyond its deadline."""
        job = self._readers.submit(work, *arguments)
        found: Result = await (asyncio.wrap_future(job) if deadline is None else deadline.job(job))
        return found

    def done(self, told: Told, code: str, began: float, problem: str | None = None) -> None:
        """Counts a request, and logs it."""
        self.metrics.requests.add(1, code, told.protocol)
        if self._requests is not None:
            seconds = round(time.perf_counter() - began, 6)
            line = {"time": round(time.time(), 3), **vars(told), "code": code, "seconds": seconds}
            if problem is not None:
                line["error"] = readable(problem)
            try:
                print(json.dumps(line), file=self._requests, flush=True)
            except (OSError, ValueError) as error:
                LOGGER.error("requests are no longer logged: %s", error)
                self._requests = None

    def measure(self) -> None:
        """Sets what the metrics tell of now."""
        service, metrics = self.service, self.metrics
        metrics.waiting.set(service.waiting)
        metrics.golden.set(float(self.healthy))
        metrics.replicas.set(service.alive)
        if service.gallery is not None:
            metrics.gallery.set(float(service.gallery_problem is None))
            if isinstance(service.gallery, DiskGallery):  # a database would be asked
                metrics.rows.set(len(service.gallery))

    async def watch(self) -> None:
        """The gallery, the replicas, and the canary: what held when the server started must hold as long as it runs."""
        looked = -float("inf")
        while True:
            try:
                async with self._changing:
                    await self.watched(self.service.refresh)
                    if self.service.alive < self.service.model.replicas and time.monotonic() >= self._revive_at:
                        await self.revive()
                    if time.monotonic() - looked >= self.settings.canary_seconds:
                        looked = time.monotonic()
                        await self.look()
            except Exception:
                LOGGER.exception("not ready: the look at the golden images or the gallery failed")
                self.healthy = False
            await asyncio.sleep(min(REFRESH_S, self.settings.canary_seconds))

    async def look(self) -> None:
        """Whether the golden embeddings come out as sealed."""
        limit = LOOK_S * self.service.model.replicas
        try:
            problem = await asyncio.wait_for(self.watched(self.service.golden_problem, PAUSE_S), limit)
        except asyncio.TimeoutError:
            problem = f"not embedded within {limit:g} s"
        except EdgeRecallError as error:
            problem = str(error)
        if problem and self.healthy:
            LOGGER.error("not ready: the golden images: %s", problem)
        self.healthy = problem is None

    async def revive(self) -> None:
        """Loads the model again where replicas of it have died, later and later as long as that fails."""
        missing = self.service.model.replicas - self.service.alive
        LOGGER.warning("%d of %d replicas have died: the model is loaded again", missing, self.service.model.replicas)
        try:
            await self._replace(same=True)
            self._patience = REFRESH_S
        except EdgeRecallError as error:
            LOGGER.error("the replicas that died do not come back: %s", error)
            self._patience = min(2 * self._patience, LATEST_REVIVAL_S)
        self._revive_at = time.monotonic() + self._patience

    async def reload(self) -> None:
        """Serves what is on disk now, once its golden embeddings have come out on this machine; requests under way end
        by the model that they began with. What cannot be served is logged and raised, and the model before stays.

        Whoever asks while another waits for its turn waits with it.
        """
        if self._reload is None:
            self._reload = asyncio.create_task(self._reload_in_turn())
        await asyncio.shield(self._reload)

    async def _reload_in_turn(self) -> None:
        async with self._changing:
            self._reload = None
            try:
                await self._replace()
            except EdgeRecallError as error:
                LOGGER.error("not loaded again, served as before: %s", error)
                raise
            LOGGER.info("loaded again: %s", self.settings.name)

    async def _replace(self, same: bool = False) -> None:
        """same: only by the bundle that is served."""
        try:
            new = await self.watched(self._make, self.service if same else None)
            if same and new.bundle.manifest != self.service.bundle.manifest:
                await self.watched(new.close)
                raise InputError(f"{new.bundle.root}: is another bundle by now; to serve it, ask for it (SIGHUP)")
        except Exception as error:
            self.metrics.reloads.labels("refused").inc()
            if isinstance(error, EdgeRecallError):
                raise
            raise RuntimeFailed(f"{type(error).__name__}: {error}") from error
        new.observed_by(self.metrics.observe)
        if same:
            new.owns_gallery, self.service.owns_gallery = True, False
        old, self.service, self.healthy = self.service, new, True
        self.metrics.reloads.labels("ok").inc()
        task = asyncio.create_task(self._retire(old))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _retire(self, old: Service) -> None:
        """Closes a service when nobody uses it."""
        while old.users or old.waiting:
            await asyncio.sleep(0.05)
        await self.watched(old.close)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Watches meanwhile."""
        watching = asyncio.create_task(self.watch())
        try:
            yield
        finally:
            watching.cancel()
            watching_and_retiring = {watching, *self._retiring}
            await asyncio.wait(watching_and_retiring, timeout=END_S)


def code_of(error: Exception) -> int:
    """HTTP's status code of what went wrong with a request."""
    if isinstance(error, Refused):
        return error.code
    codes = ((InputError, 400), (Busy, 503), (TooLate, 504))
    return next((code for kind, code in codes if isinstance(error, kind)), 500)


def told_of(error: Exception) -> str:
    """What its client is told; what it should not be told goes to the log."""
    if code_of(error) == 500:
        LOGGER.error("a request failed", exc_info=error)
        return f"{type(error).__name__}: see the server's log"
    return str(error)

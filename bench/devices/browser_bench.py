"""Rows measured in a browser: a page is served its job, measures, and posts what it found."""

from __future__ import annotations

import contextlib
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtimes.bundle.bundle import Bundle
from ...runtimes.bundle.manifest import Artifact
from ...runtimes.bundle.upgrade import present_files
from ...runtimes.bundle.web_pages import find_pages, unpack_pages
from ...runtimes.core.errors import InputError
from ...runtimes.core.versions import needs
from ...runtimes.embed.verify import TENSOR_TOLERANCE
from ...runtimes.predictor.backend import CANVAS, WEB, WEBGPU, Backend
from ...runtimes.predictor.registry import backend, found
from ..schema.group_result import Evidence, GroupResult
from ..schema.options import BenchOptions, OnProgress
from ..schema.rows import SCHEMA, Row
from .browser import LOOPBACK, Browser, Started, find_browser, parse_browser, started
from .device import DeviceLost
from .device_report import DeviceReport, ShownTensor, Wanted, lost, merge, pixels_differ, read_array, read_report
from .page_server import PageJob, PageServer, PageState, bound, require_server

NPY_BYTES = 256  # of an array's file, before its numbers
OPEN_S, SILENT_S, LOOK_S = 600.0, 90.0, 0.2


@dataclass
class BrowserBench:
    """A bundle's rows in a browser. random: inputs beside the images, float32 `(n, 3, H, W)`.

    programs: archives of `edgerecall cross` to choose from. silent_s: for how long a page may say nothing.
    """

    name: str
    bundle: Bundle
    options: BenchOptions
    random: NDArray[np.float32]
    programs: Sequence[Path] = ()
    group: int = 0
    silent_s: float = SILENT_S
    browser: Browser = field(init=False)

    def __post_init__(self) -> None:
        self.browser = parse_browser(self.name)

    def prepare(self) -> None:
        """Looks for the browser and the pages, and hashes what it gets. InputError, BundleError."""
        require_server()
        bound(self.browser.host, self.browser.port).close()
        if self.browser.program:
            find_browser(self.browser.program)
        with tempfile.TemporaryDirectory(prefix="edgerecall-browser-") as scratch:
            unpack_pages(find_pages(self.programs, "--device-program"), Path(scratch) / "pages")
        files = [file for artifact in self._artifacts for file in artifact.files]
        self.bundle.check([*files, *self.bundle.manifest.golden])

    def _backends(self) -> list[Backend]:
        """Those of browsers that are wanted: named, or over the artifacts of what is named."""
        wanted = {one.artifacts for one in map(backend, self.options.runtimes) if "cpu" in one.devices}
        return [
            one
            for one in found().backends.values()
            if "browser" in one.devices
            and (
                one.name in self.options.runtimes
                or (one.artifacts in wanted and not one.name.endswith((CANVAS, WEBGPU)))
            )
        ]

    @property
    def _artifacts(self) -> list[Artifact]:
        """Of the bundle, what they open."""
        runtimes = {one.artifacts for one in self._backends()}
        return [one for one in self.bundle.manifest.artifacts if one.runtime in runtimes]

    def measure(self, images: Sequence[Path], digests: Sequence[str], progress: OnProgress) -> GroupResult:
        """Its rows on the images. A browser that fails as a whole is one row with its reason."""
        try:
            rows = self._rows()
            with tempfile.TemporaryDirectory(prefix="edgerecall-browser-") as scratch:
                work = self._job(Path(scratch), rows, images, digests)
                return self._measure(work, rows, images, progress)
        except (DeviceLost, InputError) as error:  # what held when it was prepared may hold no longer
            return lost(self.name, False, self.group, str(error))

    def _rows(self) -> list[Row]:
        options = self.options
        models = [
            (one.name, quantisation)
            for one in self._backends()
            if (have := tuple(self.bundle.quantisations(one.artifacts)))
            for quantisation in options.quantisation or have
            if quantisation in one.quantisations
        ]
        if not models:
            raise DeviceLost("browsers run ONNX artifacts: the bundle has none, or none was asked for")
        axes = product(options.precision, options.threads, options.batch)
        return [
            options.row(*model, threads, precision, batch) for precision, threads, batch in axes for model in models
        ]

    def _measure(self, work: PageJob, rows: Sequence[Row], images: Sequence[Path], progress: OnProgress) -> GroupResult:
        browser = self.browser
        with PageServer(work, browser.host, browser.port, browser.address) as server, contextlib.ExitStack() as stack:
            running = None
            if browser.program:
                gpu = any(row.runtime.endswith(WEBGPU) for row in rows)
                running = stack.enter_context(started(browser.program, server.link, gpu))
            else:
                tell(server.link, browser.host)
            self._wait(work.state, running, progress, len(rows), len(images))
        report = read_report(work.results, self.name)
        for told, row in zip(report.rows, rows, strict=False):  # what was asked is ours to say
            told |= {
                "runtime": row.runtime.removeprefix(WEB),
                "name": row.name.removeprefix(WEB),
                "quantisation": row.quantisation,
                "requested_precision": row.requested_precision,
                "requested_threads": row.requested_threads,
                "batch": row.batch,
            }
        dim = self.bundle.spec.embedding_dim
        wanted = Wanted(self.name, False, WEB, images, len(self.random), dim, len(rows), self.group)
        merged = merge(report, work.results, wanted)
        merged = replace(merged, evidence=self._evidence(report, work.results, rows, merged.rows, images))
        if work.state.hidden:
            for row in merged.rows:
                row.warnings.append("the page was in the background for a while: browsers slow such pages down")
        return merged

    def _evidence(
        self, report: DeviceReport, folder: Path, asked: Sequence[Row], rows: Sequence[Row], images: Sequence[Path]
    ) -> dict[str, Evidence]:
        """What the page handed in of rows that differ, by row name; what cannot be used is left out. A row whose own
        tensors of the golden images differ fails, unless it is there to show that.
        """
        spec, evidence = self.bundle.spec, {}
        golden, sealed, _ = self.bundle.golden()
        shown = {one.row: one for one in report.shown}
        for index, (plan, row) in enumerate(zip(asked, rows, strict=True)):
            if index not in shown and row.status == "ok":
                continue
            one = shown.get(index, ShownTensor(row=index))
            image = entry(images, one.image) if one.golden is None else entry(golden, one.golden)
            tensor = None if image is None else array_or_none(folder / f"row-{index}-tensor.npy", spec.input_shape)
            embeddings = array_or_none(folder / f"row-{index}-golden.npy", (len(golden), spec.embedding_dim))
            if tensor is not None and one.golden is not None and not plan.runtime.endswith(CANVAS):
                error = float(np.abs(tensor - sealed[one.golden]).max())
                if error > TENSOR_TOLERANCE:
                    row.fail("parity", pixels_differ(error))
            runtime = backend(plan.runtime).artifacts
            evidence[row.name] = Evidence(runtime, plan.quantisation, image, tensor, embeddings)
        return evidence

    def _job(self, scratch: Path, rows: Sequence[Row], images: Sequence[Path], digests: Sequence[str]) -> PageJob:
        options, dim = self.options, self.bundle.spec.embedding_dim
        pages, results = scratch / "pages", scratch / "results"
        unpack_pages(find_pages(self.programs, "--device-program"), pages)
        results.mkdir()
        files = {f"images/{index}": path for index, path in enumerate(images)}
        np.save(scratch / "inputs.npy", self.random)
        files["inputs.npy"] = scratch / "inputs.npy"
        sealed = present_files(self.bundle, self._artifacts, scratch)
        files |= {f"bundle/{name}": path for name, path in sealed.items()}
        job: dict[str, Any] = {
            "schema": SCHEMA,
            "images": [{"path": f"images/{i}", "sha256": digest} for i, digest in enumerate(digests)],
            "rows": [
                {
                    "runtime": backend(row.runtime).artifacts,
                    "pixels": "canvas" if row.runtime.endswith(CANVAS) else "core",
                    "provider": "webgpu" if row.runtime.endswith(WEBGPU) else "wasm",
                    "name": row.name,
                    "quantisation": row.quantisation,
                    "precision": row.requested_precision,
                    "threads": row.requested_threads,
                    "batch": row.batch,
                }
                for row in rows
            ],
            "samples": options.samples,
            "rounds": options.rounds,
            "seconds": options.seconds,
            "timeout_s": options.timeout_s,
            "together": options.together,
        }
        sizes = {"": len(images), "-inputs": len(self.random), "-golden": len(self.bundle.manifest.golden_images)}
        arrays = {
            f"row-{index}{kind}.npy": 4 * dim * count + NPY_BYTES
            for index in range(len(rows))
            for kind, count in sizes.items()
        }
        size = 4 * math.prod(self.bundle.spec.input_shape) + NPY_BYTES
        arrays |= {f"row-{index}-tensor.npy": size for index in range(len(rows))}
        return PageJob(pages, job, files, arrays, results)

    def _wait(self, state: PageState, running: Started | None, progress: OnProgress, rows: int, images: int) -> None:
        """Until the page has posted its result. DeviceLost when it ends, is silent, or takes longer than it may."""
        options = self.options
        steps = 8 + options.rounds + images // 8
        begin, limit = time.monotonic(), OPEN_S + rows * steps * options.timeout_s
        while not state.done:
            now = time.monotonic()
            if state.gone:
                raise DeviceLost(f"{self.name}: {state.gone}")
            if running is not None and running.ended is not None:
                raise DeviceLost(f"{self.name}: the browser ended: {running.ended}")
            if not state.opened and now - begin > (SILENT_S if running else OPEN_S):
                who, most = ("the browser that was started", SILENT_S) if running else ("nobody", OPEN_S)
                raise DeviceLost(f"{self.name}: {who} has opened the page within {most:g} s")
            if state.opened and now - state.beat > self.silent_s:
                raise DeviceLost(
                    f"{self.name}: the page has said nothing for {self.silent_s:g} s: asleep, closed or offline"
                    f" while {state.what or 'loading'}"
                )
            if now - begin > limit:
                raise DeviceLost(f"{self.name}: no result within {limit:g} s")
            progress(f"{self.name}: {state.what or ('loading' if state.opened else 'waiting for it')}", state.share)
            time.sleep(LOOK_S)


def entry(paths: Sequence[Path], index: int | None) -> Path | None:
    """The one at an index that came from outside, if it is there."""
    return paths[index] if index is not None and 0 <= index < len(paths) else None


def array_or_none(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    """A finite float32 array of this shape; None for anything else, or nothing."""
    with contextlib.suppress(DeviceLost):
        return read_array(path, shape)
    return None


def tell(link: str, host: str) -> None:
    """The link, and for other devices its QR code, on the terminal."""
    sys.stderr.write(f"open this link in the browser that is to be measured:\n  {link}\n")
    if host == LOOPBACK:
        sys.stderr.write("(on this machine; for a phone, name an address that it reaches: --device browser@ADDRESS)\n")
        return
    try:
        import segno
    except ImportError as error:
        sys.stderr.write(f"(its QR code {needs('segno', error=error)})\n")
        return
    segno.make(link).terminal(sys.stderr, compact=True)

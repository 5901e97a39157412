"""TensorRT's engines: built from ONNX on the device that runs them, and kept in the user's cache.

An engine holds for one GPU, driver and version of TensorRT alone. TensorRT and TensorRT for RTX have the same Python
interface (docs.nvidia.com/deeplearning/tensorrt), under two names.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..core.errors import InputError, RuntimeFailed
from ..core.files import atomic_file, user_cache
from ..core.text import one_line

FROM_CACHE = "from the cache"


@dataclass(frozen=True)
class EngineKey:
    """What an engine holds for.

    library, version: such as "tensorrt_rtx", "1.7.1.116". gpu, capability, driver: as the driver tells them; "" where
    it is built for other GPUs than this one. model_sha256: of the ONNX file. shape: of one image, `(3, H, W)`. most:
    images at a time, for which it is fastest. tf32: whether float32 factors are rounded to ten bits first.
    """

    library: str
    version: str
    gpu: str
    capability: str
    driver: str
    model_sha256: str
    shape: tuple[int, ...]
    most: int
    tf32: bool

    @property
    def name(self) -> str:
        """A file name that no other key has."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{digest[:32]}.engine"


def engine_folder() -> Path:
    """Where engines are kept; it may be deleted at any time."""
    return user_cache() / "tensorrt"


def log_of(library: Any) -> Any:
    """A logger that keeps errors, as lines, in its `lines`, and prints nothing."""

    class Log(library.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (library.Logger.INTERNAL_ERROR, library.Logger.ERROR):
                self.lines.append(one_line(message))

    return Log()


def reason(log: Any, otherwise: str) -> str:
    """The last error that was logged."""
    return log.lines[-1] if log.lines else otherwise


def build_engine(library: Any, model: Path, key: EngineKey, targets: Sequence[str] = ()) -> bytes:
    """Parses an ONNX file and builds its engine.

    library: the module `tensorrt` or `tensorrt_rtx`. targets: compute capabilities to build for instead of this GPU's,
    such as "8.6" (TensorRT for RTX alone; no GPU is needed then). Types are the graph's own: float32 layers of float32
    tensors, float16 of float16. RuntimeFailed, with the parser's first
    or the builder's last reason, when it is not taken.
    """
    log = log_of(library)
    builder = library.Builder(log)
    network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = library.OnnxParser(network, log)
    if not parser.parse(model.read_bytes()):
        first = parser.get_error(0) if parser.num_errors else None
        why = f"{first.desc()} (node {first.node_name() or first.node()})" if first else reason(log, "no reason given")
        raise RuntimeFailed(f"{library.__name__} cannot read {model.name}: {one_line(why)}")
    if (network.num_inputs, network.num_outputs) != (1, 1):
        ends = f"{network.num_inputs} inputs and {network.num_outputs} outputs"
        raise RuntimeFailed(f"{library.__name__}: {model.name} has {ends}, expected one of each")
    config = builder.create_builder_config()
    (config.set_flag if key.tf32 else config.clear_flag)(library.BuilderFlag.TF32)  # on where nobody says otherwise
    if targets:
        config.num_compute_capabilities = len(targets)
        for index, target in enumerate(targets):
            config.set_compute_capability(compute_capability(library, target), index)
    elif hasattr(library, "ComputeCapability"):  # that of RTX builds for a choice of GPUs otherwise
        config.num_compute_capabilities = 1
        config.set_compute_capability(library.ComputeCapability.CURRENT, 0)
    profile = builder.create_optimization_profile()
    profile.set_shape(network.get_input(0).name, *((count, *key.shape) for count in (1, key.most, key.most)))
    config.add_optimization_profile(profile)
    built = builder.build_serialized_network(network, config)
    if built is None:
        raise RuntimeFailed(f"{library.__name__} cannot build {model.name}: {reason(log, 'no reason given')}")
    return bytes(built)


def compute_capability(library: Any, target: str) -> Any:
    """TensorRT's name of a compute capability such as "8.6". RuntimeFailed for one that it does not build for."""
    known = {
        f"{name[2:-1]}.{name[-1]}": value
        for name, value in library.ComputeCapability.__members__.items()
        if name.startswith("SM")
    }
    if target not in known:
        raise RuntimeFailed(
            f"{library.__name__} {library.__version__} builds for compute capability {', '.join(sorted(known))},"
            f" not for {target}"
        )
    return known[target]


def cached_engine(library: Any, model: Path, key: EngineKey) -> tuple[bytes, str]:
    """The engine, and where it came from: "built in 34 s", or "from the cache"; kept, where that can be written."""
    kept = engine_folder() / key.name
    if kept.is_file():
        return kept.read_bytes(), FROM_CACHE
    start = time.perf_counter()
    engine = build_engine(library, model, key)
    origin = f"built in {time.perf_counter() - start:.1f} s"
    try:
        kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # what is read from it is run
        with atomic_file(kept) as temporary:
            temporary.write_bytes(engine)
    except (InputError, OSError):
        origin += ", not kept"
    return engine, origin

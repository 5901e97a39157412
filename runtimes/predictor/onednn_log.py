"""What oneDNN ran, from its own log (https://uxlfoundation.github.io/oneDNN/dev_guide_verbose.html)."""

from __future__ import annotations

import ctypes
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from .interface import ExecutionRecord
from .precision import executed_name
from .prints import redirected

HEAVY = ("convolution", "deconvolution", "inner_product", "matmul")


def recorded(library: Path, action: Callable[[], object]) -> list[str]:
    """Lines that the loaded oneDNN `library` logs during the action. Whatever else is printed meanwhile is lost."""
    onednn = ctypes.CDLL(str(library))
    with tempfile.TemporaryFile() as log:
        with redirected(1, log.fileno()):
            onednn.dnnl_set_verbose(1)
            try:
                action()
            finally:
                onednn.dnnl_set_verbose(0)
        log.seek(0)
        return log.read().decode(errors="replace").splitlines()


def executed_by(lines: Iterable[str]) -> ExecutionRecord | None:
    """What a log says; None when it names no heavy layer.

    A line is `onednn_verbose,v1,primitive,exec,cpu,KIND,IMPLEMENTATION,PROPAGATION,MEMORY,ATTRIBUTES,...`; the type of
    the weights is the layer's, unless the attribute `fpmath` lets float32 be computed in less.
    """
    operators: Counter[str] = Counter()
    types = set()
    for line in lines:
        fields = line.split(",")
        if len(fields) < 10 or fields[2:4] != ["primitive", "exec"] or fields[5] not in HEAVY:
            continue
        memory = dict(part.split(":", 2)[:2] for part in fields[8].split() if part.count(":") >= 2)
        mode = next((a.split(":")[1] for a in fields[9].split() if a.startswith("attr-fpmath:")), "")
        name = memory.get("wei", memory.get("src", "unknown"))
        name = mode if name == "f32" and mode not in ("", "strict") else name
        types.add(name)
        operators[f"{fields[5]} {name} {fields[6]}"] += 1
    return ExecutionRecord(executed_name(types), "oneDNN's log", dict(operators)) if types else None

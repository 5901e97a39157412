"""Checks the core's includes: a room of cpp/src includes rooms below it, and there is no include cycle."""

from __future__ import annotations

import re
from pathlib import Path

CPP = Path(__file__).resolve().parent.parent / "cpp"
# Lowest first; rooms of one level do not include each other.
ROOMS = (("base",), ("image",), ("preprocess", "search", "runtimes"), ("bundle",), ("gallery",))
LEVELS = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
# Public headers belong to the room that implements them, or to all.
PUBLIC = {
    "error": "",
    "machine": "",
    "progress": "",
    "bit_gallery": "search",
    "bundle": "bundle",
    "decode": "image",
    "disk_gallery": "gallery",
    "image": "image",
    "npy": "bundle",
    "predictor": "runtimes",
    "preprocess": "preprocess",
    "resize": "preprocess",
    "retrieval": "search",
    "search": "search",
    "sha256": "bundle",
}


def included(path: Path) -> list[Path]:
    """Our own headers that a file includes."""
    names = re.findall(r'^#include "([^"]+)"', path.read_text(), re.MULTILINE)
    places = [CPP / folder / name for name in names for folder in ("include", "src", "tools")]
    return [place for place in places if place.is_file()]


def room(path: Path) -> str:
    """The room of a file of the core; empty for what every room may include, and for programs and tests."""
    if path.is_relative_to(CPP / "src"):
        return path.relative_to(CPP / "src").parts[0]
    return PUBLIC[path.stem] if path.is_relative_to(CPP / "include") else ""


def strangers(paths: list[Path]) -> list[str]:
    """Rooms and public headers that are not listed here."""
    found = []
    for path in paths:
        if path.is_relative_to(CPP / "include") and path.stem not in PUBLIC:
            found.append(f"{path.relative_to(CPP)}: name its room in PUBLIC of scripts/check_includes.py")
        if path.is_relative_to(CPP / "src") and path.relative_to(CPP / "src").parts[0] not in LEVELS:
            found.append(f"{path.relative_to(CPP)}: name its room in ROOMS of scripts/check_includes.py")
    return found


def back_arrows(graph: dict[Path, list[Path]]) -> list[str]:
    """Includes of a room that is not below."""
    found = []
    for path, headers in graph.items():
        for header in headers:
            here, there = room(path), room(header)
            if here and not there and not header.is_relative_to(CPP / "include"):
                found.append(
                    f"{path.relative_to(CPP)} includes {header.relative_to(CPP)}, which is no part of the core"
                )
            if here and there and here != there and LEVELS[here] <= LEVELS[there]:
                found.append(f"{path.relative_to(CPP)} ({here}) includes {header.relative_to(CPP)} ({there})")
            tools = CPP / "tools"
            if path.parent == tools and header.is_relative_to(tools / "bench"):
                found.append(f"{path.relative_to(CPP)} includes {header.relative_to(CPP)}")
    return found


def circles(graph: dict[Path, list[Path]]) -> list[str]:
    """Headers that include themselves by others."""
    found: list[str] = []
    done: set[Path] = set()

    def visit(path: Path, trail: list[Path]) -> None:
        if path in trail:
            found.append(" -> ".join(str(step.relative_to(CPP)) for step in [*trail[trail.index(path) :], path]))
        elif path not in done:
            for header in graph.get(path, []):
                visit(header, [*trail, path])
            done.add(path)

    for path in graph:
        visit(path, [])
    return found


def main() -> None:
    """Exit code 1, and one line per fault."""
    graph = {path: included(path) for path in sorted(CPP.rglob("*")) if path.suffix in (".h", ".cpp")}
    faults = strangers(list(graph)) or back_arrows(graph) + circles(graph)
    if faults:
        raise SystemExit("\n".join(faults))
    print(f"includes of {len(graph)} files: no cycle, no upward include")


if __name__ == "__main__":
    main()

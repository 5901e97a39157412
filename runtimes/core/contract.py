"""What Python and the C++ core must agree on: `contract.json`, which CMake makes a header of (cmake/contract.cmake)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CONTRACT: dict[str, Any] = json.loads(Path(__file__).with_name("contract.json").read_text(encoding="utf-8"))

"""Numbers that several config sections take."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
# Of what takes memory with its number. Counts of time (epochs, iterations) are Positive: more of them take longer.
Images = Annotated[int, Field(ge=1, le=65_536)]  # in a batch
Dim = Annotated[int, Field(ge=1, le=65_536)]  # of features and embeddings
Workers = Annotated[int, Field(ge=0, le=256)]
Rate = Annotated[float, Field(gt=0)]


def flat(name: str, section: BaseModel) -> dict[str, str]:
    """What a section says, as text by `a.b.c`; entries of a list of sections by their number."""
    found: dict[str, str] = {}
    for key, value in section:
        place = f"{name}.{key}"
        if isinstance(value, BaseModel):
            found |= flat(place, value)
        elif isinstance(value, tuple) and value and all(isinstance(entry, BaseModel) for entry in value):
            for index, entry in enumerate(value):
                found |= flat(f"{place}.{index}", entry)
        else:
            found[place] = str(value)
    return found

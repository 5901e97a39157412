"""Galleries in a vector database: a collection each, and what they are in a register beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..core.errors import InputError
from ..gallery.identity import ModelIdentity
from .address import MISSING
from .interface import IsThere, NewRow, Store


class RegisteredStore(Store):
    """collection: the gallery's. about: what the register says of it: dim, model, command, index and recall."""

    collection: str

    def _settle(
        self, told: dict[str, Any] | None, there: bool, dim: int | None, model: ModelIdentity | None, command: str
    ) -> dict[str, Any]:
        """What the register says, or is to say of a new gallery. told: by it. there: whether the collection is.

        InputError where there is none and none is to be made, for another's collection, and for another size.
        """
        if told is None:
            if dim is None:
                raise InputError(f"{self.where}: {MISSING}")
            if there:
                raise InputError(f"{self.where}: is there already, and no gallery: choose another name")
            of_model = None if model is None else model.model_dump(mode="json")
            return {"dim": dim, "model": of_model, "command": command, "index": None, "recall": None}
        if dim is not None and told["dim"] != dim:
            raise InputError(f"{self.where}: has embeddings of {told['dim']} numbers, expected {dim}")
        return told

    def _take(self, about: dict[str, Any]) -> None:
        """Is the gallery that the register tells of."""
        self._about = about
        self.dim, self.index, self.recall, self.model = about["dim"], about["index"], about["recall"], None
        if about["model"] is not None:
            self.model = ModelIdentity.model_validate_json(json.dumps(about["model"]))

    def _replaced(self, rows: Sequence[NewRow], replace: bool) -> set[str]:
        """Ids of rows that are there already. IsThere unless they may be replaced."""
        there = self.known([one.id for one in rows])
        if there and not replace:
            raise IsThere(f"{self.where}: id {min(there)!r:.200} is there already")
        return there

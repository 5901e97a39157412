"""Where a gallery in a vector database is: `SCHEME://HOST[:PORT][?collection=NAME&KEY=SECRET]`, or a place on disk."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..core.errors import InputError

COLLECTION = "products"
REGISTER = "edgerecall_galleries"  # a collection that tells of all galleries
SPACE = uuid.UUID("5f3a1b52-6c5e-4d0c-9d7e-3a1f1c9b2e10")
MISSING = "expected a gallery, and there is none: make one by 'gallery push'"


@dataclass(frozen=True)
class Address:
    """scheme, place: as told of. host: and port, or None where `path` is on this machine. options: the secret ones and
    others that the database knows.
    """

    scheme: str
    place: str
    host: str | None
    path: Path
    collection: str
    options: dict[str, str]

    @property
    def told(self) -> str:
        """Without a password."""
        return f"{self.scheme}://{self.place}, collection {self.collection}"


def address_of(url: str, port: int, known: tuple[str, ...], expected: str) -> Address:
    """What a URL says. port: where it has none. known: options beside the collection. InputError(expected)."""
    try:
        parts = urlsplit(url)
        host, given = parts.hostname, parts.port
    except ValueError:
        raise InputError(expected) from None
    options = {key: unquote(value) for key, _, value in (one.partition("=") for one in parts.query.split("&") if one)}
    collection = options.pop("collection", COLLECTION)
    path = Path(unquote(parts.path))
    misplaced = parts.path.strip("/") if host else len(path.parts) < 2
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise InputError(f"{expected}; a # is %23, and a key stands in the option")
    if set(options) - set(known) or not collection or misplaced:
        raise InputError(expected)
    if collection == REGISTER:
        raise InputError(f"collection: {REGISTER} is where galleries are told of: choose another name")
    named = f"[{host}]" if host and ":" in host else host
    place = f"{named}:{given or port}" if host else str(path)
    return Address(parts.scheme, place, host, path, collection, options)


def key_of(name: str) -> str:
    """A row's key where it may not be any text: a UUID."""
    return str(uuid.uuid5(SPACE, name))

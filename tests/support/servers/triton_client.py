"""tritonclient against a server, in an environment that has it: `triton_client.py URL GRPC FOLDER OUT`.

What a user of Triton would call; embeddings of the images in FOLDER, in sorted order, go to OUT as arrays.
"""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as by_grpc
import tritonclient.http as by_http

REQUESTS, CLIENTS = 200, 16


def embeddings(module: Any, address: str, images: list[bytes], **options: Any) -> np.ndarray:
    """Of requests by as many clients at the same time, each of one image, in the images' turn."""
    own = threading.local()  # the HTTP client stays in its thread

    def ask(number: int) -> np.ndarray:
        if not hasattr(own, "client"):
            own.client = module.InferenceServerClient(address)
        given = module.InferInput("image", [1], "BYTES")
        given.set_data_from_numpy(np.array([images[number % len(images)]], dtype=np.object_))
        answer = own.client.infer("bundle", [given], request_id=str(number), **options)
        assert answer.as_numpy("embedding").shape[0] == 1
        return answer.as_numpy("embedding")[0]

    with ThreadPoolExecutor(CLIENTS) as pool:
        return np.stack(list(pool.map(ask, range(REQUESTS))))


def tensors(module: Any, client: Any, given: np.ndarray) -> np.ndarray:
    """Of preprocessed images, in one request."""
    tensor = module.InferInput("tensor", list(given.shape), "FP32")
    tensor.set_data_from_numpy(given)
    outputs = [module.InferRequestedOutput("embedding")]
    return client.infer("bundle", [tensor], outputs=outputs).as_numpy("embedding")


def main(url: str, grpc: str, folder: Path, out: Path) -> None:
    """Asks by both."""
    paths = sorted(path for path in folder.iterdir() if path.suffix != ".npy")
    images = [path.read_bytes() for path in paths]
    given = np.load(folder / "tensors.npy")
    found = {}
    for name, module, address in (("http", by_http, url), ("grpc", by_grpc, grpc)):
        client = module.InferenceServerClient(address)
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("bundle")
        assert not client.is_model_ready("other")
        metadata = client.get_model_metadata("bundle")
        outputs = metadata["outputs"] if name == "http" else metadata.outputs
        named = [one["name"] if name == "http" else one.name for one in outputs]
        assert named == ["embedding"], named
        found[name] = embeddings(module, address, images)
        found[f"{name}_tensor"] = tensors(module, client, given)
        try:
            client.infer("other", [module.InferInput("image", [1], "BYTES")])
        except Exception as error:
            found[f"{name}_error"] = np.array(str(error))
    found["compressed"] = embeddings(by_grpc, grpc, images[:4], compression_algorithm="gzip")
    np.savez(out, **found)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))

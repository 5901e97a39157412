"""Evaluation encodes by the parameters of the moment, whatever was encoded before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle

from edgerecall.train.config.training import load_config
from edgerecall.train.encoder import TRACED, encoder
from edgerecall.train.network import EmbeddingNetwork


def test_each_state_is_encoded_as_it_is(config_file: Path) -> None:
    config = load_config(config_file)
    images = np.random.default_rng(0).random((3, *config.Global.image_shape), dtype=np.float32)
    seen = []
    for seed in (0, 1, 0):  # the program is written once, and the parameters are others
        paddle.seed(seed)
        network = EmbeddingNetwork(config.Arch)
        network.eval()
        for _, statistics in network.named_buffers():
            statistics.set_value(statistics + paddle.rand(statistics.shape))
        expected = network(paddle.to_tensor(images)).numpy()
        with encoder(config, network.state_dict()) as encode:
            seen.append(encode(images))
        np.testing.assert_allclose(seen[-1], expected, atol=1e-5 * np.abs(expected).max())
    (program,) = TRACED.values()
    assert len(program.forward._program_cache._caches) == 1
    assert (seen[0] == seen[2]).all() and np.abs(seen[0] - seen[1]).max() > 0.1 * np.abs(seen[0]).max()


def test_a_section_that_says_what_is_the_default_makes_another_network(config_file: Path) -> None:
    """`BackboneStopLayer: flatten`, written down, leaves the backbone's own last layer out."""
    sizes = []
    for more in ([], ["Arch.BackboneStopLayer={name: flatten}"]):
        wanted = ["Arch.Neck=null", "Arch.Backbone.class_num=12", *more]
        config = load_config(config_file, wanted)
        images = np.zeros((2, *config.Global.image_shape), np.float32)
        network = EmbeddingNetwork(config.Arch)
        network.eval()
        with encoder(config, network.state_dict()) as encode:
            assert encode(images).shape == (2, network.embedding_dim)
        sizes.append(network.embedding_dim)
    assert sizes[0] == 12 != sizes[1]

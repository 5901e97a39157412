"""Paddle Lite's optimiser. Runs in the Lite sidecar: standard library and paddlelite only, Python 3.8 syntax."""

from __future__ import annotations

import sys


def main() -> None:
    """Arguments: model, params, output prefix (`.nb` is appended), valid places."""
    from paddlelite.lite import Opt

    model, params, output, places = sys.argv[1:]
    opt = Opt()
    opt.set_model_file(model)
    opt.set_param_file(params)
    opt.set_valid_places(places)
    opt.set_model_type("naive_buffer")
    opt.set_optimize_out(output)
    opt.run()

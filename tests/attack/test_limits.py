"""Every number that comes from outside, at 0, -1 and 10^9: done, or refused in one line. And little memory to do it."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, get_args

import click
import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from edgerecall.bench.schema.gates import Gates
from edgerecall.cli import COMMANDS, group
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.embed.predict_config import RecConfig
from edgerecall.runtimes.preprocess.ops import Preprocess

Make = Callable[..., Bundle]
VALUES = ("0", "-1", "1000000000")
FLOATS = (*VALUES, "nan", "inf")
# Texts that hold numbers.
TEXTS = {"bench": ("--threads", "--batch", "--cpus")}
# What a verb needs beside the option. Those of the trainer are not let come to it: click bounds their numbers.
NEEDED: dict[str, tuple[str, ...]] = {
    "data synth": ("NEW", "--train-classes", "2", "--test-classes", "2", "--images-per-class", "2", "--size", "32"),
    "data convert": ("NONE",),
    "data folder": ("DATA", "--lists", "NEW"),
    "export": ("NEW", "--model", "NONE", "--preprocess", "NONE", "--images", "NONE"),
    "eval": ("-c", "NONE"),
    "verify": ("BUNDLE",),
    "quantize": ("BUNDLE", "--calibrate", "DATA", "--artifacts", "onnx-int8"),
    "gallery build": ("NEW", "BUNDLE", "--images", "DATA", "--runtime", "fake"),
    "gallery add": ("NONE", "BUNDLE", "--images", "DATA"),
    "gallery compact": ("NONE",),
    "gallery search": ("NONE", "BUNDLE", "DATA"),
    "detector find": ("NONE", "DATA"),
    "embed": ("BUNDLE", "NEW", "--images", "DATA", "--runtime", "fake"),
    "serve": ("BUNDLE", "--runtime", "fake", "--gallery", "NONE"),
    "bench": ("BUNDLE", "--images", "DATA", "--samples", "2", "--rounds", "1", "--seconds", "1", "--limit", "8"),
}
# Counts of time: a larger one takes longer, and no more memory.
TIME = {
    "epochs", "iter_per_epoch", "save_interval", "save_steps", "keep_epochs", "eval_interval", "start_eval_epoch",
    "print_batch_step", "update_freq", "drift_interval", "seed", "max_iters", "start_iter", "warmup_epoch", "patience",
    "cooldown", "milestones", "decay_epochs", "total_epochs", "id_list",
}  # fmt: skip


def numbers() -> Iterator[tuple[str, str, str]]:
    """Verb, option and value, of every option that takes a number."""
    verbs: dict[str, click.Command] = {}
    for name in COMMANDS:
        verb = group.get_command(click.Context(group), name)
        assert verb is not None
        inner = verb.commands if isinstance(verb, click.Group) else {"": verb}
        verbs.update({f"{name} {one}".strip(): command for one, command in inner.items()})
    for name, verb in verbs.items():
        for option in verb.params:
            whole = isinstance(option.type, click.types.IntParamType)
            if whole or isinstance(option.type, click.types.FloatParamType) or option.opts[0] in TEXTS.get(name, ()):
                for value in VALUES if whole else FLOATS:
                    yield name, option.opts[0], value


def run(arguments: list[str], memory: int = 8 << 30) -> subprocess.CompletedProcess[str]:
    """The command line with so many bytes of address space."""
    limit = (memory, memory)
    one = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # or the space depends on the number of cores
    return subprocess.run(
        [sys.executable, "-m", "edgerecall", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **one},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limit),
    )


def told_or_done(result: subprocess.CompletedProcess[str]) -> None:
    """0, a result that does not hold, or bad input in one line."""
    assert result.returncode in (0, 1, 2), result.stderr
    assert "Traceback" not in result.stderr and "bug of ours" not in result.stderr
    assert len(result.stderr) < 2000
    if result.returncode == 2:
        said = [line for line in result.stderr.splitlines() if line.startswith(("edgerecall: ", "Error: "))]
        assert len(said) == 1, result.stderr


@pytest.mark.parametrize(("verb", "option", "value"), list(numbers()))
def test_every_number_of_the_command_line(
    fake_bundle: Make, data: Path, tmp_path: Path, verb: str, option: str, value: str
) -> None:
    assert verb in NEEDED, f"'{verb}' takes a number: say in NEEDED what else it needs"
    words = {"DATA": data, "NONE": tmp_path / "none", "NEW": tmp_path / "new"}
    if "BUNDLE" in NEEDED[verb]:
        words["BUNDLE"] = fake_bundle().root
    told_or_done(run([*verb.split(), *(str(words.get(word, word)) for word in NEEDED[verb]), f"{option}={value}"]))


def inner_models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from inner_models(part)


def models(top: type[BaseModel], seen: set[type[BaseModel]]) -> set[type[BaseModel]]:
    """A model and all that its fields may hold."""
    if top not in seen:
        seen.add(top)
        for field in top.model_fields.values():
            for inner in inner_models(field.annotation):
                models(inner, seen)
    return seen


def holds_int(annotation: Any) -> bool:
    return annotation is int or any(holds_int(part) for part in get_args(annotation))


def test_every_count_of_a_config_has_a_bound() -> None:
    """A billion images, embeddings or processes are refused when the config is read; a billion epochs are not."""
    from edgerecall.train.config.training import TrainConfig
    from edgerecall.train.data.random_ops import AFTER, RANDOM

    counts = 0
    tops = (TrainConfig, RecConfig, Preprocess, Gates, *RANDOM.values(), *AFTER.values())
    for model in {one for top in tops for one in models(top, set())}:
        for name, field in model.model_fields.items():
            if not holds_int(field.annotation):
                continue
            counts += 1
            adapter = TypeAdapter(Annotated[(field.annotation, *field.metadata, None)])
            taken = []
            for value in (10**9, [10**9], [10**9, 10**9], [3, 10**9, 10**9]):
                with contextlib.suppress(ValidationError):
                    taken.append(adapter.validate_python(value))
            assert not taken or name in TIME, f"{model.__name__}.{name} takes {taken}"
    assert counts > 30


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", ["batch_size", "cpu_num_threads", "gpu_mem"])
def test_numbers_of_predict(fake_bundle: Make, data: Path, root: Path, name: str, value: str) -> None:
    settings = {
        "infer_imgs": next(data.glob("*_final/*.JPG")),
        "rec_inference_model_dir": fake_bundle().root,
        "runtime": "fake",
        name: value,
    }
    overrides = [word for key, one in settings.items() for word in ("-o", f"Global.{key}={one}")]
    told_or_done(run(["predict", "-c", str(root / "configs" / "inference_rec.yaml"), *overrides]))


@pytest.mark.parametrize(
    "verb", ["verify", "bench", "predict", "doctor", "compare", pytest.param("eval", marks=pytest.mark.train)]
)
def test_little_memory(fake_bundle: Make, data: Path, root: Path, tmp_path: Path, verb: str) -> None:
    """400 MB of address space: enough, or said in one line."""
    bundle = str(fake_bundle().root)
    (tmp_path / "old.json").write_text("{}")
    config = str(root / "configs" / "inference_rec.yaml")
    image = next(data.glob("*_final/*.JPG"))
    predict = {"rec_inference_model_dir": bundle, "runtime": "fake", "infer_imgs": image}
    given = {
        "verify": [bundle],
        "eval": ["-c", str(root / "configs" / "demo.yaml")],
        "bench": [bundle, "--images", str(data), "--samples", "2", "--rounds", "1"],
        "predict": ["-c", config, *(word for key, one in predict.items() for word in ("-o", f"Global.{key}={one}"))],
        "compare": [str(tmp_path / "old.json"), str(tmp_path / "old.json")],
    }
    result = run([verb, *given.get(verb, [])], memory=400 << 20)
    if verb == "eval":  # Paddle alone takes more, and says so too
        said = result.stderr.splitlines()[-1]
        assert result.returncode == 2 and "Traceback" not in result.stderr, result.stderr
        assert said.startswith("edgerecall: this needs more memory than this process may use")
        return
    told_or_done(result)
    if verb != "compare":  # which is given no result
        assert result.returncode == 0, result.stderr

"""Where two runtimes' graphs part: the operator at fault and the parameter that differs, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...runtimes.bundle.bundle import Bundle
from ...runtimes.core.errors import EdgeRecallError
from ...runtimes.embed.replicas import open_predictor
from ...runtimes.predictor.interface import InnerTensor, Predictor, RunOptions
from ...runtimes.predictor.registry import backend
from .fault_search import Fault, Search, search
from .matching import by_channel, plain
from .sides import ALLOWED, Side, Tensor, embed, max_error

REFERENCES = ("paddle", "onnxruntime", "openvino")  # those that show the most operators first
NOISE, STRONG = (1.0, 1.0), (3.0, 3.0, 10.0, 10.0)  # images of noise: how strong, relative to the golden tensors
CONFIRMED, SUSPECTED = FOUND = ("confirmed: ", "suspected: ")
SAME_WEIGHT = 1e-6  # relative to the parameter's largest |value|


@dataclass(frozen=True)
class Shown:
    """A runtime that can be looked into."""

    name: str
    predictor: Predictor


def probes(bundle: Bundle, tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs that let faults show. First the tensor, the golden one least like it, and noise, which wakes dead
    channels; then, in a batch of its own, beside which small values would not count, strong noise, which wakes others
    and reaches bounds.
    """
    _, golden, _ = bundle.golden()
    other = golden[int(np.abs(golden - tensor).mean(axis=(1, 2, 3)).argmax())]
    rng = np.random.default_rng(0)
    weak, strong = (
        rng.standard_normal((len(sizes), *tensor.shape), dtype=np.float32)
        * (np.array(sizes, dtype=np.float32)[:, None, None, None] * golden.std())
        + golden.mean()
        for sizes in (NOISE, STRONG)
    )
    return np.concatenate([tensor[None], other[None], weak]), strong


def is_wrong(predictor: Predictor, bundle: Bundle) -> bool:
    """Whether the golden tensors do not give the sealed embeddings."""
    _, tensors, sealed = bundle.golden()
    return not max_error(embed(predictor, *tensors), sealed) <= ALLOWED  # NaN too


def reference(bundle: Bundle, suspect: Side, other: Side, stack: ExitStack) -> Shown | None:
    """A runtime that gives what is sealed and shows its operators: Paddle before the others, which fuse more."""
    mine = suspect.name.partition(":")[0]
    for name in REFERENCES:
        if backend(name).artifacts == backend(mine).artifacts or not bundle.artifacts_for(name):
            continue
        try:
            opened = other.predictor if other.name == name and other.bundle is bundle else None
            predictor = opened or stack.enter_context(open_predictor(bundle, name, RunOptions(), worker=True))
            if not is_wrong(predictor, bundle):
                return Shown(name, predictor)
        except EdgeRecallError:  # not installed here, or it does not run: the next one
            continue
    return None


def unseen_fault(a: Side, b: Side, tensor: Tensor) -> str | None:
    """An operator at fault although the embeddings agree, in words; None when there is none, or no way to look."""
    with ExitStack() as stack:
        for suspect, other in ((b, a), (a, b)):
            if suspect.predictor is None or not suspect.predictor.feeds_inner:
                continue
            try:
                sound = reference(suspect.bundle, suspect, other, stack)
                found = located(suspect, sound, probes(suspect.bundle, tensor)) if sound is not None else None
            except EdgeRecallError:  # a look that nobody asked for
                continue
            if found is not None and found.tells:
                return describe(found)
    return None


def look_inside(a: Side, b: Side, tensor: Tensor) -> str:
    """Which operator makes two sides' embeddings of one tensor differ, in words."""
    with ExitStack() as stack:
        wrong = [side for side in (a, b) if side.predictor is not None and is_wrong(side.predictor, side.bundle)]
        if not wrong:
            return compared(a, b, tensor, stack)
        told = []
        for suspect in wrong:
            other = b if suspect is a else a
            sound = reference(suspect.bundle, suspect, other, stack)
            if sound is None and other.predictor is not None:
                sound = Shown(other.name, other.predictor)
            told.append(locate(suspect, sound, probes(suspect.bundle, tensor)))
    left = " and ".join(side.name for side in wrong)
    return f"{'; '.join(told)}; {left} left the sealed output"


def wrong_graph(side: Side, other: Side, tensor: Tensor) -> str | None:
    """`look_inside` of one side alone; None where it gives what is sealed, or is no runtime."""
    if side.predictor is None or not is_wrong(side.predictor, side.bundle):
        return None
    with ExitStack() as stack:
        sound = reference(side.bundle, side, other, stack)
        return locate(side, sound, probes(side.bundle, tensor))


def compared(a: Side, b: Side, tensor: Tensor, stack: ExitStack) -> str:
    """`look_inside` where both sides give what is sealed: the two graphs against each other, either way."""
    told = []
    for suspect, other in ((b, a), (a, b)):
        if suspect.predictor is None:
            continue
        sound = Shown(other.name, other.predictor) if other.predictor else reference(b.bundle, suspect, other, stack)
        told.append(locate(suspect, sound, probes(suspect.bundle, tensor)))
        if told[-1].startswith(FOUND):
            break
    return f"{told[-1]}; on the golden images both give what is sealed"


@dataclass(frozen=True)
class Located:
    """What was found in a suspect's graph. changed: parameters that both graphs have by one name and that differ.
    tensors: of the graph whose operators were tried, and `tried` its name.
    """

    suspect: str
    sound: str
    search: Search
    changed: dict[str, Change]
    tensors: list[InnerTensor]
    tried: str

    @property
    def tells(self) -> bool:
        """Whether an operator or a parameter differs."""
        return bool(self.search.faults or self.changed)


def located(suspect: Side, sound: Shown, batches: Sequence[Tensor]) -> Located | None:
    """The faulty operators of one side, by the first of the batches that shows any; None when one of both shows no
    inner tensors, or neither takes any.
    """
    own, other = suspect.predictor, sound.predictor
    assert own is not None
    # Else the other way about: which of the sound graph's operators does not give what the suspect's counterpart gave.
    straight = own.feeds_inner
    tried, against = (own, other) if straight else (other, own)
    if not tried.feeds_inner:
        return None
    if suspect.is_int8 or suspect.precision != "fp32":
        batches = batches[:1]  # the second is for what rounding does not hide
    answers: list[tuple[Search, list[InnerTensor]]] = []
    for batch in batches:
        tensors, known = tried.inner_tensors(batch), against.inner_tensors(batch)
        if tensors is None or known is None:
            return None
        run = lambda given, batch=batch: tried.inner_tensors(batch, given) or ()  # noqa: E731
        answers.append((search(known, tensors, run), tensors))
        if answers[-1][0].faults:
            break
    found, tensors = answers[-1] if answers[-1][0].faults else answers[0]
    changed = different_parameters(own.parameters() or {}, other.parameters() or {})
    names = (suspect.name, sound.name)
    return Located(*names, found if straight else found.turned(), changed, tensors, names[0 if straight else 1])


def locate(suspect: Side, sound: Shown | None, batches: Sequence[Tensor]) -> str:
    """The faulty operators of one side, in words."""
    if sound is None:
        return f"{suspect.name}: no other runtime here shows the inner tensors of a sound graph"
    assert suspect.predictor is not None
    try:
        found = located(suspect, sound, batches)
        if found is not None:
            return describe(found)
        silent = sound.name if suspect.predictor.inner_tensors(batches[0]) is not None else suspect.name
    except EdgeRecallError as error:
        return f"the graphs cannot be looked into: {error}"
    return f"{silent} shows no inner tensors, or takes none, so that no operator can be tried alone"


Parameters = Mapping[str, NDArray[np.float32]]


def describe(found: Located) -> str:
    """What was found, in words."""
    suspect, sound, faults = found.suspect, found.sound, found.search.faults
    if faults:
        told = [operator_words(fault, suspect, sound, found.changed) for fault in faults]
        end = f"with {sound}'s output there the outputs agree" if found.search.repaired else "and that is not all of it"
        more = f"; then {'; '.join(told[1:])}" if told[1:] else ""
        covered = {name for fault in faults for _, name in constants_of(fault)}
        for name, change in found.changed.items():
            if name not in covered:
                more += f"; without effect here {parameter_words(name, change, sound, users(name, found.tensors))}"
        return f"{told[0]}{more}; {end}"
    if found.changed:
        name, change = next(iter(found.changed.items()))
        return f"in {suspect} {parameter_words(name, change, sound, users(name, found.tensors))}"
    if found.search.repaired:
        return (
            f"each of {found.tried}'s {found.search.of} operators alone gives what its counterpart does, so the"
            " difference is in how a runtime joins them"
        )
    like = f"{found.search.matched} of {found.tried}'s {found.search.of} tensors have a counterpart"
    return f"{like}, and no operator alone explains the rest"


def operator_words(fault: Fault, suspect: str, sound: str, changed: Mapping[str, Change]) -> str:
    """The operator, whether it is certain, how far off, where, and its parameter."""
    made, match = fault.made, fault.match
    channels = len(by_channel(plain(fault.sound.values), match.axis))
    named = f"'{made.operator or made.name}' ({made.kind}) in {suspect}"
    where = "everywhere"
    if 0 < len(match.wrong) < channels:
        first = ", ".join(map(str, match.wrong[:3]))
        where = f"in channel{'s' if len(match.wrong) > 1 else ''} {first}{', ...' if len(match.wrong) > 3 else ''}"
        where += f" of {channels}"
    off = f"{match.error:.1e} off" if np.isfinite(match.error) else "NaN or infinite"
    text = f"{CONFIRMED}{named}, fed what {sound}'s '{fault.sound.name}' is fed, is {off} {where}"
    if fault.others:
        text = f"{SUSPECTED}{named}, or {', '.join(fault.others)}: {off} {where} after them"
    for role, name in dict.fromkeys(constants_of(fault)):
        if name in changed:
            text += f"; its {role}, {parameter_words(name, changed[name], sound)}"
    return text


def constants_of(fault: Fault) -> tuple[tuple[str, str], ...]:
    """Roles and names of the operator's parameters, which either graph may tell."""
    return fault.made.constants or fault.sound.constants


@dataclass(frozen=True)
class Change:
    """Where a parameter differs most, and how many of its values differ."""

    index: tuple[int, ...]
    value: float
    known: float
    count: int
    of: int


def different_parameters(parameters: Parameters, known: Parameters) -> dict[str, Change]:
    """Those that both graphs have by one name and that differ, worst first."""
    changes: list[tuple[float, str, Change]] = []
    for name in parameters.keys() & known.keys():
        own, right = parameters[name], known[name]
        rounded = own.dtype != right.dtype  # on purpose
        if rounded or plain(own[None]).shape != plain(right[None]).shape or own.size == 0:
            continue
        right = right.reshape(own.shape)
        off = np.nan_to_num(np.abs(own.astype(np.float64) - right), nan=np.inf)
        scale = max(float(np.nan_to_num(np.abs(right)).max()), 1e-30)
        if off.max() > SAME_WEIGHT * scale:
            index = tuple(int(i) for i in np.unravel_index(int(off.argmax()), off.shape))
            count = int((off > SAME_WEIGHT * scale).sum())
            change = Change(index, float(own[index]), float(right[index]), count, own.size)
            changes.append((float(off.max()) / scale, name, change))
    return {name: change for _, name, change in sorted(changes, key=lambda entry: -entry[0])}


def users(name: str, tensors: list[InnerTensor]) -> str:
    """The operators that take a parameter."""
    found = dict.fromkeys(t.operator or t.name for t in tensors if any(of == name for _, of in t.constants))
    return f" of '{', '.join(found)}'" if found else ""


def parameter_words(name: str, change: Change, sound: str, of: str = "") -> str:
    """`name[17]`, what it holds and what it should."""
    place = f"[{', '.join(map(str, change.index))}]" if change.index else ""
    more = f" (and {change.count - 1} more of {change.of})" if change.count > 1 else ""
    return f"{name}{place}{of} is {change.value:.6g}, in {sound} {change.known:.6g}{more}"

"""Which operator of a graph is at fault: the one that gives something else when it is fed what a sound graph feeds its.

The two graphs are laid side by side by what their tensors hold. Each operator of the suspect graph is then run on the
sound graph's values, so that no operator answers for what came before it, and what a faulty one gave is replaced by the
sound value before the search goes on. In the end the embeddings agree, or the search says that it does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...runtimes.predictor.interface import InnerTensor
from .matching import Known, Match, Values, by_channel, match, plain

Run = Callable[[Mapping[str, Values]], Sequence[InnerTensor]]
CANDIDATES = 6  # tensors of the sound graph that are tried in an operator's place, and operators that are tried
MOST_FAULTS = 8
DEPTH = 3  # operators that one graph may have for one of the other's
ADDS, SCALES = {"Add", "BinaryOp", "Sub", "Subtract"}, {"Mul", "Multiply", "Div", "Divide"}
NOTHING = {"Identity", "Dropout", "Cast", "Convert", "Split", "Noop", "Reshape", "Flatten"}  # to their input
FLAT = 1e-2  # how far a difference may vary, relative to itself, that a constant makes


@dataclass(frozen=True)
class Fault:
    """An operator at fault. made: its tensor, as the suspect graph computes it. sound: the sound graph's.

    match: of the two. others: operators that it could be otherwise, where it is not the only one between tensors that
    agree.
    """

    made: InnerTensor
    sound: InnerTensor
    match: Match
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Search:
    """faults: in the graph's order. repaired: whether with the sound values in their places the outputs agree.

    matched, of: how many tensors of the suspect graph have a counterpart.
    """

    faults: tuple[Fault, ...]
    repaired: bool
    matched: int
    of: int

    def turned(self) -> Search:
        """With the sound graph's operators for the suspect one's: where those were tried."""
        return replace(self, faults=tuple(replace(one, made=one.sound, sound=one.made) for one in self.faults))


class _Searcher:
    def __init__(self, sound: Sequence[InnerTensor], own: Sequence[InnerTensor], run: Run) -> None:
        self.known, self.run = Known(sound), run
        self.own = self._by_name(own)
        self.order = list(self.own)
        self.pairs: dict[str, int] = {}  # suspect tensor -> index of the sound one
        self.faults: dict[str, Fault] = {}
        self.consumers: dict[str, list[str]] = {}
        for tensor in self.own.values():
            for name in tensor.inputs:
                self.consumers.setdefault(name, []).append(tensor.name)

    @staticmethod
    def _by_name(tensors: Sequence[InnerTensor]) -> dict[str, InnerTensor]:
        return {tensor.name: tensor for tensor in tensors}

    def given(self) -> dict[str, Values]:
        """The sound values of what is paired."""
        return {name: self.sound_value(name, index) for name, index in self.pairs.items()}

    def sound_value(self, name: str, index: int) -> Values:
        """A sound tensor in the suspect one's shape."""
        return np.array(self.known.values[index].reshape(self.own[name].values.shape), order="C")

    def after(self, name: str) -> int:
        """The last sound tensor that the operator's inputs are."""
        return max((self.pairs.get(source, -1) for source in self.frontier(name)), default=-1)

    def frontier(self, name: str) -> set[str]:
        """The paired tensors that an operator's output is computed from, through such as have no counterpart."""
        found, open_ones, seen = set(), list(self.own[name].inputs), set()
        while open_ones:
            source = open_ones.pop()
            if source in seen or source not in self.own:
                continue
            seen.add(source)
            if source in self.pairs:
                found.add(source)
            else:
                open_ones.extend(self.own[source].inputs)
        return found

    def region(self, name: str) -> list[InnerTensor]:
        """The operators between the frontier and this output, which is the last."""
        inside, open_ones = {name}, [name]
        while open_ones:
            for source in self.own[open_ones.pop()].inputs:
                if source in self.own and source not in self.pairs and source not in inside:
                    inside.add(source)
                    open_ones.append(source)
        return [self.own[one] for one in self.order if one in inside]

    def pair_equal(self) -> None:
        """Pairs what agrees as the suspect graph computes it by itself."""
        for name in self.order:
            found = self.known.find(plain(self.own[name].values), self.after(name), set(), partly=False)
            if found is not None:
                self.pairs[name] = found[0]

    def sweep(self) -> bool:
        """Feeds every operator the sound values that are known and looks at what each makes of them. Whether anything
        new was found.
        """
        self.own.update(self._by_name(self.run(self.given())))
        fed, new = set(self.pairs), False
        clean: dict[str, int] = {}  # how many operators lie between a tensor and sound values
        for name in self.order:
            if name in self.faults:
                continue
            # Only what is computed from sound values alone can be blamed; the rest has its turn when those are fed.
            tensor = self.own[name]
            is_clean = all(one in fed or one in clean or one not in self.own for one in tensor.inputs)
            depth = max((clean.get(one, 0) for one in tensor.inputs), default=0)
            if name in self.pairs:
                seen = match(plain(tensor.values), self.known.values[self.pairs[name]])
                if is_clean and not seen.agrees:
                    self.blame(name, self.pairs[name], seen)
                    new = True
                continue
            found = self.known.find(plain(tensor.values), self.after(name), set(self.pairs.values()), is_clean)
            if found is None:
                if is_clean and depth < DEPTH:
                    clean[name] = depth + 1
                continue
            if found[1].agrees:
                self.pairs[name] = found[0]
            elif depth == 0 or self.fits(name, found[0]):
                self.blame(name, *found)
            else:
                continue
            new = True
        return new

    def blame(self, name: str, index: int, seen: Match) -> None:
        """Finds the operator of the region that ends in this tensor, and pairs the tensor; or, where one before it does
        nothing at all, finds that one, and leaves the tensor for the next sweep.
        """
        if self.blame_idle(name, index):
            return
        region = self.region(name)
        for before in region[:-1]:  # wrong everywhere, it may have a counterpart all the same
            found = self.counterpart(before.name, index)
            if found is not None:
                name, index = before.name, found
                region, seen = self.region(name), match(plain(self.own[name].values), self.known.values[index])
                break
        self.pairs[name] = index
        operator, others = responsible(region, plain(self.own[name].values), self.known.values[index], seen)
        self.faults[name] = Fault(operator, self.known.tensors[index], seen, others)

    def blame_idle(self, name: str, index: int) -> bool:
        """An operator that gives back what it is fed is paired with the sound tensor before its own counterpart,
        and what comes after it seems wrong: until that is fed the counterpart. Where it does so because of something
        else that it is fed, such as factors of 1, it is paired rightly, and the next sweep finds what gave that.
        """
        for source in sorted(self.frontier(name), key=self.order.index):
            place = self.pairs[source]
            chain = self.same_as(source, place)
            idle = [one for one in chain if self.own[one].kind not in NOTHING]
            if not idle:
                continue
            taken, shape = set(self.pairs.values()), self.known.values[place].shape
            between = [one for one in self.known.of_shape(shape) if place < one < index and one not in taken]
            for other in between[:CANDIDATES]:
                made = self._by_name(self.run({**self.given(), source: self.sound_value(source, other)}))
                if match(plain(made[name].values), self.known.values[index]).agrees:
                    self.pairs.update(dict.fromkeys(chain[: chain.index(idle[-1]) + 1], other))
                    if len(self.fed(idle[-1])) > 1:
                        return True
                    seen = match(plain(self.own[idle[-1]].values), self.known.values[other])
                    others = tuple(self.own[one].operator for one in idle[:-1])
                    self.faults[idle[-1]] = Fault(self.own[idle[-1]], self.known.tensors[other], seen, others)
                    return True
        return False

    def same_as(self, name: str, place: int) -> list[str]:
        """This tensor and those before it that are paired with one sound tensor, as an input is; last first."""
        chain: list[str] = []
        while place >= 0 and self.pairs.get(name) == place:
            same = [one for one in self.fed(name) if self.pairs.get(one) == place]
            if len(same) != 1:
                break
            chain.append(name)
            name = same[0]
        return chain

    def fed(self, name: str) -> list[str]:
        """The operator's inputs but for the graph's own."""
        return [one for one in self.own[name].inputs if one in self.own]

    def whole(self) -> bool:
        """An operator whose output is wrong everywhere: sound tensors are tried in its place, and that which makes the
        next ones agree is its own.
        """
        lost = [name for name in self.order if name not in self.pairs and not self.reaches_pair(name)]
        for name in lost[:CANDIDATES]:
            index = self.counterpart(name, len(self.known.tensors))
            if index is not None:
                self.blame(name, index, match(plain(self.own[name].values), self.known.values[index]))
                return True
        return False

    def counterpart(self, name: str, end: int) -> int | None:
        """The sound tensor before index `end` with which in its place the next ones agree."""
        shape = plain(self.own[name].values).shape
        taken, after = set(self.pairs.values()), self.after(name)
        fitting = [index for index in self.known.of_shape(shape) if index not in taken and after < index < end]
        return next((index for index in fitting[:CANDIDATES] if self.fits(name, index)), None)

    def reaches_pair(self, name: str) -> bool:
        """Whether something computed from it soon is paired: then it is inside what the other graph has as one."""
        near = {name}
        for _ in range(DEPTH):
            near = {one for source in near for one in self.consumers.get(source, ())}
            if not near.isdisjoint(self.pairs):
                return True
        return False

    def fits(self, name: str, index: int) -> bool:
        """Whether with this sound tensor in its place a tensor computed from it agrees with a sound one after that, or
        with the one that it is paired with and does not agree with now.
        """
        if name == self.order[-1]:
            return index == len(self.known.tensors) - 1
        made = self._by_name(self.run({**self.given(), name: self.sound_value(name, index)}))
        below, open_ones = set(), [name]
        while open_ones:
            for one in self.consumers.get(open_ones.pop(), ()):
                if self.pairs.get(one, -1) > index:
                    wanted = self.known.values[self.pairs[one]]
                    now, then = (match(plain(tensors[one].values), wanted).agrees for tensors in (self.own, made))
                    if then and not now:
                        return True
                if one not in below and one not in self.pairs:
                    below.add(one)
                    open_ones.append(one)
        for one in [one for one in self.order if one in below][:CANDIDATES]:
            found = self.known.find(plain(made[one].values), index, set(), partly=False)
            if found is not None and found[0] > index:
                return True
        return False


def responsible(
    region: Sequence[InnerTensor], made: Values, sound: Values, seen: Match
) -> tuple[InnerTensor, tuple[str, ...]]:
    """The operator of a region that ends in a wrong tensor, and the others that it could be.

    A constant that is added last leaves one difference at every place of every image, one that scales leaves one ratio;
    where it does not, the tensor was wrong before.
    """
    last, before = region[-1], [one for one in region[:-1] if one.constants]
    if not before:
        return last, ()
    own, known = (by_channel(values, seen.axis)[list(seen.wrong)].astype(np.float64) for values in (made, sound))
    scale = np.abs(known).max(axis=1)
    if not np.isfinite(own).all():  # it came up where the first is not finite, and hides what else is wrong
        return next(one for one in region if not np.isfinite(one.values).all()), ()
    if last.constants and last.kind in ADDS:
        if is_flat(known - own, 1e-6 * scale):
            return last, ()
    elif last.constants and last.kind in SCALES:
        ratio = known / np.where(np.abs(own) > 1e-3 * scale[:, None], own, np.nan)
        if is_flat(ratio, np.full(len(own), 1e-4)):
            return last, ()
    else:  # it may be any of them
        before = [*before, last]
    return before[-1], tuple(one.operator for one in before[:-1])


def is_flat(values: NDArray[np.float64], noise: NDArray[np.float64]) -> bool:
    """Whether every row holds one number, NaN apart."""
    if not len(values) or np.isnan(values).all(axis=1).any() or np.isinf(values).any():
        return False
    spread = np.nanmax(values, axis=1) - np.nanmin(values, axis=1)
    return bool((spread <= FLAT * np.abs(np.nanmean(values, axis=1)) + noise).all())


def search(sound: Sequence[InnerTensor], own: Sequence[InnerTensor], run: Run) -> Search:
    """Finds the faulty operators of a graph.

    sound: the tensors of a sound graph for some batch, of more than one image, best of various ones. own: the suspect
    graph's for that batch. run: the same with its operators fed what is given (see `Predictor.inner_tensors`).
    """
    searcher = _Searcher(sound, own, run)
    if not searcher.order:
        return Search((), False, 0, 0)
    searcher.pair_equal()
    last = searcher.order[-1]
    while len(searcher.faults) < MOST_FAULTS:
        if not searcher.sweep() and (last in searcher.pairs or not searcher.whole()):
            break
    faults = sorted(searcher.faults.values(), key=lambda fault: searcher.order.index(fault.made.name))
    return Search(tuple(faults), last in searcher.pairs, len(searcher.pairs), len(searcher.order))

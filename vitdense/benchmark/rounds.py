"""Models that take turns, so that what else a machine does meets all of them alike."""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from .floor import floor
from .parts import PARTS, timed
from .subject import Subject


@dataclass
class Measured:
    """What was measured of a model.

    Attributes:
        memory: see :meth:`.subject.Subject.memory`.
        seconds: of a batch, in each round.
        parts: the same by part, of batches with a clock between the parts; empty if they are not known.
        floor: seconds of the matrix products and convolutions of a batch alone; None if they are not known.
    """

    memory: float
    seconds: list[float] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=dict)
    floor: float | None = None

    def percentile(self, share: float) -> float:
        """Seconds that ``share`` percent of the batches do not exceed."""
        return float(np.percentile(self.seconds, share))

    @property
    def times_floor(self) -> float | None:
        """The median of the seconds, over the floor."""
        return statistics.median(self.seconds) / self.floor if self.floor else None

    def median(self, part: str) -> float | None:
        """Seconds of a part, None if they are not known."""
        return statistics.median(self.parts[part]) if part in self.parts else None


def take_turns(subjects: Sequence[Subject], rounds: Iterable[int]) -> list[Measured]:
    """Measure the memory of each, and then the time of a batch in each round, every other one in reversed order."""
    measured = [Measured(subject.memory()) for subject in subjects]
    pairs = list(zip(subjects, measured, strict=True))
    for number in rounds:
        for subject, found in pairs[:: 1 - 2 * (number % 2)]:
            found.seconds.append(seconds_of(subject))
            if subject.network is not None:
                with timed(subject.network, subject.outer, subject.synchronize) as spent:
                    spent['postprocessing'] = seconds_of(subject) - sum(spent.values())
                for part in PARTS:
                    if part in spent:
                        found.parts.setdefault(part, []).append(spent[part])
    for subject, found in pairs:
        if subject.products is not None:
            found.floor = floor(subject.products, subject.device)
    return measured


def seconds_of(step: Callable[[], None]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start

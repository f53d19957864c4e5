"""How hooks write files during a run: in little time, and never at the cost of the run."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.runner import Runner


class Occasional:
    """An action that is repeated only as often as it stays below a share of the time.

    Attributes:
        SHARE: of the time since its last repetition; so small that the hooks of a run together stay below 1 %.
    """

    SHARE = 0.003

    def __init__(self) -> None:
        self._next = float('-inf')

    def due(self) -> bool:
        """Whether its last repetition was long enough ago."""
        return time.perf_counter() >= self._next

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Within it, the action."""
        start = time.perf_counter()
        try:
            yield
        finally:
            end = time.perf_counter()
            self._next = end + (end - start) * (1 / self.SHARE - 1)


class Harmless:
    """Makes a failure a warning, once for each kind of action: no picture is worth a training of days."""

    def __init__(self) -> None:
        self._failed: set[str] = set()

    @contextmanager
    def __call__(self, runner: Runner, action: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if action not in self._failed:
                self._failed.add(action)
                runner.logger.warning(f'{action} failed, the run goes on: {error!r}', exc_info=True)

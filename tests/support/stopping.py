"""Signals at a place of a training."""

import os
import signal

from mmengine.hooks import Hook


class Kill(Hook):
    """Sends this process a signal while something goes on."""

    def __init__(self, at: int, number: int = signal.SIGTERM, where: str = 'after_train_iter') -> None:
        self.at, self.number, self.calls = at, number, 0
        setattr(self, where, self._count)

    def _count(self, runner, *args, **kwargs) -> None:
        self.calls += 1
        if self.calls == self.at:
            os.kill(os.getpid(), self.number)

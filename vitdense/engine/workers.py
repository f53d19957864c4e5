"""Processes that load data, and the signals that reach all processes of a run."""

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader

from vitdense.signals import ASKING


@dataclass(frozen=True)
class Shielded:
    """Starts a worker that only its own process ends.

    A terminal, a scheduler and ``torchrun`` signal all processes of a run. Workers that end then take the step with
    them that is to be finished.

    Attributes:
        init: what else is done when a worker starts.
    """

    init: Callable[[int], Any] | None = None

    def __call__(self, worker: int) -> None:
        shield()
        if self.init:
            self.init(worker)


def shield_workers(loader: DataLoader) -> None:
    """Shield the workers that a loader starts from now on."""
    if not isinstance(loader.worker_init_fn, Shielded):
        loader.worker_init_fn = Shielded(loader.worker_init_fn)


def shield() -> None:
    """Let nobody but its parent end this process by a signal that can be caught."""
    if hasattr(signal, 'sigwaitinfo'):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)  # all threads that start later have the same mask
        threading.Thread(target=_obey_parent, daemon=True).start()


def _obey_parent() -> None:
    while signal.sigwaitinfo(ASKING).si_pid != os.getppid():
        pass
    os._exit(0)

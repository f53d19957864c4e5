"""Which image each process that loads data is at, for the messages about one that died or hangs."""

import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils.data import get_worker_info

LONGEST = 1000
HEAD = struct.Struct('=qdi')
"""Process, time, and bytes of the name."""


class AtHand:
    """A line for each worker in memory that it shares with the process that waits for its batches.

    Args:
        workers: their number.
    """

    def __init__(self, workers: int) -> None:
        self.lines = torch.zeros(workers, HEAD.size + LONGEST, dtype=torch.uint8).share_memory_()

    @contextmanager
    def __call__(self, image: str) -> Iterator[None]:
        """Note that this worker is at an image for as long as the context lasts."""
        worker = get_worker_info()
        if worker is None or worker.id >= len(self.lines):
            yield
            return
        name = os.fsencode(image)[-LONGEST:]
        entry = HEAD.pack(os.getpid(), time.time(), len(name)) + name
        line = self.lines[worker.id].numpy()
        line[: len(entry)] = np.frombuffer(entry, np.uint8)
        try:
            yield
        finally:
            line[: HEAD.size] = 0

    def images(self) -> dict[int, tuple[str, float]]:
        """The image that each process is at, and for how many seconds, by the number of the process."""
        found = {}
        for line in self.lines.numpy():
            process, since, length = HEAD.unpack(line[: HEAD.size].tobytes())
            if process:
                name = os.fsdecode(line[HEAD.size : HEAD.size + length].tobytes())
                found[process] = name, time.time() - since
        return found

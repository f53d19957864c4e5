"""Seeds of the processes that load data."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

from vitdense.registry import HOOKS


@dataclass(frozen=True)
class WorkerSeed:
    """Seeds a worker from the seed of the run, the process, the worker and the pass over the data in which it starts.

    Attributes:
        seed: of the run.
        rank: of the process.
        passes: passes over the data so far, asked for when a worker starts.
    """

    seed: int
    rank: int
    passes: Callable[[], int]

    def __call__(self, worker: int) -> None:
        state = np.random.SeedSequence([self.seed, self.rank, worker, self.passes()]).generate_state(3)
        random.seed(int(state[0]))
        np.random.seed(state[1])
        torch.manual_seed(int(state[2]))

    def __reduce__(self) -> tuple[Any, ...]:  # workers that are not forked get the number
        return WorkerSeed, (self.seed, self.rank, partial(int, self.passes()))


@HOOKS.register_module()
class WorkerSeedHook(Hook):
    """Gives every pass over the data other augmentations, also with ``persistent_workers=False``.

    mmengine seeds a worker by the seed of the run alone, so that workers which start anew repeat themselves: in each
    epoch, and in a loop of iterations whenever all data were seen.
    """

    def before_train(self, runner: Runner) -> None:
        loop, sampler = runner.train_loop, runner.train_dataloader.sampler
        iterator = getattr(loop, 'dataloader_iterator', None)
        # a resumed loop of iterations goes through the data again up to where it was, unless it is told to skip them
        skips = hasattr(sampler, 'skip') or getattr(loop, 'fast_forward_on_resume', False)
        first = runner.iter if iterator and skips else 0

        def passes() -> int:
            return first + iterator._epoch if iterator else runner.epoch

        runner.train_dataloader.worker_init_fn = WorkerSeed(runner.seed, get_rank(), passes)

"""Seeds of the processes that load data."""

import random
from dataclasses import dataclass

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

from vitdense.registry import HOOKS


@dataclass
class WorkerSeed:
    """Seeds a worker from the seed of the run, the process, the worker and the epoch in which it starts."""

    seed: int
    rank: int
    epoch: int = 0

    def __call__(self, worker: int) -> None:
        state = np.random.SeedSequence([self.seed, self.rank, worker, self.epoch]).generate_state(3)
        random.seed(int(state[0]))
        np.random.seed(state[1])
        torch.manual_seed(int(state[2]))


@HOOKS.register_module()
class WorkerSeedHook(Hook):
    """Gives every epoch other augmentations, also with ``persistent_workers=False``.

    mmengine seeds a worker by the seed of the run alone, so that workers which start anew repeat themselves each epoch.
    """

    def before_train(self, runner: Runner) -> None:
        runner.train_dataloader.worker_init_fn = WorkerSeed(runner.seed, get_rank())

    def before_train_epoch(self, runner: Runner) -> None:
        runner.train_dataloader.worker_init_fn.epoch = runner.epoch

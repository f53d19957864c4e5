"""Loops of a training that goes on, wherever it was interrupted, as if it had not been.

What is drawn in a step depends on the seed, the process and the iteration alone, and the loader starts at the place
where the run was. So no state of a generator has to be kept. The place is in mmengine's message hub, which is part of
every checkpoint.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import mmengine.runner.loops as mmengine_loops
import torch
from mmengine.dist import get_rank
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.runner import EpochBasedTrainLoop as MMEngineEpochBasedTrainLoop
from mmengine.runner import IterBasedTrainLoop as MMEngineIterBasedTrainLoop
from torch.utils.data import DataLoader

from vitdense.console import say
from vitdense.datasets.draws import EPOCH, STEP, VALIDATION, PlacedBatches, place_draws, seed_process
from vitdense.engine.history import bound_history
from vitdense.engine.hooks.resume import VALIDATED
from vitdense.engine.log_processor import position
from vitdense.registry import LOOPS

DATA_PASS = 'data_pass'
"""In the message hub: number of the pass over the data, and the iteration at which it began."""


class ResumableLoop:
    """What both loops do: seed each step, start the loader where it is told to, catch up on a validation."""

    runner: Any
    dataloader: DataLoader
    val_begin: int
    val_interval: int
    _iter: int
    _decide_current_val_interval: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        place_draws(self.dataloader, self.runner.seed)

    def run_iter(self, *args: Any) -> None:
        self._seed(STEP, self._iter)
        super().run_iter(*args)  # type: ignore[misc]

    def _seed(self, kind: int, iteration: int) -> None:
        seed_process(kind, self.runner.seed, get_rank(), iteration)

    def _batches(self, data_pass: int, done: int) -> Iterator[Any]:
        """Batches of a pass over the data, without the first ``done``."""
        self.runner.message_hub.update_info(DATA_PASS, dict(number=data_pass, first_iter=self._iter - done))
        batches = self.dataloader.batch_sampler
        if not isinstance(batches, PlacedBatches):
            return islice(self.dataloader, done, None)
        batches.data_pass, batches.skip = data_pass, done
        return iter(self.dataloader)

    def _validate(self, done: int, end: int) -> None:
        """Validate if it is time to.

        Args:
            done: epochs or iterations done.
            end: how many the training has.
        """
        if self._is_due(done, end):
            self._seed(VALIDATION, self._iter)
            self.runner.val_loop.run()

    def _is_due(self, done: int, end: int) -> bool:
        self._decide_current_val_interval()
        begun = self.runner.val_loop is not None and done >= self.val_begin
        return begun and (done % self.val_interval == 0 or done == end)

    def _catch_up(self, done: int, end: int) -> None:
        """Validate first where a run goes on from a checkpoint of before the validation of its iteration.

        Hooks that look at metrics are in the state of before as well, whether the validation took place or not.
        """
        validated = self.runner.message_hub.get_info(VALIDATED)
        if self._iter and validated != self._iter and self._is_due(done, end):
            say(f'the checkpoint is of before the validation at {position(self.runner)}: it comes first')
            self._validate(done, end)


@contextmanager
def no_eager_iterator() -> Iterator[None]:
    """Within it, a loop of iterations begins without an iterator.

    That of mmengine 0.10.7 starts the workers and takes indices from the sampler when it is made, before the run knows
    where it is.
    """
    made = mmengine_loops._InfiniteDataloaderIterator
    mmengine_loops._InfiniteDataloaderIterator = lambda loader: None
    try:
        yield
    finally:
        mmengine_loops._InfiniteDataloaderIterator = made


@LOOPS.register_module()
class EpochBasedTrainLoop(ResumableLoop, MMEngineEpochBasedTrainLoop):
    """mmengine's loop, which goes on in the middle of an epoch; arguments as there."""

    def run(self) -> torch.nn.Module:
        """Train to the last epoch."""
        self.runner.call_hook('before_train')
        bound_history(self.runner)
        if not self._batches_done():
            self._catch_up(self._epoch, self._max_epochs)
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._validate(self._epoch, self._max_epochs)
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_epoch(self) -> None:
        """Train an epoch, or what is left of it."""
        done = self._batches_done()
        self._seed(EPOCH, self._iter - done)
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        for number, batch in enumerate(self._batches(self._epoch, done), done):
            self.run_iter(number, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def _batches_done(self) -> int:
        """Batches of this epoch that an interrupted run has trained."""
        place = self.runner.message_hub.get_info(DATA_PASS)
        if place is None:  # of a checkpoint that another loop has saved
            return max(0, self._iter - self._epoch * len(self.dataloader))
        return max(0, self._iter - place['first_iter']) if place['number'] == self._epoch else 0


@LOOPS.register_module()
class IterBasedTrainLoop(ResumableLoop, MMEngineIterBasedTrainLoop):
    """mmengine's loop, which goes on where it was without loading what it has trained; arguments as there."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        with no_eager_iterator():
            super().__init__(*args, **kwargs)
        self.dataloader_iterator = self._endless()

    def run(self) -> torch.nn.Module:
        """Train to the last iteration."""
        self.runner.call_hook('before_train')
        bound_history(self.runner)
        self._seed(EPOCH, 0)
        self.runner.call_hook('before_train_epoch')
        self._catch_up(self._iter, self._max_iters)
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._validate(self._iter, self._max_iters)
        self.dataloader_iterator.close()  # and its workers, which else wait for the next garbage collection
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def _endless(self) -> Generator[Any, None, None]:
        """Batches, pass after pass, from where the training is."""
        place = self.runner.message_hub.get_info(DATA_PASS) if self._iter else None
        number, first = (place['number'], place['first_iter']) if place else (0, 0)
        while True:
            done = self._iter - first
            for sampler in (self.dataloader.sampler, getattr(self.dataloader.batch_sampler, 'sampler', None)):
                getattr(sampler, 'set_epoch', int)(number)
            yield from self._batches(number, done)
            left = getattr(self.dataloader.batch_sampler, 'skip', 0)  # where passes are not counted in the checkpoint
            if self._iter == first and not left:
                raise ValueError('train_dataloader: a pass over the data has no batch')
            number, first = number + 1, self._iter - left


COUNTERPARTS = {MMEngineEpochBasedTrainLoop: EpochBasedTrainLoop, MMEngineIterBasedTrainLoop: IterBasedTrainLoop}


def resumable(loop: dict) -> dict:
    """The ``train_cfg`` of a loop of mmengine for the one here; loops of others are left as they are."""
    if ('type' in loop) == ('by_epoch' in loop):
        return loop
    kind = loop.get('type', 'EpochBasedTrainLoop' if loop.get('by_epoch') else 'IterBasedTrainLoop')
    ours = COUNTERPARTS.get(MMENGINE_LOOPS.get(kind) if isinstance(kind, str) else kind)
    return {key: value for key, value in loop.items() if key != 'by_epoch'} | {'type': ours} if ours else loop

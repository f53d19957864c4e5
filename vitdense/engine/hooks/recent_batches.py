"""What the last steps of a run were made of."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from vitdense.names import listed
from vitdense.registry import HOOKS

from .invalid_loss import image_names


class Batch(NamedTuple):
    """A batch of a training, validation or test.

    Attributes:
        iteration: counted from 1; in an evaluation from its begin.
        size: images and the largest channels, height and width among them, to which all are padded.
        objects: annotated objects of all images.
        images: their names.
    """

    iteration: int
    size: tuple[int, ...]
    objects: int
    images: list[str]

    def __str__(self) -> str:
        objects = f' with {self.objects} objects' if self.objects else ''
        return f'iteration {self.iteration}, {" x ".join(map(str, self.size))}{objects} ({listed(self.images, 4)})'

    @property
    def pixels(self) -> int:
        """Values of the padded images."""
        return int(torch.Size(self.size).numel())


@HOOKS.register_module()
class RecentBatchesHook(Hook):
    """Remembers the sizes of the last batches, for the message about a step that the memory did not suffice for.

    Args:
        most: number of batches.

    Attributes:
        batches: those of the training, or of the evaluation that is under way.
        split: what they are of, 'train', 'val' or 'test'.
        samples: data samples of the batch at hand, which the loop holds as well.
    """

    def __init__(self, most: int = 50) -> None:
        self.of_split: dict[str, deque[Batch]] = {split: deque(maxlen=most) for split in ('train', 'val', 'test')}
        self.split = 'train'
        self.samples: Sequence = ()

    @property
    def batches(self) -> deque[Batch]:
        return self.of_split[self.split]

    def after_train_iter(self, *args: object, **kwargs: object) -> None:
        self.samples = ()

    after_val_iter = after_test_iter = after_train_iter

    def _begin(self, split: str) -> None:
        self.split = split
        self.batches.clear()

    def before_val(self, runner: Runner) -> None:
        self._begin('val')

    def after_val(self, runner: Runner) -> None:
        self.split = 'train'

    def before_test(self, runner: Runner) -> None:
        self._begin('test')

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        self._note(runner.iter + 1, data_batch)

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        self._note(batch_idx + 1, data_batch)

    before_test_iter = before_val_iter

    def _note(self, iteration: int, data_batch: dict | None) -> None:
        if isinstance(data_batch, Mapping):
            self.samples = data_batch.get('data_samples') or ()
            images = data_batch.get('inputs')
            shapes = [tuple(one.shape) for one in images if isinstance(one, Tensor)] if images is not None else []
            largest = tuple(map(max, zip(*shapes, strict=False)))
            found = [len(getattr(one, 'gt_instances', ())) for one in self.samples]
            self.batches.append(Batch(iteration, (len(shapes), *largest), sum(found), image_names(data_batch)))

"""Errors of transforms that name their image, and images that are left out when they can no longer be read."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from mmengine.dataset import Compose
from torch.utils.data import DataLoader

from vitdense.console import warn
from vitdense.datasets.at_hand import AtHand


class TransformError(ValueError):
    """A transform failed; the message has the image, the transform and what it said."""


class LeftOut:
    """Stands for an image of a validation or test that is left out."""


class NamedCompose(Compose):
    """The transforms of ``pipeline``, one after the other.

    Args:
        pipeline: the transforms.
        test_mode: of the data set, which takes None for "another image" in a training alone.

    Attributes:
        lenient: leave an image out that cannot be read.
        at_hand: where each process that loads data notes its image.

    Raises:
        TransformError: one of them failed.
    """

    def __init__(self, pipeline: Compose, test_mode: bool = False) -> None:
        self.transforms = pipeline.transforms
        self.test_mode = test_mode
        self.lenient = False
        self.at_hand: AtHand | None = None

    def __call__(self, data: Any) -> Any:
        image = data.get('img_path') if isinstance(data, dict) else None
        if image is not None and self.at_hand is not None:
            with self.at_hand(str(image)):
                return self._run(data, image)
        return self._run(data, image)

    def _run(self, data: Any, image: Any) -> Any:
        for transform in self.transforms:
            name = type(transform).__name__
            try:
                data = transform(data)
                if name.startswith('Load'):
                    _check_map(data)
            except Exception as error:
                if image is None or isinstance(error, TransformError):
                    raise
                path = data.get('seg_map_path') if name == 'LoadAnnotations' else None
                of_map = f' (map {path})' if path and str(path) not in str(error) else ''
                said = f'{image}: {name} failed{of_map}: {type(error).__name__}: {error}'
                if self.lenient and name.startswith('Load'):
                    warn(f'left out: {said}')
                    return LeftOut() if self.test_mode else None
                raise TransformError(said) from error
            if data is None:
                return None
        return data


def _check_map(data: Any) -> None:
    """Look whether a map that was just loaded covers its image: no scan opens all, and files change.

    Raises:
        ValueError: it does not.
    """
    found, expected = (data.get(key) for key in ('gt_seg_map', 'ori_shape')) if isinstance(data, dict) else (None, None)
    if found is not None and expected is not None and found.shape != tuple(expected[:2]):
        size = ' x '.join(map(str, found.shape))
        raise ValueError(f'the map has {size} values (height, width), the image {expected[0]} x {expected[1]} pixels')


def pipelines(dataset: Any) -> list[NamedCompose]:
    """The pipelines of a data set, wrappers such as RepeatDataset opened, whose errors name the image from now on."""
    found = []
    for child in (getattr(dataset, 'dataset', None), *(getattr(dataset, 'datasets', None) or ())):
        if child is not None:
            found += pipelines(child)
    if type(getattr(dataset, 'pipeline', None)) is Compose:
        dataset.pipeline = NamedCompose(dataset.pipeline, bool(getattr(dataset, 'test_mode', False)))
    if isinstance(getattr(dataset, 'pipeline', None), NamedCompose):
        found.append(dataset.pipeline)
    return found


class LenientLoader(DataLoader):
    """A loader whose batches lack the images that were left out; one without any image is passed over."""

    def __iter__(self) -> Any:
        return (batch for batch in super().__iter__() if not isinstance(batch, LeftOut))


def leave_out(loader: DataLoader) -> None:
    """Let a loader go on without the images that can no longer be read: in a training, another one takes its place."""
    for pipeline in pipelines(loader.dataset):
        pipeline.lenient = True
    loader.collate_fn = partial(_collate_kept, collate=loader.collate_fn)
    loader.__class__ = LenientLoader


def _collate_kept(samples: Sequence, collate: Any) -> Any:
    kept = [sample for sample in samples if not isinstance(sample, LeftOut)]
    return collate(kept) if kept else LeftOut()

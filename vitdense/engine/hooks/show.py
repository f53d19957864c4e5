"""Pictures of all predictions of a test."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.runner import Runner
from PIL import Image
from torch import Tensor

from vitdense.registry import HOOKS
from vitdense.visualization import class_colors, class_names, draw, predicted_labels, rgb_image
from vitdense.visualization.loading import is_bgr

from .output import Harmless

SUFFIXES = ('.jpg', '.jpeg', '.png')


@HOOKS.register_module()
class ShowHook(Hook):
    """Draws the predictions of each test image, whatever the model, as a file of its own.

    The files have the names of the images, and are in the same folders below ``folder`` as the images below the
    folders of the data. Images of other formats than JPEG and PNG become PNG.

    Args:
        folder: where to, made if it is missing.
        score_thr: lowest score of a drawn detection.
    """

    priority = 'LOW'

    def __init__(self, folder: str, score_thr: float = 0.3) -> None:
        self.folder = Path(folder)
        self.score_thr = score_thr
        self._root = ''
        self._harmless = Harmless()

    def before_test_epoch(self, runner: Runner) -> None:
        folders = [
            os.path.abspath(folder) for leaf in _leaves(runner.test_dataloader.dataset) for folder in _folders(leaf)
        ]
        self._root = os.path.commonpath(folders) if folders else ''

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: Sequence | None = None
    ) -> None:
        for sample in outputs or ():
            with self._harmless(runner, 'Drawing a prediction'):
                self._draw(runner, sample)

    def _draw(self, runner: Runner, sample: Any) -> None:
        dataset = runner.test_dataloader.dataset
        meta = getattr(dataset, 'metainfo', None)
        path = sample.metainfo['img_path']
        target = self.folder / self._place(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if (depth := sample.get('pred_depth_map')) is not None:
            _depth_picture(depth.data).save(target, quality=90)
            return
        image = rgb_image(_load(next(_leaves(dataset)), path), is_bgr(runner.cfg))
        labels = predicted_labels(sample, self.score_thr)
        draw(image, labels, class_names(meta), class_colors(meta), None).save(target, quality=90)

    def _place(self, path: str) -> Path:
        absolute = Path(os.path.abspath(path))
        inside = self._root and absolute.is_relative_to(self._root)
        place = absolute.relative_to(self._root) if inside else Path(absolute.name)
        return place if place.suffix.lower() in SUFFIXES else place.with_name(f'{place.name}.png')


def _leaves(dataset: BaseDataset) -> Iterator[BaseDataset]:
    """The data sets inside wrappers such as ConcatDataset."""
    inner = getattr(dataset, 'datasets', None) or [one for one in [getattr(dataset, 'dataset', None)] if one]
    if not inner:
        yield dataset
    for one in inner:
        yield from _leaves(one)


def _folders(dataset: BaseDataset) -> list[str]:
    prefixes = getattr(dataset, 'data_prefix', None) or {}
    return [prefixes[name] for name in ('img', 'img_path') if prefixes.get(name)]


def _depth_picture(depth: Tensor) -> Image.Image:
    """A (1, H, W) map from its nearest (blue) to its farthest point (yellow)."""
    values = depth.squeeze(0).cpu().float()
    values = (values - values.min()) / (values.max() - values.min()).clamp(min=1e-9)
    return Image.fromarray(colormaps['viridis'](values.numpy(), bytes=True)[..., :3])


def _load(dataset: BaseDataset, path: str) -> Any:
    """An image as the pipeline decodes it."""
    loader = next(t for t in dataset.pipeline.transforms if re.match('Load.*Image', type(t).__name__))
    return loader(dict(img_path=path))['img']

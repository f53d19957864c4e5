"""Pictures of the images that a model is trained on, and of its predictions."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from PIL import Image

from vitdense.files import replacing
from vitdense.registry import HOOKS
from vitdense.visualization import (
    Labels,
    class_colors,
    class_names,
    draw,
    predicted_labels,
    rgb_image,
    sheet,
    true_labels,
)
from vitdense.visualization.drawing import color_of, name_of
from vitdense.visualization.loading import is_bgr, load

from .output import Harmless, Occasional

KEPT = 6
"""Pictures of validations that are kept: the first, the last, and some evenly between."""


@HOOKS.register_module()
class PicturesHook(Hook):
    """Draws the first training batches, and labels beside predictions of some validation or test images.

    In the work dir: ``train_batch_0.jpg`` and so on, after augmentation; ``val_epoch_N.jpg`` or ``val_iter_N.jpg``,
    always of the same images, evenly spread over the validation set, of which the first, the last and some between are
    kept; ``test.jpg``. A resumed run keeps the training batches that it finds. Validations are skipped where drawing
    would take more than 0.3 % of the time; the last one is always drawn.

    Args:
        num_train_batches: training batches to draw.
        num_val_images: validation or test images; in a distributed run the first process draws its own.
        score_thr: lowest score of a drawn detection.
        max_images_per_batch: images drawn of one training batch.

    Raises:
        ValueError: a number is negative.
    """

    priority = 'LOW'

    def __init__(
        self,
        num_train_batches: int = 3,
        num_val_images: int = 12,
        score_thr: float = 0.3,
        max_images_per_batch: int = 16,
    ) -> None:
        self.num_train_batches = num_train_batches
        self.num_val_images = num_val_images
        self.score_thr = score_thr
        self.max_images_per_batch = max_images_per_batch
        for name, value in vars(self).items():
            if value < 0:
                raise ValueError(f'PicturesHook: {name} must not be negative, got {value}')
        self._batches: list[Path] = []
        self._chosen: dict[str, int] = {}
        self._predicted: dict[str, Labels] = {}
        self._undrawn: tuple | None = None
        self._occasional = Occasional()
        self._harmless = Harmless()

    def before_train(self, runner: Runner) -> None:
        if is_main_process():
            paths = [Path(runner.work_dir, f'train_batch_{i}.jpg') for i in range(self.num_train_batches)]
            self._batches = [path for path in paths if not (runner.iter and path.exists())]

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict) -> None:
        if self._batches:
            with self._harmless(runner, 'Drawing a training batch'):
                self._draw_batch(runner, data_batch, self._batches.pop(0))

    def before_val_epoch(self, runner: Runner) -> None:
        self._choose(runner, runner.val_dataloader.dataset)

    def before_test_epoch(self, runner: Runner) -> None:
        self._choose(runner, runner.test_dataloader.dataset)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: Sequence | None = None
    ) -> None:
        if self._chosen:
            with self._harmless(runner, 'Keeping predictions to draw'):
                self._keep(outputs or ())

    after_test_iter = after_val_iter

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        unit, number = ('epoch', runner.epoch) if runner.epoch else ('iter', runner.iter)
        when = f'{"iteration" if unit == "iter" else unit} {number}'
        self._undrawn = self._predicted, f'val_{unit}_{number}', f'Validation at {when}'
        if self._occasional.due():
            self._draw_validation(runner)

    def after_train(self, runner: Runner) -> None:
        self._draw_validation(runner)

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        with self._harmless(runner, 'Drawing predictions'):
            self._draw_predictions(runner, runner.test_dataloader.dataset, self._predicted, 'test', 'Test')

    def _choose(self, runner: Runner, dataset: BaseDataset) -> None:
        """Images evenly spread over those that this process gets: every n-th of the data set."""
        self._predicted = {}
        if is_main_process():
            with self._harmless(runner, 'Choosing images to draw'):
                own = range(0, len(dataset), get_world_size())
                count = min(self.num_val_images, len(own))
                indices = [own[i * (len(own) - 1) // max(count - 1, 1)] for i in range(count)]
                self._chosen = {dataset.get_data_info(i)['img_path']: i for i in indices}

    def _keep(self, samples: Iterable) -> None:
        for sample in samples:
            path = sample.metainfo.get('img_path')
            if path in self._chosen:
                self._predicted[path] = predicted_labels(sample, self.score_thr)

    def _draw_batch(self, runner: Runner, batch: dict, path: Path) -> None:
        meta = getattr(runner.train_dataloader.dataset, 'metainfo', None)
        names, colors = class_names(meta), class_colors(meta)
        pairs = list(zip(batch['inputs'], batch['data_samples'], strict=True))
        shown = pairs[: self.max_images_per_batch]
        cells, drawn = [], []
        for image, sample in shown:
            labels = true_labels(sample)
            image = rgb_image(image, is_bgr(runner.cfg), sample.metainfo.get('img_norm_cfg'))
            title = _title(Path(sample.metainfo.get('img_path', '')).name, labels)
            cells.append([(title, draw(image, labels, names, colors, _side(len(shown))))])
            drawn.append(labels)
        heading = f'Training batch of iteration {runner.iter + 1}, after augmentation'
        if len(shown) < len(pairs):
            heading += f': the first {len(shown)} of {len(pairs)} images'
        _save(sheet(cells, heading, _legend([drawn], names, colors)), path)

    def _draw_validation(self, runner: Runner) -> None:
        if self._undrawn:
            undrawn, self._undrawn = self._undrawn, None
            with self._harmless(runner, 'Drawing predictions'), self._occasional.timed():
                self._draw_predictions(runner, runner.val_dataloader.dataset, *undrawn)
                thin_out(Path(runner.work_dir))

    def _draw_predictions(
        self, runner: Runner, dataset: BaseDataset, predictions: Mapping[str, Labels], name: str, when: str
    ) -> None:
        if not predictions:
            return
        meta = getattr(dataset, 'metainfo', None)
        names, colors = class_names(meta), class_colors(meta)
        side = _side(2 * len(predictions))
        cells, truth = [], []
        for path in sorted(predictions, key=self._chosen.__getitem__):
            image, labels = load(dataset, self._chosen[path], is_bgr(runner.cfg))
            left = _title(Path(path).name, labels), draw(image, labels, names, colors, side)
            right = _score(predictions[path], labels), draw(image, predictions[path], names, colors, side)
            cells.append([left, right])
            truth.append(labels)
        detection = any(labels.scores is not None for labels in predictions.values())
        heading = f'{when}: labels on the left, predictions on the right'
        heading += f', with a score of at least {self.score_thr:g}' * detection
        legend = _legend([truth, list(predictions.values())], names, colors)
        _save(sheet(cells, heading, legend), Path(runner.work_dir, f'{name}.jpg'))


def thin_out(folder: Path) -> None:
    """Delete pictures of validations until ``KEPT`` are left, the first and the last among them."""
    for unit in ('epoch', 'iter'):
        matches = (re.fullmatch(rf'val_{unit}_(\d+)\.jpg', path.name) for path in folder.iterdir())
        numbers = sorted(int(match[1]) for match in matches if match)
        while len(numbers) > KEPT:
            gaps = [after - before for before, after in zip(numbers, numbers[2:], strict=False)]
            (folder / f'val_{unit}_{numbers.pop(1 + gaps.index(min(gaps)))}.jpg').unlink()


def _side(count: int) -> int:
    """Pixels of the longer side of each of ``count`` pictures on a sheet."""
    return 640 if count <= 4 else 480 if count <= 9 else 400


def _title(name: str, labels: Labels) -> str:
    if labels.classes is None:
        return name if labels else f'{name} · no labels'
    return f'{name} · {len(labels.classes)} label{"s" * (len(labels.classes) != 1)}'


def _score(predicted: Labels, labels: Labels) -> str:
    """Title of a prediction: the number of detections, or the share of labelled pixels that are right."""
    if predicted.classes is not None:
        return f'{len(predicted.classes)} predicted'
    if predicted.semantic is None or labels.semantic is None or predicted.semantic.shape != labels.semantic.shape:
        return 'predicted'
    known = labels.semantic != 255
    right = (predicted.semantic == labels.semantic)[known]
    return f'{right.float().mean():.0%} of the pixels right' if len(right) else 'predicted'


def _legend(groups: Sequence[Sequence[Labels]], names: Sequence[str], colors: Sequence) -> list[tuple[str, Any]]:
    """Classes that occur, with the number of their labels and, in a second group, of their predictions."""
    counts: tuple[Counter[int], Counter[int]] = Counter(), Counter()
    for total, group in zip(counts, groups, strict=False):
        for labels in group:
            total.update(labels.present())
    objects = any(labels.classes is not None for group in groups for labels in group)
    entries = []
    for number in sorted(counts[0].keys() | counts[1].keys()):
        text = name_of(names, number)
        if objects:
            text += f': {counts[0][number]}'
            text += f' labels, {counts[1][number]} predicted' * (len(groups) > 1)
        entries.append((text, color_of(colors, number)))
    return entries


def _save(picture: Image.Image, path: Path) -> None:
    with replacing(path) as part:
        picture.save(part, quality=88)

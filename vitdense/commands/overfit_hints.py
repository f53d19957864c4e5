"""What to look at when a model does not learn a few images by heart."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from mmengine.config import Config
from torch import nn

from vitdense.config.tree import look_up


@dataclass(frozen=True)
class Evaluation:
    """An evaluation on the training images.

    Attributes:
        step: training steps before it.
        loss: mean since the last evaluation.
        map: COCO mAP.
        ap50: at an IoU of 0.5.
        boxes: mAP without regard to classes.
        classes: AP of each class, NaN of those without objects.
    """

    step: int
    loss: float
    map: float
    ap50: float
    boxes: float
    classes: np.ndarray


def hints(
    evaluations: Sequence[Evaluation], first_loss: float, model: nn.Module, cfg: Config, images: Sequence[dict]
) -> list[str]:
    """What may be wrong, the likeliest first.

    Args:
        evaluations: of the run, at least one.
        first_loss: mean of its first steps.
        model: as it was trained.
        cfg: its config.
        images: the training images with their ``instances``.
    """
    last = evaluations[-1]
    found = [*_limits(model, cfg, images), *_losses(last, first_loss, model, cfg), *_errors(last, cfg)]
    before = evaluations[-1 - min(4, len(evaluations) - 1)]
    if last.map > before.map + 0.02:
        found.append(
            f'the mAP is still rising ({before.map:.3f} at step {before.step}, {last.map:.3f} at step {last.step}): '
            f'--steps {2 * last.step}'
        )
    found.append('labels beside predictions are in val_iter_*.jpg, what the model was trained on in train_batch_*.jpg')
    return found


def _limits(model: nn.Module, cfg: Config, images: Sequence[dict]) -> Iterator[str]:
    most = max(len(image['instances']) for image in images)
    for name, limit in _rooms(model, cfg).items():
        if 0 < limit < most:
            yield f'an image has {most} objects, but {name} is {limit}, so that some cannot be found'


def _rooms(model: nn.Module, cfg: Config) -> dict[str, int]:
    """Numbers of detections that an image can have, by their names."""
    rooms = {}
    for module_name, module in model.named_modules():
        for name in ('num_queries', 'det_tokens', 'max_per_img'):
            if isinstance(getattr(module, name, None), int):
                rooms[f'{module_name}.{name}'.lstrip('.')] = getattr(module, name)
        if isinstance(module, nn.Embedding) and module_name.endswith('query_embed'):
            rooms[f'the number of queries ({module_name})'] = module.num_embeddings
    for key in ('test_cfg.max_per_img', 'test_cfg.rcnn.max_per_img'):
        if isinstance(limit := look_up(cfg.model, key), int):
            rooms[f'model.{key}'] = limit
    return rooms


def _losses(last: Evaluation, first_loss: float, model: nn.Module, cfg: Config) -> Iterator[str]:
    share = last.loss / first_loss if first_loss else 1.0
    rate = cfg.optim_wrapper.optimizer.lr
    if share > 0.7:
        yield (
            f'the loss fell by {max(0.0, 1 - share):.0%} only ({first_loss:.4g} at the start, {last.loss:.4g} at the '
            f'end): more steps than {last.step}; another learning rate, --lr {3 * rate:g} or --lr {rate / 3:g}; or '
            'labels that do not belong to the images (look at train_batch_0.jpg)'
        )
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        total = sum(p.numel() for p in model.parameters())
        if trained < 0.5 * total:
            yield f'only {trained / 1e6:.2f} M of {total / 1e6:.2f} M parameters are trained (frozen_stages)'
    elif last.ap50 < 0.05 and share < 0.3:
        yield (
            f'the loss fell from {first_loss:.4g} to {last.loss:.4g}, but next to nothing is found: training and '
            'prediction differ. Look at score_thr and nms of model.test_cfg, at batch norm with batches of few images, '
            'and at the decoding of boxes (scale_factor in meta_keys of PackDetInputs)'
        )


def _errors(last: Evaluation, cfg: Config) -> Iterator[str]:
    if last.boxes > last.map + 0.1:
        missed = [k for k, ap in enumerate(last.classes) if ap < 0.5 * last.boxes]
        yield (
            f'boxes fit (mAP {last.boxes:.3f} without regard to classes), classes do not ({last.map:.3f}): look at the '
            f'classes with low AP in per_class.csv ({len(missed)} of them) and who is taken for whom in '
            'confusion_matrix.png; are labels of the images right, and metainfo.classes in the order meant?'
        )
    elif last.ap50 > last.map + 0.2:
        yield (
            f'objects are found, but their boxes are not precise (AP50 {last.ap50:.3f}, mAP {last.map:.3f}): more '
            'steps, a finer map (smaller stride, larger images), or more weight on the losses of boxes'
        )
    elif last.ap50 < 0.5:
        rate = cfg.optim_wrapper.optimizer.lr
        yield (
            f'few objects are found (AP50 {last.ap50:.3f}): a higher or lower learning rate, --lr {3 * rate:g} or '
            f'--lr {rate / 3:g}; more steps for a DETR from random weights; anchors that have the size of the objects'
        )

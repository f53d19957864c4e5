"""What is likely to disappoint, said before the training."""

from collections.abc import Iterator, Sequence

from mmengine.config import Config

from vitdense.config.tree import look_up
from vitdense.datasets.scan import SplitReport
from vitdense.registry import bare_type

ENOUGH = 10_000
"""Training images, a tenth of COCO's, below which a DETR needs a pretrained detector."""

HEADS = {
    'DETRHead': 'configs/detr/detr_r50_finetune_bccd.py',
    'YOLOSHead': 'configs/yolos/yolos-ti_finetune-50e_bccd.py',
}
"""Heads whose queries attend to a whole map, and configs that start from pretrained ones."""

DETECTORS = ('DETR', 'ConditionalDETR', 'DABDETR')
"""Detectors of mmdet of which the same holds."""


def advice(cfg: Config, reports: Sequence[SplitReport], processes: int) -> list[str]:
    """Warnings about the training of ``cfg``.

    Args:
        cfg: the config as it runs.
        reports: what the scan of the data found.
        processes: number of processes.
    """
    images = sum(report.images for report in reports if report.key.startswith('train'))
    return [*_from_random_weights(cfg, images), *_batch(cfg, processes)]


def _from_random_weights(cfg: Config, images: int) -> Iterator[str]:
    detector, head = map(bare_type, (cfg.model, look_up(cfg.model, 'bbox_head')))
    slow = detector in DETECTORS or head in HEADS
    if not slow or not 0 < images < ENOUGH or cfg.get('load_from') or cfg.get('resume'):
        return
    if 'yolos' in str(look_up(cfg.model, 'backbone.init_cfg.checkpoint')).lower():  # nearly all of the detector
        return
    name = detector if detector in DETECTORS else head.removesuffix('Head')
    yield (
        f'{name} on {images} images without a pretrained detector (load_from): expect an mAP near 0 for a very long '
        'time. Its attention learns slowly where to look, published models took 150 to 500 epochs of 118 000 images. '
        f'Start from COCO weights as {HEADS.get(head, HEADS["DETRHead"])} does, or take '
        'Deformable DETR (configs/deformable_detr). First of all, '
        'python tools/overfit.py CONFIG tells within minutes whether data and model fit together'
    )


def _batch(cfg: Config, processes: int) -> Iterator[str]:
    recipe = cfg.get('auto_scale_lr') or {}
    base, steps = recipe.get('base_batch_size'), cfg.optim_wrapper.get('accumulative_counts', 1)
    images = cfg.train_dataloader.get('batch_size', 1) * processes * steps
    if base is None or recipe.get('enable') or images == base:
        return
    rate = look_up(cfg.optim_wrapper, 'optimizer.lr')
    if rate is None:
        yield f'{images} images make a step, but the learning rates of the recipe are for {base}'
        return
    fitting = f'optim_wrapper.optimizer.lr={rate * images / base:.3g}'
    yield (
        f'{images} images make a step, but the learning rate {rate:g} of the recipe is for {base}. By the linear rule: '
        f'--cfg-options {fitting}, which is what --auto-scale-lr does'
    )

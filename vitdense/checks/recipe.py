"""What of a training is likely to disappoint."""

from collections.abc import Iterator

from vitdense.config.tree import look_up
from vitdense.names import counted
from vitdense.registry import bare_type

from .rules import Case, rule
from .run import Run

ENOUGH = 10_000
"""Training images, a tenth of COCO's, below which a DETR needs a pretrained detector."""

HEADS = {
    'DETRHead': 'configs/detr/detr_r50_finetune_bccd.py',
    'YOLOSHead': 'configs/yolos/yolos-ti_finetune-50e_bccd.py',
}
"""Heads whose queries attend to a whole map, and configs that start from pretrained ones."""

DETECTORS = ('DETR', 'ConditionalDETR', 'DABDETR')
"""Detectors of mmdet of which the same holds."""


@rule(
    'query detector from random weights',
    looks_at=f'`model`, `load_from` and the number of training images, fewer than {ENOUGH}',
    expected='a pretrained detector (load_from): attention learns slowly where to look, published '
    'models took 150 to 500 epochs of 118 000 images',
    fatal=False,
    needs='data',
)
def from_random_weights(run: Run) -> Iterator[Case]:
    cfg = run.cfg
    images = sum(report.images for report in run.split('train').reports)
    detector, head = map(bare_type, (cfg.model, look_up(cfg.model, 'bbox_head')))
    slow = detector in DETECTORS or head in HEADS
    if not slow or not 0 < images < ENOUGH or cfg.get('load_from') or cfg.get('resume'):
        return
    if 'yolos' in str(look_up(cfg.model, 'backbone.init_cfg.checkpoint')).lower():  # nearly all of the detector
        return
    name = detector if detector in DETECTORS else head.removesuffix('Head')
    yield Case(
        'model',
        f'{name} on {images} images: expect an mAP near 0 for a very long time',
        remedy=(
            f'start from COCO weights as {HEADS.get(head, HEADS["DETRHead"])} does, or take Deformable DETR '
            '(configs/deformable_detr). First of all, python tools/overfit.py CONFIG tells within minutes whether data '
            'and model fit together'
        ),
    )


@rule(
    'learning rate of another batch size',
    looks_at='`train_dataloader.batch_size`, accumulated steps and processes against `auto_scale_lr.base_batch_size`',
    expected='as many images a step as the recipe has',
    remedy='--auto-scale-lr scales the learning rate by the linear rule',
    fatal=False,
)
def batch(run: Run) -> Iterator[Case]:
    cfg = run.cfg
    recipe, wrapper = cfg.get('auto_scale_lr') or {}, cfg.get('optim_wrapper') or {}
    base, steps = recipe.get('base_batch_size'), wrapper.get('accumulative_counts', 1)
    size = run.split('train').loader.get('batch_size', 1)
    if not run.trains or base is None or recipe.get('enable') or not isinstance(size, int):
        return
    images = size * run.processes * steps
    found = f'{counted(images, "image")} a step'
    if images == base:
        return
    rate = look_up(wrapper, 'optimizer.lr')
    if rate is None:
        yield Case('train_dataloader', found, f'{base}, for which the learning rates are')
        return
    yield Case(
        'optim_wrapper.optimizer.lr',
        f'{rate:g}, and {found}',
        f'{base} images a step',
        f'--cfg-options optim_wrapper.optimizer.lr={rate * images / base:.3g} goes by the linear rule, as '
        '--auto-scale-lr does',
    )

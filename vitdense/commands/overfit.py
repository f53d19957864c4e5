"""``tools/overfit.py``: can the model of a config learn a few of its own training images by heart?"""

import argparse
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import timm.layers
from mmcv.cnn.bricks.drop import DropPath
from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner
from torch import nn

from vitdense.commands.overfit_hints import Evaluation, hints
from vitdense.commands.prepare import (
    Preparation,
    beside_the_training,
    build_runner,
    check_config,
    choose_backbone,
    describe_run,
    tell_remarks,
)
from vitdense.config.datasets import leaf_datasets, positions
from vitdense.config.tree import look_up
from vitdense.console import CONSOLE, say
from vitdense.engine.hooks import InvalidLossError
from vitdense.engine.hooks.evaluation_files import per_class_table, reports_of
from vitdense.engine.log_processor import duration
from vitdense.models.wrappers import unwrap_model
from vitdense.registry import bare_type

WARMUP, INTERVAL = 50, 50
"""Steps of the warm-up, and between two evaluations."""

FOUND = 0.9
"""AP50 from which on only the precision of boxes is wanting."""


def run(args: argparse.Namespace, cfg: Config) -> int:
    """Train ``cfg`` as ``tools/overfit.py`` was told: 0 if the mAP was reached, else 1.

    Raises:
        FileNotFoundError, ValueError, KeyError: the config cannot be run as it is, is not one of detection, or has too
            few images with objects; raised before the first step.
    """
    run = describe_run(cfg, args.splits)
    changes = choose_backbone(cfg, args)
    pipeline = plain_pipeline(cfg)
    beside_the_training(cfg, 'overfit')
    overfit_config(cfg, args)
    check_config(run)
    with Preparation(run, args, f'{Path(args.config).stem}_overfit') as ready:
        dataset, chosen = choose_images(cfg, pipeline, args.images, args.seed)
        cfg.train_dataloader.dataset = cfg.val_dataloader.dataset = dataset
        runner = build_runner(run)
        runner.data_reports = run.reports
        model = unwrap_model(runner.model)
        without_dropout(model)
        for change in changes + ready.changes:
            say(change)
        tell_remarks(run, runner)
        names = [Path(image['img_path']).name for image in chosen]
        say(f'images     {len(names)} with {sum(map(count_objects, chosen))} objects: {", ".join(names)}')
        progress = Progress(args.target, args.minutes)
        runner.register_hook(progress)
        try:
            runner.train()
        except InvalidLossError as error:
            found = [str(error)]
        else:
            found = hints(progress.evaluations, progress.first_loss, model, cfg, chosen)
            for report, suffix in reports_of(runner.val_evaluator):
                CONSOLE.print(per_class_table(report, suffix))
        CONSOLE.print(f'work dir: {Path(runner.work_dir).resolve()}')
        if progress.reached:
            say(f'PASSED: mAP {progress.last.map:.3f} after {runner.iter} steps; model, data and metric fit together')
            return 0
        say(f'FAILED: mAP {args.target:g} was not reached in {runner.iter} steps{progress.out_of_time}')
        for hint in found:
            say(f'- {hint}')
        return 1


def plain_pipeline(cfg: Config) -> list[dict]:
    """The pipeline of validation, with labels as training loads them, before all that moves them.

    Raises:
        ValueError: not a config of detection, or one without validation.
    """
    if cfg.get('default_scope') != 'mmdet':
        scope = cfg.get('default_scope')
        raise ValueError(f'overfit.py is for detection (default_scope mmdet), the config is for {scope}')
    tested = next((steps for split in ('val', 'test') for steps in _pipelines(cfg, split)), None)
    trained = (step for steps in _pipelines(cfg, 'train') for step in steps)
    labels = next((step for step in trained if _named(step, 'LoadAnnotations')), None)
    if tested is None:
        raise ValueError('the config has no pipeline for validation or test')
    if labels is None:
        raise ValueError('the pipeline of training has no LoadAnnotations')
    images = [step for step in tested if _named(step, 'Load.*Image.*')]
    rest = [step for step in tested if not _named(step, 'Load.*|PackDetInputs')]
    pack: dict = next((dict(step) for step in tested if _named(step, 'PackDetInputs')), dict(type='PackDetInputs'))
    pack['meta_keys'] = (
        *pack.get('meta_keys', ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
        'instances',
    )
    return [*images, labels, *rest, pack]


def choose_images(cfg: Config, pipeline: list[dict], number: int, seed: int) -> tuple[ConfigDict, list[dict]]:
    """The data set of ``number`` training images with objects, seen through ``pipeline``, and what it knows of each.

    Raises:
        ValueError: there are fewer, or the data have no boxes.
    """
    pool, leaves = [], list(leaf_datasets(cfg, 'train'))
    for place, (key, leaf) in enumerate(leaves):
        with DefaultScope.overwrite_default_scope('mmdet'):
            images = DATASETS.build({**leaf, 'pipeline': [], 'indices': None})
        known = [images.get_data_info(i) for i in range(len(images))]
        if known and 'instances' not in known[0]:
            raise ValueError(f'{key} ({type(images).__name__}) has no boxes, which overfit.py needs')
        pool += [(place, i, known[i]) for i in positions(len(images), leaf.get('indices')) if count_objects(known[i])]
    if len(pool) < number:
        raise ValueError(f'--images {number}: only {len(pool)} training images have objects')
    chosen = sorted(random.Random(seed).sample(range(len(pool)), number))
    parts = []
    for place, (_, leaf) in enumerate(leaves):
        indices = [pool[k][1] for k in chosen if pool[k][0] == place]
        if indices:
            parts.append(ConfigDict({**leaf, 'indices': indices, 'pipeline': pipeline}))
    dataset = parts[0] if len(parts) == 1 else ConfigDict(type='ConcatDataset', datasets=parts)
    return dataset, [pool[k][2] for k in chosen]


def count_objects(image: dict) -> int:
    """Objects of an image that training does not ignore."""
    return sum(not instance.get('ignore_flag') for instance in image['instances'])


def overfit_config(cfg: Config, args: argparse.Namespace) -> None:
    """Train ``cfg``, and evaluate it on the same data, at a constant learning rate without what fights overfitting."""
    loader = dict(num_workers=0, persistent_workers=False, dataset=cfg.train_dataloader.dataset)
    collate = {key: cfg.train_dataloader[key] for key in ('collate_fn',) if key in cfg.train_dataloader}
    batch = min(cfg.train_dataloader.get('batch_size', 1), args.images)
    wrapper = {key: cfg.optim_wrapper[key] for key in ('type', 'dtype', 'loss_scale') if key in cfg.optim_wrapper}
    if look_up(cfg.model, 'data_preprocessor.batch_augments'):
        cfg.model.data_preprocessor.batch_augments = None
    settings = dict(
        train_dataloader=dict(
            **loader, **collate, batch_size=batch, sampler=dict(type='InfiniteSampler', shuffle=True)
        ),
        # in batches of the same size: what a backbone makes of an image may depend on the padding around it
        val_dataloader=dict(**loader, batch_size=batch, sampler=dict(type='DefaultSampler', shuffle=False)),
        # with the classes, and without, which tells wrong boxes from wrong classes
        val_evaluator=dict(type='vitdense.CocoMetric', metric=['bbox', 'proposal'], metric_items=['mAP', 'mAP_50']),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=args.steps, val_interval=INTERVAL),
        val_cfg=dict(type='ValLoop'),
        test_dataloader=None,
        test_evaluator=None,
        test_cfg=None,
        optim_wrapper=dict(
            **wrapper,
            optimizer=dict(type='AdamW', lr=args.lr, weight_decay=0.0),
            clip_grad=dict(max_norm=1.0),
        ),
        param_scheduler=[dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=WARMUP)],
        auto_scale_lr=None,
        custom_hooks=[],
        randomness=dict(seed=args.seed),
        resume=False,
    )
    for key, value in settings.items():  # what the config has is replaced, where update() would merge
        cfg[key] = value
    cfg.log_processor.by_epoch = False
    cfg.default_hooks.update(
        checkpoint=None,
        progress=None,
        stop=None,
        pictures=dict(type='vitdense.PicturesHook', num_val_images=args.images),
    )


def without_dropout(model: nn.Module) -> None:
    """Turn dropout and stochastic depth off, in all modules of PyTorch, timm, mmcv and mmdet that have a rate of it."""
    from mmdet.models.layers import DropBlock
    from mmdet.models.utils.vlfuse_helper import BiMultiHeadAttention

    rates = {
        nn.modules.dropout._DropoutNd: 'p',
        nn.MultiheadAttention: 'dropout',
        BiMultiHeadAttention: 'dropout',
        DropPath: 'drop_prob',
        timm.layers.DropPath: 'drop_prob',
        DropBlock: 'drop_prob',
    }
    for module in model.modules():
        for kind, rate in rates.items():
            if isinstance(module, kind):
                setattr(module, rate, 0.0)


class Progress(Hook):
    """Says how far it is at each evaluation, and ends the training when the mAP or the time is reached.

    Where the objects are found (AP50 of 0.9) and the mAP does not rise, the learning rate is halved: steps of one size
    keep boxes moving about their place.
    """

    priority = 'LOWEST'

    def __init__(self, target: float, minutes: float) -> None:
        self.target, self.minutes = target, minutes
        self.evaluations: list[Evaluation] = []
        self.first_loss = 0.0
        self.reached, self.out_of_time = False, ''

    @property
    def last(self) -> Evaluation:
        return self.evaluations[-1]

    def before_train(self, runner: Runner) -> None:
        self.start = time.monotonic()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        rate = runner.optim_wrapper.param_groups[0]['lr']
        losses = runner.message_hub.get_scalar('train/loss')
        if not self.evaluations:
            self.first_loss = float(losses.data[0][:10].mean())
        one = Evaluation(
            step=runner.iter,
            loss=float(losses.mean(INTERVAL)),
            map=metrics['coco/bbox_mAP'],
            ap50=metrics['coco/bbox_mAP_50'],
            boxes=metrics['coco/mAP'],
            classes=runner.val_evaluator.metrics[0].report.column('AP'),
        )
        if one.ap50 >= FOUND and one.map <= max((before.map for before in self.evaluations), default=0.0):
            for group in runner.optim_wrapper.param_groups:
                group['lr'] /= 2
        self.evaluations.append(one)
        seconds = time.monotonic() - self.start
        say(
            f'step {one.step:5}  loss {one.loss:8.4g}  mAP {one.map:.3f}  AP50 {one.ap50:.3f}  '
            f'mAP without classes {one.boxes:.3f}  lr {rate:.1e}  {duration(seconds)}'
        )
        self.reached = one.map >= self.target
        if seconds > 60 * self.minutes:
            self.out_of_time = f', which took {self.minutes:g} minutes'
        runner.train_loop.stop_training = self.reached or bool(self.out_of_time)


def _pipelines(cfg: Config, split: str) -> Iterator[list[dict]]:
    """Pipelines of the data sets of a split, and of the wrappers around them."""
    pending = [(cfg.get(f'{split}_dataloader') or {}).get('dataset')]
    while pending:
        node = pending.pop(0)
        if isinstance(node, list):
            pending += node
        elif isinstance(node, dict):
            if node.get('pipeline'):
                yield node['pipeline']
            pending += [node.get('dataset'), node.get('datasets')]


def _named(step: dict, pattern: str) -> bool:
    return bool(re.fullmatch(pattern, bare_type(step)))

"""Small trainings with everything that draws random numbers or keeps a state, broken off and gone on with."""

import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from torch import Tensor
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from vitdense.checkpoint.read import read
from vitdense.config.runtime import use_runtime
from vitdense.engine import Runner
from vitdense.engine.hooks.results import read_rows

from .small import _maps, _objects

IMAGES = 8


class KilledError(Exception):
    """Stands for a kill: nothing of the run catches it."""


class Kill(Hook):
    """Ends a run at a stage of an iteration, or of the next one with this stage; it comes after all other hooks."""

    priority = 'LOWEST'

    def __init__(self, iteration: int, stage: str = 'after_train_iter') -> None:
        self.iteration = iteration - (stage == 'after_train_iter')  # which is not counted yet there
        setattr(self, stage, self.kill)

    def kill(self, runner: Runner, *_: Any, **__: Any) -> None:
        if runner.iter >= self.iteration:
            raise KilledError


def make_cfg(
    data: Path,
    seg: bool = False,
    loop: dict | None = None,
    checkpoint: dict | None = None,
    workers: int = 0,
    persistent: bool = False,
    ema: bool = True,
    wrapper: dict | None = None,
    seed: int | None = 3,
    sampler: dict | None = None,
    **settings: Any,
) -> Config:
    """A detector or a segmentor with drop path, dropout and augmentation; 4 steps of 2 images an epoch."""
    dataset, (tested, trained), evaluator = _maps(data) if seg else _objects(data, False)
    resize, crop, scope = trained[2], dict(type='RandomCrop', crop_size=(48, 64)), 'mmseg' if seg else 'mmdet'
    resize.update(scale=(80, 56))
    if seg:
        trained = [
            *trained[:3],
            crop,
            dict(type='RandomFlip', prob=0.5),
            dict(type='PhotoMetricDistortion'),
            trained[3],
        ]
        tested[1].update(scale=(80, 56))
    else:
        random_resize = dict(type='RandomChoiceResize', scales=[(64, 48), (80, 56), (96, 64)], keep_ratio=True)
        trained = [*trained[:2], random_resize, crop, *trained[3:4], dict(type='PhotoMetricDistortion'), trained[4]]
    backbone = dict(
        type='vitdense.PVTv2', arch='b0', embed_dims=(8, 8, 16, 16), depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2),
        drop_path_rate=0.3,
    )  # fmt: skip
    preprocessor = dict(mean=[120.0] * 3, std=[60.0] * 3, bgr_to_rgb=True)
    if seg:
        model = dict(
            type='EncoderDecoder',
            data_preprocessor=dict(type='SegDataPreProcessor', size=(64, 80), **preprocessor),
            backbone=backbone,
            decode_head=dict(
                type='FCNHead', in_channels=16, in_index=3, channels=8, num_convs=1, dropout_ratio=0.2, num_classes=2,
                norm_cfg=dict(type='BN'), loss_decode=dict(type='CrossEntropyLoss', loss_weight=1.0),
            ),
            test_cfg=dict(mode='whole'),
        )  # fmt: skip
    else:
        model = dict(
            type='RetinaNet',
            data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32, **preprocessor),
            backbone=backbone,
            neck=dict(type='FPN', in_channels=[8, 8, 16, 16], out_channels=8, start_level=1, num_outs=3,
                      norm_cfg=dict(type='BN')),
            bbox_head=dict(
                type='RetinaHead', num_classes=2, in_channels=8, stacked_convs=1, feat_channels=8,
                anchor_generator=dict(type='AnchorGenerator', octave_base_scale=4, scales_per_octave=1, ratios=[1.0],
                                      strides=[8, 16, 32]),
            ),
            train_cfg=dict(
                assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0),
                allowed_border=-1, pos_weight=-1,
            ),
            test_cfg=dict(nms_pre=50, score_thr=0.01, nms=dict(type='nms', iou_threshold=0.5), max_per_img=5),
        )  # fmt: skip
    loop = loop or dict(by_epoch=True, max_epochs=2)
    by_epoch = 'max_epochs' in loop
    common = dict(num_workers=workers, persistent_workers=persistent)
    cfg = Config(
        dict(
            default_scope=scope,
            model=model,
            train_dataloader=dict(
                batch_size=2,
                sampler=sampler or dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=True),
                dataset=dict(dataset, pipeline=trained),
                **common,
            ),
            val_dataloader=dict(
                batch_size=2,
                sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=dict(dataset, pipeline=tested, test_mode=True),
                **common,
            ),
            val_evaluator=evaluator,
            val_cfg=dict(),
            train_cfg=loop,
            optim_wrapper=dict(
                type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.01), clip_grad=dict(max_norm=1.0)
            ) | (wrapper or {}),
            param_scheduler=[
                dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=5),
                dict(type='CosineAnnealingLR', by_epoch=False, begin=5, T_max=20),
            ],
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', max_keep_ckpts=10)
                | (checkpoint or dict(interval=1, by_epoch=by_epoch)),
                pictures=None, start_report=None, visualization=None, evaluation_files=None, logger=None,
            ),
            custom_hooks=[dict(type='EMAHook', momentum=0.1)] if ema else [],
            log_processor=dict(by_epoch=by_epoch),
            randomness=dict(seed=seed),
            **settings,
        )
    )  # fmt: skip
    use_runtime(cfg)
    return cfg


def train(cfg: Config, folder: Path, kill: Kill | None = None, resume: str | None = None) -> Runner:
    """Train in ``folder``, or go on from one of its checkpoints."""
    cfg = Config(cfg._cfg_dict.to_dict())
    cfg.work_dir, cfg.experiment_name = str(folder), uuid4().hex
    if resume:
        cfg.resume, cfg.load_from = True, str(folder / resume)
    runner = Runner.from_cfg(cfg)
    if kill:
        runner.register_hook(kill)
    try:
        runner.train()
    finally:
        end_workers()
    return runner


def end_workers() -> None:
    """End the workers of all loaders; a garbage collection waits five seconds for each."""
    for found in gc.get_objects():
        if isinstance(found, _MultiProcessingDataLoaderIter):
            found._shutdown_workers()


def largest_difference(one: Any, other: Any, where: str = '') -> tuple[float, str]:
    """The largest difference of two nests of tensors and numbers, and where it is; infinite where they do not match."""
    if isinstance(one, Mapping) and isinstance(other, Mapping) and list(one) == list(other):
        pairs = [(one[key], other[key], f'{where}.{key}') for key in one]
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        pairs = [(a, b, f'{where}[{i}]') for i, (a, b) in enumerate(zip(one, other, strict=True))]
    elif isinstance(one, Tensor | np.ndarray) and one.shape == other.shape and one.dtype == other.dtype:
        a, b = (torch.as_tensor(value, dtype=torch.float64) for value in (one, other))
        return (a - b).abs().max().item() if a.numel() and not torch.equal(a, b) else 0.0, where
    else:
        same = one == other or (one != one and other != other)
        return 0.0 if same else float('inf'), f'{where}: {one!r}, {other!r}' if not same else where
    return max((largest_difference(*pair) for pair in pairs), default=(0.0, where), key=lambda found: found[0])


STATES = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')


def states_of(path: Path) -> dict[str, Any]:
    """What has to be equal in two checkpoints: all states, and the losses of all steps."""
    checkpoint = read(path)
    history = checkpoint['message_hub']['log_scalars']
    losses = {key: log.data[0] for key, log in sorted(history.items()) if 'time' not in key}
    info = {key: checkpoint['message_hub']['runtime_info'].get(key) for key in ('best_score', 'validated')}
    return {key: checkpoint[key] for key in STATES if key in checkpoint} | {'losses': losses, 'info': info}


def rows_of(folder: Path) -> list[dict[str, float]]:
    """The rows of ``results.csv`` without the seconds."""
    rows = read_rows(folder / 'results.csv')
    return [{key: value for key, value in row.items() if key != 'seconds'} for row in rows]

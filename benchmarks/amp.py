"""Times training steps in float32 and in half types: ``python benchmarks/amp.py --out FILE.md``.

A step is what ``tools/train.py`` does with a batch, without and with ``--amp``: preprocessing, forward, losses,
backward, clipping and the optimizer of the config. All types begin with the same random weights and train on the same
random images. Images a second are those of the median step; the peak counts weights, gradients and the optimizer's
state. fp32 is PyTorch's default: TF32 for convolutions, not for matrix products.
"""

import argparse
import copy
import math
import statistics
import sys
from collections.abc import Callable
from typing import NamedTuple

import torch
from detectors import CONFIGS, Batch
from measuring import brief, clock_of, options, report
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from vitdense.benchmark.machine import peak_memory
from vitdense.config.load import load_config

PACKAGES = ('vitdense', 'torch', 'onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'onedl-mmsegmentation')
HEADER = ('model', 'type', 'images', 'size', 'median, ms', 'images/s', 'times fp32', 'peak, MB')
HEADER += ('first loss', 'last loss')
DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
OBJECTS = 15  # in an image


class Case(NamedTuple):
    """A config of ours, and the size of the images."""

    config: str
    hw: tuple[int, int]


CASES = {
    'DETR R50': Case('detr/detr_r50_8xb2-150e_coco.py', (800, 1333)),
    'Deformable DETR R50': Case('deformable_detr/deformable-detr_r50_8xb4-50e_coco.py', (800, 1333)),
    'YOLOS-S': Case('yolos/yolos-s_8xb1-150e_coco.py', (800, 1333)),
    'RetinaNet Swin-T': Case('swin/retinanet_swin-t_fpn_1x_coco.py', (800, 1333)),
    'SETR-PUP ViT-L': Case('setr/setr_pup_vit-l_8xb1-80k_cityscapes-768x768.py', (768, 768)),
}


def build(cfg: Config, hw: tuple[int, int]) -> nn.Module:
    """The model of a config for images of a size, with random weights."""
    cfg.model.backbone.init_cfg = None
    if cfg.default_scope == 'mmseg':
        cfg.model.data_preprocessor.size = hw
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    model.init_weights()
    return model.train()


def batch_of(cfg: Config, count: int, hw: tuple[int, int], device: str) -> dict:
    """Images and what is in them, as the data loader of the config hands them over."""
    batch = Batch.random(count, hw, OBJECTS, device)
    samples = batch.samples if cfg.default_scope == 'mmdet' else segments(cfg.num_classes, count, hw, device)
    return dict(inputs=list((64 * batch.images + 128).clamp(0, 255).byte()), data_samples=samples)


def segments(classes: int, count: int, hw: tuple[int, int], device: str) -> list:
    """Random classes in cells of 32 x 32 pixels, as mmseg's data samples."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    generator = torch.Generator().manual_seed(0)
    cells = torch.randint(classes, (count, 1, *(-(-side // 32) for side in hw)), generator=generator)
    maps = cells.repeat_interleave(32, 2).repeat_interleave(32, 3)[..., : hw[0], : hw[1]].to(device)
    return [SegDataSample(metainfo=dict(img_shape=hw), gt_sem_seg=PixelData(data=x)) for x in maps]


def step_of(cfg: Config, model: nn.Module, batch: dict, dtype: str) -> Callable[[], Tensor]:
    """A function that trains a step and returns the loss before it."""
    options = dict(cfg.optim_wrapper)
    if dtype != 'fp32':
        options.update(type='vitdense.AmpOptimWrapper', dtype=DTYPES[dtype])
    optim_wrapper = build_optim_wrapper(model, options)

    def step() -> Tensor:
        return model.train_step(batch, optim_wrapper)['loss'].detach()

    return step


def median_seconds(step: Callable, args: argparse.Namespace) -> float:
    clock = clock_of(args.device)  # not longer than here: it holds memory
    return statistics.median(clock(step) for _ in range(args.repeat)) / 1e3


def measure_case(args: argparse.Namespace, name: str, rows: list[tuple[str, ...]], faults: list[str]) -> None:
    """Add a row for each type to ``rows``, and what fails to ``faults``."""
    hw = tuple(args.hw or CASES[name].hw)
    seconds = {}
    cfg = load_config(str(CONFIGS / CASES[name].config))
    model = build(cfg, hw)
    weights = copy.deepcopy(model.state_dict())
    model.to(args.device)
    batch = batch_of(cfg, args.images, hw, args.device)
    for dtype in args.dtypes:
        try:
            model.load_state_dict(weights)
            step = step_of(cfg, model, batch, dtype)
            first = step().item()
            seconds[dtype] = median_seconds(step, args)
            peak = peak_memory(step, args.device)
            last = step().item()
        except Exception as error:
            faults.append(f'{name}, {dtype}: {brief(error)}')
            continue
        finally:
            model.zero_grad(set_to_none=True)
        if not math.isfinite(first + last):
            faults.append(f'{name}, {dtype}: the loss is not finite')
        ratio = f'{seconds[dtype] / seconds["fp32"]:.2f}' if 'fp32' in seconds else ''
        times = f'{1e3 * seconds[dtype]:.1f}', f'{args.images / seconds[dtype]:.2f}', ratio
        size = f'{hw[0]} x {hw[1]}'
        rows.append((name, dtype, str(args.images), size, *times, f'{peak:.0f}', f'{first:.4g}', f'{last:.4g}'))


def main() -> None:
    parser = options(__doc__, repeat=10)
    parser.add_argument('--models', nargs='+', choices=CASES, default=list(CASES))
    parser.add_argument('--dtypes', nargs='+', choices=DTYPES, default=list(DTYPES))
    parser.add_argument('--images', type=int, default=4, help='of a batch')
    parser.add_argument('--hw', nargs=2, type=int, metavar=('H', 'W'), help='size of the images, instead of the usual')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    MMLogger.get_current_instance().setLevel('WARNING')  # it tells of each parameter
    cases, faults = [], []
    try:
        for name in args.models:
            cases.append([])
            try:
                measure_case(args, name, cases[-1], faults)
            except Exception as error:
                faults.append(f'{name}: {brief(error)}')
    finally:
        report(args, HEADER, cases, PACKAGES, [f'Failed: {fault}' for fault in faults])
    if faults:
        sys.exit(f'{len(faults)} of these steps failed: see the notes')


if __name__ == '__main__':
    main()

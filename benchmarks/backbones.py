"""Times backbones, ours and others, with the same weights: ``python benchmarks/backbones.py --out FILE.md``.

Each peer is built first, and ours gets its weights; on a small image both must return the same maps. Each round calls
every implementation of a model once, so that what else the machine does meets all of them alike. Ratios are those of
the minima over the rounds to the best peer. The slope is that of the logarithm of time over the logarithm of the image
area, between the smallest and the largest image. Memory is the growth at the peak of a call, gradients included.
"""

import argparse
import itertools
import math
from collections.abc import Callable
from functools import partial

import torch
from measuring import brief, clock_of, options, report
from torch import Tensor, nn

from vitdense.benchmark.machine import extra_memory
from vitdense.checkpoint.translate import convert
from vitdense.models.backbones import PVT, Backbone, PVTv2, Swin, ViT
from vitdense.models.layers.layout import pad_to_multiple

SIZES = {'512x672': (512, 672), '800x1333': (800, 1333)}
PASSES = ('forward', 'forward and backward')
PACKAGES = ('vitdense', 'torch', 'timm', 'transformers', 'onedl-mmdetection', 'onedl-mmsegmentation')
HEADER = ('model', 'image', 'pass', 'implementation', 'minimum, s', 'times best peer', 'memory, MB', 'times least peer')
HEADER += ('slope',)

VITDET = dict(
    window_size=14, global_blocks=(2, 5, 8, 11), rel_pos='decomposed', class_token=False, pos_resize='bicubic'
)
OURS: dict[str, Callable[[], Backbone]] = {
    'Swin-T': partial(Swin, 'tiny'),
    'PVT-S': partial(PVT, 'small'),
    'PVTv2-b2': partial(PVTv2, 'b2'),
    'ViT-B': partial(ViT, 'base', out_indices=(2, 5, 8, 11)),
    'ViT-B, windows': partial(ViT, 'base', **VITDET),
}


def from_timm(name: str, outputs: tuple[int, ...] | None = None, **kwargs) -> nn.Module:
    """A timm model that returns intermediate maps without a norm."""
    import timm

    model = timm.create_model(name, num_classes=0, **kwargs)
    forward = partial(model.forward_intermediates, indices=outputs, intermediates_only=True)
    model.forward = lambda image: forward(pad_to_multiple(image, 4))  # its Swin takes no other sizes
    return model


def from_mmdet(name: str, **kwargs) -> nn.Module:
    from mmdet.models import backbones

    return getattr(backbones, name)(**kwargs)


def from_mmseg(name: str, **kwargs) -> nn.Module:
    from mmseg.models import backbones

    return getattr(backbones, name)(**kwargs)


def from_transformers(name: str, **config) -> nn.Module:
    """A ``...Backbone`` of transformers, which returns the maps of its stages."""
    import transformers

    model = getattr(transformers, f'{name}Backbone')(getattr(transformers, f'{name}Config')(**config))
    forward = model.forward
    model.forward = lambda image: forward(image).feature_maps
    return model


STAGES = ['stage1', 'stage2', 'stage3', 'stage4']
PVT_V2 = dict(depths=[3, 4, 6, 3], hidden_sizes=[64, 128, 320, 512], num_attention_heads=[1, 2, 5, 8])
LOCAL_BLOCKS = [0, 1, 3, 4, 6, 7, 9, 10]
PEERS: dict[str, dict[str, Callable[[], nn.Module]]] = {
    'Swin-T': {
        'mmdet': partial(from_mmdet, 'SwinTransformer'),
        'mmseg': partial(from_mmseg, 'SwinTransformer'),
        'timm': partial(from_timm, 'swin_tiny_patch4_window7_224', strict_img_size=False),
        'transformers': partial(from_transformers, 'Swin', out_features=STAGES),
    },
    'PVT-S': {'mmdet': partial(from_mmdet, 'PyramidVisionTransformer', num_layers=[3, 4, 6, 3])},
    'PVTv2-b2': {
        'mmdet': partial(from_mmdet, 'PyramidVisionTransformerV2', embed_dims=64, num_layers=[3, 4, 6, 3]),
        'timm': partial(from_timm, 'pvt_v2_b2'),
        'transformers': partial(from_transformers, 'PvtV2', **PVT_V2, out_features=STAGES),
    },
    'ViT-B': {
        'timm': partial(
            from_timm, 'vit_base_patch16_224', outputs=(2, 5, 8, 11), dynamic_img_size=True, dynamic_img_pad=True
        ),
        'mmseg': partial(
            from_mmseg,
            'VisionTransformer',
            num_layers=12,
            out_indices=(2, 5, 8, 11),
            patch_bias=True,
            norm_cfg=dict(type='LN', eps=1e-6),
        ),
    },
    'ViT-B, windows': {
        'transformers': partial(
            from_transformers,
            'VitDet',
            use_relative_position_embeddings=True,
            window_size=14,
            window_block_indices=LOCAL_BLOCKS,
            out_features=['stage12'],
        ),
    },
}


def step(model: nn.Module, image: Tensor, backward: bool) -> tuple[Tensor, ...]:
    with torch.set_grad_enabled(backward):
        maps = model(image)
        if backward:
            sum(x.sum() for x in maps).backward()
            model.zero_grad(set_to_none=True)
    return maps


def build(name: str, device: str, missing: list[str]) -> dict[str, nn.Module]:
    """Ours and the peers of a model, by name; what cannot be built or differs is told in ``missing``."""
    models = {'vitdense': OURS[name]().to(device).eval()}
    for peer, make in PEERS[name].items():
        try:
            models[peer] = make().to(device)
            models[peer].eval()  # not chained: mmdet's train() returns None
        except (ImportError, RuntimeError, ValueError, TypeError) as error:
            missing.append(f'Not measured: {name} of {peer}: {brief(error)}')
            continue
        difference = compare(models['vitdense'], models[peer], device)
        if difference > 1e-3:
            missing.append(f'{name} of {peer} has other details: its maps differ by {difference:.2g}')
    return models


def compare(ours: Backbone, peer: nn.Module, device: str) -> float:
    """Give ours the weights of ``peer``; the largest difference of their maps on a small image."""
    state = {key: value for key, value in peer.state_dict().items() if value.is_floating_point()}
    converted, _ = convert(state, ours.family)
    ours.load_state_dict(converted, strict=False)
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(device)
    pairs = zip(step(ours, image, False), step(peer, image, False), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


def measure(args: argparse.Namespace) -> tuple[list[list[tuple[str, ...]]], list[str]]:
    """Rows of the table by case, and what could not be measured."""
    clock, cases, missing = clock_of(args.device), [], []
    for name in args.models:
        models = build(name, args.device, missing)
        seconds, memory = {}, {}
        for size, backward in itertools.product(args.sizes, (False, True)):
            image = torch.randn(1, 3, *SIZES[size]).to(args.device)
            steps = {peer: partial(step, model, image, backward) for peer, model in models.items()}
            rounds = [{peer: clock(call) / 1e3 for peer, call in steps.items()} for _ in range(args.repeat)]
            seconds[size, backward] = {peer: min(times[peer] for times in rounds) for peer in steps}
            memory[size, backward] = {peer: extra_memory(call, args.device) for peer, call in steps.items()}
        for (size, backward), times in seconds.items():
            cases.append([])
            used = memory[size, backward]
            fastest, leanest = (min(x[peer] for peer in x if peer != 'vitdense') for x in (times, used))
            for peer, time in times.items():
                small, large = (seconds[args.sizes[end], backward][peer] for end in (0, -1))
                cells = f'{time:.3f}', f'{time / fastest:.2f}', f'{used[peer]:.0f}', f'{used[peer] / leanest:.2f}'
                slope = f'{math.log(large / small) / log_area_ratio(args.sizes):.2f}' if len(args.sizes) > 1 else ''
                cases[-1].append((name, size, PASSES[backward], peer, *cells, slope))
    return cases, missing


def log_area_ratio(sizes: list[str]) -> float:
    return math.log(math.prod(SIZES[sizes[-1]]) / math.prod(SIZES[sizes[0]]))


def main() -> None:
    parser = options(__doc__, repeat=3)
    parser.add_argument('--models', nargs='+', choices=OURS, default=list(OURS))
    parser.add_argument('--sizes', nargs='+', choices=SIZES, default=list(SIZES))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cases, missing = measure(args)
    report(args, HEADER, cases, PACKAGES, missing)


if __name__ == '__main__':
    main()

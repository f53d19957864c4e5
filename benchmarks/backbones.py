"""Times backbones, ours and others, with the same weights: ``python benchmarks/backbones.py --out FILE.md``.

Each implementation has a process of its own. Ours gets the weights of each peer; on a small image both must return the
same maps. Each round calls every implementation of a model once, so that what else the machine does meets all of them
alike. Ratios are those of the minima over the rounds to the best peer in the same precision, and to the floor: the time
of the matrix products and convolutions of ours alone. The slope is that of the logarithm of time over the logarithm of
the image area, between the smallest and the largest image. Memory is the growth at the peak of a call, gradients
included. ``--kinds`` adds a table of what else the time goes to.
"""

import argparse
import itertools
import math
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from apart import Apart, Turns, busy, in_places, kinds_of, report_kinds, take_turns
from measuring import options, report
from torch import Tensor, nn

from vitdense.checkpoint.layouts import family_of
from vitdense.checkpoint.translate import convert
from vitdense.models.backbones import PVT, Backbone, PVTv2, Swin, SwinV2, ViT
from vitdense.models.layers.layout import pad_to_multiple

SIZES = {'512x672': (512, 672), '800x1333': (800, 1333)}
Maps = Sequence[Tensor]
PASSES = ('forward', 'forward and backward')
PACKAGES = ('vitdense', 'torch', 'timm', 'transformers', 'onedl-mmdetection', 'onedl-mmsegmentation')
HEADER = ('model', 'image', 'pass', 'precision', 'implementation', 'minimum, s', 'times best peer', 'times floor')
HEADER += ('memory, MB', 'times least peer', 'slope')

VITDET = dict(
    window_size=14, global_blocks=(2, 5, 8, 11), rel_pos='decomposed', class_token=False, pos_resize='bicubic'
)
OURS: dict[str, Callable[[], Backbone]] = {
    'Swin-T': partial(Swin, 'tiny'),
    'SwinV2-T': partial(SwinV2, 'tiny'),
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
    'SwinV2-T': {
        'timm': partial(from_timm, 'swinv2_tiny_window8_256', strict_img_size=False),
        'transformers': partial(from_transformers, 'Swinv2', image_size=256, window_size=8, out_features=STAGES),
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


def step(model: nn.Module, hw: tuple[int, int], backward: bool, half: bool, device: str) -> Callable[[], Maps]:
    """A call with an image of noise."""
    image = torch.randn(1, 3, *hw, generator=torch.Generator().manual_seed(0)).to(device)

    def call() -> Maps:
        with torch.set_grad_enabled(backward), torch.autocast(device, torch.bfloat16, enabled=half):
            maps = model(image)
        if backward:
            sum(x.sum() for x in maps).backward()
            model.zero_grad(set_to_none=True)
        return maps

    return call


def make(build: Callable[[], nn.Module], device: str) -> nn.Module:
    """The model, in evaluation mode on the device."""
    model = build().to(device)
    model.eval()  # not chained: mmdet's train() returns None
    return model


def save_weights(model: nn.Module, path: Path) -> None:
    torch.save({key: value for key, value in model.state_dict().items() if value.is_floating_point()}, path)


def take_weights(ours: Backbone, path: Path) -> None:
    converted, _ = convert(torch.load(path), family_of(type(ours)))
    ours.load_state_dict(converted, strict=False)


def small_maps(model: nn.Module, device: str) -> list[Tensor]:
    return [x.cpu() for x in step(model, (256, 256), False, False, device)()]


def build(name: str, args: argparse.Namespace, missing: list[str]) -> dict[str, Apart]:
    """Ours and the peers of a model, by name; what cannot be built or differs is told in ``missing``."""
    makers = {'vitdense': OURS[name], **PEERS[name]}
    places = in_places({k: partial(make, x, args.device) for k, x in makers.items()}, args, missing, name)
    for peer in list(places)[1:]:
        difference = compare(places['vitdense'], places[peer], args.device)
        if difference > 1e-3:
            missing.append(f'{name} of {peer} has other details: its maps differ by {difference:.2g}')
    return places


def compare(ours: Apart, peer: Apart, device: str) -> float:
    """Give ours the weights of ``peer``; the largest difference of their maps on a small image."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'weights.pth'
        peer(save_weights, path)
        ours(take_weights, path)
    pairs = zip(ours(small_maps, device), peer(small_maps, device), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


Case = tuple[str, str, bool, str]
"""Model, image, whether backward, precision."""


def measure(args: argparse.Namespace, notes: list[str]) -> tuple[dict[Case, Turns], dict[Case, dict[str, float]]]:
    """What was measured of each case, and with ``--kinds`` the shares of ours; ``notes`` gets what could not be."""
    measured, shares = {}, {}
    for name in args.models:
        places = build(name, args, notes)
        for size, backward, precision in itertools.product(args.sizes, (False, True), args.precisions):
            case = name, size, backward, precision
            call = partial(step, hw=SIZES[size], backward=backward, half=precision == 'bf16', device=args.device)
            measured[case] = take_turns(places, call, backward, args.device, args.repeat)
            if args.kinds:
                shares[case] = places['vitdense'](kinds_of, call, args.device)
        for place in places.values():
            place.end()
    return measured, shares


def rows_of(case: Case, measured: dict[Case, Turns], sizes: list[str]) -> list[tuple[str, ...]]:
    """Rows of the table: one an implementation."""
    name, size, backward, precision = case
    rows = []
    for peer, *cells in measured[case].rows():
        small, large = (measured[name, sizes[end], backward, precision].least[peer] for end in (0, -1))
        slope = f'{math.log(large / small) / log_area_ratio(sizes):.2f}' if len(sizes) > 1 else ''
        rows.append((name, size, PASSES[backward], precision, peer, *cells, slope))
    return rows


def log_area_ratio(sizes: list[str]) -> float:
    return math.log(math.prod(SIZES[sizes[-1]]) / math.prod(SIZES[sizes[0]]))


def main() -> None:
    parser = options(__doc__, repeat=3)
    parser.add_argument('--models', nargs='+', choices=OURS, default=list(OURS))
    parser.add_argument('--sizes', nargs='+', choices=SIZES, default=list(SIZES))
    parser.add_argument('--precisions', nargs='+', choices=('fp32', 'bf16'), default=['fp32'])
    parser.add_argument('--kinds', action='store_true', help='what the time of ours goes to')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    notes = []
    measured, shares = measure(args, notes)
    cases = [rows_of(case, measured, args.sizes) for case in measured]
    report(args, HEADER, cases, PACKAGES, [*notes, *busy(measured.values())])
    if args.kinds:
        report_kinds(args, {f'{name}, {size}, {PASSES[b]}, {p}': x for (name, size, b, p), x in shares.items()})


if __name__ == '__main__':
    main()

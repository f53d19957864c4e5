"""TransUNet's decoder against the outputs of its release, with the same weights."""

import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import init_default_scope
from support import SUPPORT
from support.backbones import TOLERANCE
from torch import Tensor, nn

from vitdense.models.backbones import HybridViT
from vitdense.models.heads import CascadedUpsamplerHead

RELEASE = json.loads((SUPPORT / 'original_outputs' / 'transunet.json').read_text())
CHANNELS = {'with skips': (64, 256, 512, 768), 'without skips': (768,)}
CLASSES = 9


@pytest.fixture(autouse=True)
def scope() -> None:
    init_default_scope('mmseg')


def build(channels: tuple[int, ...], **kwargs) -> CascadedUpsamplerHead:
    options = dict(in_index=list(range(len(channels))), num_classes=CLASSES, norm_cfg=dict(type='BN'))
    return CascadedUpsamplerHead(in_channels=list(channels), **{**options, **kwargs}).eval()


def noise(shape: tuple[int, ...], seed: int) -> Tensor:
    """Values of variance 1 of the generator that numpy promises never to change."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape)).float()


def fill_(state: dict[str, Tensor]) -> None:
    """Weights by the place of their names in the order of the alphabet."""
    for number, (name, value) in enumerate(sorted(state.items())):
        if name.endswith('num_batches_tracked'):
            continue
        values = noise(value.shape, number)
        if value.ndim == 4:
            value.copy_(values * (2 / value[0].numel()) ** 0.5)
        elif name.endswith('running_var'):
            value.copy_(0.6 + 0.1 * values.abs())
        else:
            value.copy_(0.1 * values + name.endswith('weight'))


def name_in_release(name: str) -> str:
    """What the release calls a parameter of the head."""
    name = re.sub(r'^(?=conv_more|blocks)', 'decoder.', name).replace('conv_seg', 'segmentation_head.0')
    name = re.sub(r'(blocks\.\d)\.(\d)', lambda match: f'{match[1]}.conv{int(match[2]) + 1}', name)
    return name.replace('.conv.', '.0.').replace('.bn.', '.1.')


def maps_of(channels: tuple[int, ...]) -> list[Tensor]:
    """A map of the ViT for an image of 48 x 48, and the larger ones before it."""
    sides = [24, 12, 6, 3][-len(channels) :]
    return [noise((1, c, side, side), c) for c, side in zip(channels, sides, strict=True)]


def samples(logits: Tensor) -> Tensor:
    return logits.flatten()[:: logits.numel() // 48]


@pytest.mark.parametrize('kind', CHANNELS)
def test_logits_equal_those_of_the_release(kind):
    head = build(CHANNELS[kind])
    fill_({name_in_release(name): value for name, value in head.state_dict().items()})
    with torch.no_grad():
        logits = head(maps_of(CHANNELS[kind]))
    expected = torch.tensor(RELEASE[kind])
    assert logits.shape == (1, CLASSES, 48, 48)
    assert logits.std((2, 3)).min() > 0.5
    assert (samples(logits) - expected).abs().max() <= TOLERANCE


@settings(max_examples=15, deadline=None)
@given(height=st.integers(1, 100), width=st.integers(1, 100), skips=st.integers(0, 3))
def test_any_image_size(height, width, skips):
    """Maps of sides that are no multiples of each other are joined, and each of them counts."""
    init_default_scope('mmseg')
    strides = (2, 4, 8, 16)[3 - skips :]
    head = build((3, 5, 7, 11)[3 - skips :], hidden_channels=12, block_channels=(10, 8, 6, 4))
    maps = [
        torch.randn(2, channels, -(-height // stride), -(-width // stride), requires_grad=True)
        for channels, stride in zip(head.in_channels, strides, strict=True)
    ]
    logits = head(maps)
    logits.square().sum().backward()
    finest, scale = maps[0].shape[2:], strides[0] if skips else 16
    assert logits.shape == (2, CLASSES, *(scale * side for side in finest))
    assert all(x.grad.any() for x in maps)


def test_parameters_are_the_published_ones():
    """105.28 M for R50-ViT-B/16, 9 classes and images of 224 x 224."""
    with torch.device('meta'):
        encoder = HybridViT('base', class_token=False, final_norm=True, out_indices=(0, 1, 2, 14))
        head = build(encoder.out_channels)
    count = sum(p.numel() for p in nn.ModuleList([encoder, head]).parameters())
    assert count / 1e6 == pytest.approx(105.28, abs=0.005)


def test_too_many_skips_are_an_error():
    with pytest.raises(ValueError, match='in_channels has 3 skip maps for 2 blocks'):
        build((64, 256, 512, 768), block_channels=(256, 128))

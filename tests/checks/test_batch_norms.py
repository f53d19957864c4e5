"""Batches of one image, and batch norms that cannot take them."""

import pytest
import torch
from torch import nn

pytest.importorskip('mmseg')

from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from vitdense.checks import Run, check
from vitdense.datasets.scan import MapFacts, SplitReport
from vitdense.findings import Finding

BN = dict(type='BN')
SYNC = dict(type='SyncBN')
GN = dict(type='GN', num_groups=2)
PSP = dict(type='PSPHead', pool_scales=(1, 2))
FCN = dict(type='FCNHead', num_convs=1)
HEADS = {
    'PSP': PSP,
    'PSP without 1 x 1': dict(type='PSPHead', pool_scales=(2, 3)),
    'ASPP': dict(type='ASPPHead', dilations=(1, 2)),
    'FCN': FCN,
}


class Backbone(BaseModule):
    """One map of 4 channels, a fourth of the image in size; or a batch norm of the pooled map inside it."""

    def __init__(self, pools: bool = False, stride: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, stride, stride)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4)) if pools else None

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        found = self.conv(image)
        return [found if self.gate is None else found * self.gate(found)]


def segmentor(
    decode_head: dict, auxiliary_head: dict | None = None, norm: dict = BN, side: int = 32, **backbone
) -> nn.Module:
    def head(given: dict) -> dict:
        return dict(in_channels=4, channels=4, num_classes=2, in_index=0, norm_cfg=norm) | given

    model = dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', size=(side, side)),
        backbone=dict(type=Backbone, **backbone),
        decode_head=head(decode_head),
        auxiliary_head=auxiliary_head and head(auxiliary_head),
        test_cfg=dict(mode='whole'),
    )
    with DefaultScope.overwrite_default_scope('mmseg'):
        return MODELS.build(model)


def found(
    model: nn.Module,
    batch: int = 1,
    images: int = 4,
    processes: int = 1,
    wrapper: dict | None = None,
    loop: dict | None = None,
    sampler: str = 'DefaultSampler',
    **loader,
) -> list[Finding]:
    dataset = dict(type='BaseSegDataset', pipeline=[dict(type='LoadAnnotations')])
    key = 'train_dataloader.dataset'
    if wrapper:
        dataset, key = wrapper | dict(dataset=dataset), f'{key}.dataset'
    loader |= dict(batch_size=batch, dataset=dataset, sampler=dict(type=sampler))
    cfg = dict(
        default_scope='mmseg', train_dataloader=loader, train_cfg=loop or dict(type='EpochBasedTrainLoop', max_epochs=1)
    )
    report = SplitReport(key, 'BaseSegDataset', ('background', 'crack'), images, maps=MapFacts(images))
    run = Run(Config(cfg), ('train',), [report], model, processes)
    return [finding for finding in check(run, 'model') if finding.kind == 'batch norm of one value']


def fails(model: nn.Module, side: int) -> bool:
    """Whether a step of training with one image is one that PyTorch refuses."""
    sample = SegDataSample(gt_sem_seg=PixelData(data=torch.zeros(1, side, side, dtype=torch.long)))
    try:
        model.train().loss(torch.randn(1, 3, side, side), [sample])
    except ValueError as error:
        return 'Expected more than 1 value per channel' in str(error)
    return False


@pytest.mark.parametrize('norm', [BN, GN])
@pytest.mark.parametrize('name', HEADS)
def test_what_is_found_is_what_pytorch_refuses(name, norm):
    model = segmentor(HEADS[name], norm=norm)
    assert len(found(model)) == fails(model, 32) == (name in ('PSP', 'ASPP') and norm == BN)


@pytest.mark.parametrize(
    'given',
    [
        dict(decode_head=FCN, auxiliary_head=PSP),
        dict(decode_head=FCN, pools=True),
        dict(decode_head=FCN, stride=32),
    ],
    ids=['auxiliary head', 'backbone', 'small image'],
)
def test_wherever_the_batch_norm_is(given):
    model = segmentor(**given)
    assert fails(model, 32)
    assert len(found(model)) == 1
    larger = segmentor(**given, side=512)
    assert len(found(larger)) == ('stride' not in given), (
        'at the size of the training, not at the one that is tried first'
    )


def test_the_finding():
    [finding] = found(segmentor(PSP))
    assert finding.where == 'train_dataloader.batch_size'
    assert finding.found == (
        '1 image for each process, and model.decode_head.psp_modules.0.1.bn gets one value a channel'
    )
    assert finding.remedy == '--cfg-options train_dataloader.batch_size=2'


def test_the_model_is_as_before():
    model = segmentor(PSP).train()
    model.backbone.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    assert found(model)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
    assert [module.training for module in model.modules()] == modes
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_frozen_and_shared_batch_norms():
    """One that never learns its statistics, and one that counts the images of all processes."""

    class Frozen(Backbone):
        def train(self, mode: bool = True) -> nn.Module:
            super().train(mode)
            self.gate.eval()
            return self

    model = segmentor(FCN, pools=True)
    model.backbone.__class__ = Frozen
    assert found(model) == []
    assert not fails(model, 32)
    shared = segmentor(PSP, norm=SYNC)
    assert len(found(shared, processes=1)) == 1
    assert found(shared, processes=2) == []
    assert len(found(segmentor(PSP), processes=2)) == 1


@pytest.mark.parametrize(
    ('given', 'last'),
    [
        (dict(images=5), True),
        (dict(images=4), False),
        (dict(images=5, drop_last=True), False),
        (dict(images=5, sampler='InfiniteSampler'), False),
        (dict(images=5, processes=2), True),
        (dict(images=8, processes=2), False),
        (dict(images=5, wrapper=dict(type='RepeatDataset', times=2)), False),
        (dict(images=5, wrapper=dict(type='RepeatDataset', times=3)), True),
        (dict(images=5, wrapper=dict(type='Own', times=3)), False),
        (dict(images=5, loop=dict(type='IterBasedTrainLoop', max_iters=2)), False),
        (dict(images=5, loop=dict(type='IterBasedTrainLoop', max_iters=3)), True),
    ],
)
def test_the_last_batch_of_an_epoch(given, last):
    findings = found(segmentor(PSP), batch=2, **given)
    assert [finding.where for finding in findings] == ['train_dataloader.drop_last'] * last
    assert all(finding.remedy == '--cfg-options train_dataloader.drop_last=True' for finding in findings)


def test_parts_of_a_concatenated_set_are_added():
    node = dict(type='BaseSegDataset', pipeline=[dict(type='LoadAnnotations')])
    dataset = dict(type='ConcatDataset', datasets=[node, node])
    loader = dict(batch_size=2, dataset=dataset, sampler=dict(type='DefaultSampler'))
    cfg = Config(dict(default_scope='mmseg', train_dataloader=loader, train_cfg=dict(by_epoch=True, max_epochs=1)))
    reports = [
        SplitReport(
            f'train_dataloader.dataset.datasets.{i}', 'BaseSegDataset', ('a', 'b'), images, maps=MapFacts(images)
        )
        for i, images in enumerate((2, 3))
    ]
    [finding] = check(Run(cfg, ('train',), reports, segmentor(PSP)), 'model')
    assert finding.found.startswith('the last batch of 5 images is one image')


@pytest.mark.parametrize('model', [None, nn.Linear(2, 2)])
def test_models_of_other_kinds_are_not_asked(model):
    assert found(model) == []

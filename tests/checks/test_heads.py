"""Neck and heads against the backbone and the data; the numbers of classes are in tests/config/test_class_counts.py."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from vitdense.checks import Run
from vitdense.checks.heads import channels, class_counts, indices
from vitdense.datasets.scan import SplitReport
from vitdense.models.backbones import PVTv2


def run(**model) -> Run:
    with torch.device('meta'):
        built = nn.ModuleDict(dict(backbone=PVTv2('b0')))
    return Run(Config(dict(model=dict(backbone=dict(type='vitdense.PVTv2'), **model))), model=built)


@pytest.mark.parametrize(
    ('part', 'where', 'found'),
    [
        (dict(neck=dict(type='FPN', in_channels=[256, 512])), 'model.neck.in_channels', '[256, 512]'),
        (dict(decode_head=dict(in_channels=255, in_index=3)), 'model.decode_head.in_channels', '[255]'),
        (dict(decode_head=dict(in_channels=256, in_index=4)), 'model.decode_head.in_channels', 'backbone maps [4]'),
    ],
)
def test_channels_that_the_backbone_does_not_have(part, where, found):
    [case] = channels(run(**part))
    assert case.where == where
    assert found in case.found
    assert 'vitdense.PVTv2' in case.expected


def test_channels_that_it_has():
    assert list(channels(run(neck=dict(type='FPN', in_channels=[32, 64, 160, 256])))) == []


def test_data_sets_of_the_same_classes_are_told_once():
    one = run()
    one.model.bbox_head = nn.Identity()
    one.model.bbox_head.num_classes = 3
    classes = {'train': 'abcd', 'val': 'abcd', 'test': 'ab'}
    one.reports = [SplitReport(f'{split}_dataloader.dataset', 'X', tuple(names)) for split, names in classes.items()]
    first, second = class_counts(one)
    assert (first.where, first.found) == ('heads', 'model.bbox_head.num_classes is 3')
    both = 'train_dataloader.dataset and val_dataloader.dataset'
    assert first.expected == f'the 4 classes of {both} (a, b, c, d)'
    assert first.remedy == '--cfg-options model.bbox_head.num_classes=4'
    assert second.expected == 'the 2 classes of test_dataloader.dataset (a, b)'


def segmentor(in_index: int | list[int], neck: bool = True, auxiliary: tuple = ()) -> Run:
    head = dict(type='FCNHead', in_channels=8, channels=8, num_classes=2, in_index=in_index)
    if isinstance(in_index, list):
        head.update(in_channels=[8] * len(in_index), input_transform='resize_concat')
    cfg = dict(
        type='EncoderDecoder',
        backbone=dict(type='ResNetV1c', depth=18, base_channels=8, stem_channels=8),
        neck=dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=8, num_outs=5) if neck else None,
        decode_head=head,
        auxiliary_head=[dict(head, in_index=one) for one in auxiliary] or None,
    )
    with DefaultScope.overwrite_default_scope('mmseg'), torch.device('meta'):
        built = MODELS.build(copy.deepcopy(cfg))
    return Run(Config(dict(model=cfg)), model=built)


@pytest.mark.parametrize(
    ('given', 'cases'),
    [
        (dict(in_index=5), [('model.decode_head.in_index', '5, and there are 5 maps')]),
        (dict(in_index=[0, 6]), [('model.decode_head.in_index', '[0, 6], and there are 5 maps')]),
        (dict(in_index=4, neck=False), [('model.decode_head.in_index', '4, and there are 4 maps')]),
        (dict(in_index=2, auxiliary=(2, 5)), [('model.auxiliary_head.1.in_index', '5, and there are 5 maps')]),
        (dict(in_index=4), []),
        (dict(in_index=-1), []),
        (dict(in_index=3, neck=False), []),
    ],
)
def test_maps_that_are_not_there(given, cases):
    assert [(case.where, case.found) for case in indices(segmentor(**given))] == cases

"""``type='vitdense.X'`` in configs of other scopes, and wrong names."""

import mmdet.models
import mmdet.registry
import mmengine.registry
import mmseg.registry
import pytest
from mmengine.registry import DefaultScope

from vitdense.models.backbones import PVT
from vitdense.names import nearest, unknown
from vitdense.registry import MODELS, bare_type, nearest_type_names


@pytest.mark.parametrize('registry', [mmengine.registry.MODELS, mmdet.registry.MODELS, mmseg.registry.MODELS, MODELS])
def test_resolves_from_every_scope(registry):
    assert registry.get('vitdense.PVT') is PVT


@pytest.mark.parametrize('registry', [mmengine.registry.MODELS, mmdet.registry.MODELS, mmseg.registry.MODELS])
def test_wrong_name_answers_with_the_nearest(registry):
    with pytest.raises(KeyError, match="unknown vitdense model 'PVT2': did you mean 'PVTv2'"):
        registry.build(dict(type='vitdense.PVT2', arch='b0'))


def test_wrong_name_of_another_scope_answers_with_the_nearest():
    own_scope = DefaultScope.overwrite_default_scope('mmdet')
    with pytest.raises(KeyError, match="'RetinaNett': did you mean 'RetinaNet'"), own_scope, nearest_type_names():
        mmdet.registry.MODELS.build(dict(type='RetinaNett'))


@pytest.mark.parametrize(
    ('registry', 'name', 'said'),
    [
        (mmseg.registry.MODELS, 'RetinaNet', "not known to mmseg, .*did you mean 'mmdet.RetinaNet', or default_scope"),
        (mmdet.registry.MODELS, 'EncoderDecoder', "did you mean 'mmseg.EncoderDecoder', or default_scope='mmseg'"),
        (mmengine.registry.MODELS, 'RetinaNet', "not known to mmengine, .*did you mean 'mmdet.RetinaNet'"),
        (mmdet.registry.MODELS, 'PVTv2', "did you mean 'vitdense.PVTv2'"),
        (mmseg.registry.DATASETS, 'CocoDataset', "did you mean '(mmdet|vitdense).CocoDataset'"),
        (mmdet.registry.TRANSFORMS, 'PackSegInputs', "did you mean 'mmseg.PackSegInputs'"),
        (mmdet.registry.TRANSFORMS, 'DefaultFormatBundle', 'of mmdet 2.x or mmseg 0.x; today PackDetInputs'),
        (mmdet.registry.TRANSFORMS, 'RandomFlipp', "did you mean 'RandomFlip'"),
        (mmseg.registry.MODELS, 'RetinaNett', "did you mean 'mmdet.RetinaNet'"),
    ],
)
def test_a_name_of_another_scope_or_time_says_so(registry, name, said):
    own_scope = DefaultScope.overwrite_default_scope(registry.scope)  # another test may have left its own
    with pytest.raises(KeyError, match=said), own_scope, nearest_type_names():
        registry.build(dict(type=name))


def test_other_key_errors_pass_unchanged():
    with pytest.raises(KeyError, match=r'^.a.$'), nearest_type_names():
        {}['a']


def test_nearest_lists_all_names_once():
    assert nearest('pvt_smal', ['pvt_tiny', 'pvt_small', 'pvt_small'])[0] == 'pvt_small'
    assert sorted(nearest('x', ['b', 'a', 'c'])) == ['a', 'b', 'c']
    assert 'and 3 more' in unknown('thing', 'x', map(str, range(15)))


@pytest.mark.parametrize(
    ('node', 'name'),
    [
        (dict(type='PVT'), 'PVT'),
        (dict(type='vitdense.PVT'), 'PVT'),
        (dict(type='vitdense.models.backbones.pvt.PVT'), 'PVT'),
        (dict(type=PVT), 'PVT'),
        (PVT, 'PVT'),
        ('mmdet.FPN', 'FPN'),
        (dict(depth=50), ''),
        (dict(type=None), ''),
        ({}, ''),
        (None, ''),
    ],
)
def test_type_without_its_scope(node, name):
    assert bare_type(node) == name


def test_of_names_that_are_alike_the_one_with_the_same_beginning_is_nearest():
    assert nearest('score_threshold', ['distance_threshold', 'score_thr', 'iou_thr'])[0] == 'score_thr'
    assert nearest('iou_treshold', ['iou_threshold', 'score_threshold'])[0] == 'iou_threshold'

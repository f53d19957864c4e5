"""Errors of what a config builds, by their place in it."""

import pytest
from mmengine.config import Config
from mmengine.registry import HOOKS, MODELS, OPTIM_WRAPPERS, DefaultScope

from vitdense.config.building import BuildError, building

FPN = dict(type='FPN', in_channels=[8, 16], out_channels=8, num_outs=2)
RPN = dict(type='RPNHead', in_channels=8, anchor_generator=dict(type='AnchorGenerator', ratios=[1], strides=[8]))


def detector(backbone: dict, neck: dict) -> dict:
    return dict(type='RetinaNet', backbone=backbone, neck=neck, bbox_head=RPN)


def build(cfg: dict, key: str = 'model', registry=MODELS) -> object:
    config = Config(cfg)
    node = config.copy()  # mmengine builds copies
    for part in key.split('.'):
        node = node[int(part) if part.isdigit() else part]
    with DefaultScope.overwrite_default_scope('mmdet'), building(config):
        return registry.build(node)


@pytest.mark.parametrize(
    ('neck', 'said'),
    [
        (dict(type='FPN', in_channels=[8]), r"model\.neck \(FPN\): .*missing 2 required positional arguments: 'out_"),
        (dict(FPN, in_chanels=1), r"model\.neck \(FPN\): .*unexpected keyword argument 'in_chanels'"),
        (dict(FPN, in_channels=8), r'model\.neck \(FPN\): '),
        (dict(in_channels=[8]), r'model\.neck: no type, expected one'),
        ({}, r'model\.neck: no type, expected one'),
    ],
)
def test_an_error_says_where_it_comes_from(neck, said):
    backbone = dict(type='vitdense.PVTv2', arch='b0')
    with pytest.raises(BuildError, match=f'^{said}'):
        build(dict(other=dict(FPN, num_outs=7), model=detector(backbone, neck)))


def test_of_two_of_a_kind_the_right_one():
    heads = [dict(RPN, loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True)), dict(RPN, loss_bbox=None)]
    with pytest.raises(BuildError, match=r'^heads\.1 \(RPNHead\): None in the place of a part, expected a dict'):
        build(dict(heads=heads), 'heads.1')


def test_a_part_that_is_no_dict():
    with pytest.raises(BuildError, match=r'^model \(RPNHead\): None in the place of a part'):
        build(dict(model=dict(RPN, loss_bbox=None)))


def test_other_things_than_models():
    hooks = dict(custom_hooks=[dict(type='IterTimerHook'), dict(type='EMAHook', momentumm=1), dict(priority=1)])
    with pytest.raises(BuildError, match=r'^custom_hooks\.2: no type'):
        build(hooks, 'custom_hooks.2', HOOKS)


def test_a_type_that_is_not_registered():
    with pytest.raises(KeyError, match=r"^.model\.neck: unknown type of a model 'FPNN': did you mean 'FPN'"):
        build(dict(model=detector(dict(type='ResNet', depth=18), dict(FPN, type='FPNN'))))
    with pytest.raises(KeyError, match=r"^.optim_wrapper: unknown type .* 'OptimWraper': did you mean 'OptimWrapper'"):
        build(dict(optim_wrapper=dict(type='OptimWraper')), 'optim_wrapper', OPTIM_WRAPPERS)


def test_what_vitdense_says_gets_a_place():
    with pytest.raises(BuildError, match=r"^model\.backbone \(PVTv2\): PVTv2: unknown arch 'b9': did you mean 'b0'"):
        build(dict(model=detector(dict(type='vitdense.PVTv2', arch='b9'), FPN)))


@HOOKS.register_module(force=True)
class HookOfAUser:
    """One with a mistake of its own."""

    def __init__(self) -> None:
        raise ZeroDivisionError


def test_errors_of_users_stay_what_they_are():
    with pytest.raises(ZeroDivisionError):
        build(dict(custom_hooks=[dict(type='mmengine.HookOfAUser')]), 'custom_hooks.0', HOOKS)
    with pytest.raises(RuntimeError, match=r'^a$'), building(Config()):
        raise RuntimeError('a')

"""Mixed precision on CPUs: what it trains, what stays in float32, and what it is told on the command line."""

import argparse
import itertools

import pytest
import torch
from mmengine.optim import OptimWrapper
from support import CONFIGS
from support.families import FAMILIES, train
from support.sweep import but_for_the_sweep
from torch import nn

from vitdense.commands.train import set_options
from vitdense.config.runtime import read_config
from vitdense.engine import AmpOptimWrapper
from vitdense.models.set_prediction import SetCriterion
from vitdense.registry import bare_type

HALVES = ('bfloat16', 'float16')
QUICKSTART = str(CONFIGS / 'quickstart/retinanet_pvtv2-b0_fpn_shapes.py')


def wrapper(**settings) -> dict:
    optimizer = dict(type='AdamW', lr=1e-4, weight_decay=0.05)
    return dict(type='OptimWrapper', optimizer=optimizer, clip_grad=dict(max_norm=1.0), **settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('family', 'half'),
    but_for_the_sweep(itertools.product(FAMILIES, HALVES), [('YOLOS', 'float16'), ('RetinaNet', 'bfloat16')]),
)
def test_twenty_steps_are_those_of_float32(family, half, tmp_path, monkeypatch):
    """By their mean loss, as a step of small images depends on which boxes are chosen.

    The scale is one that these models get along with; PyTorch finds it by leaving out the first steps.
    """
    seen = []

    def forward(criterion, predictions, targets, original=SetCriterion.forward):
        losses = original(criterion, predictions, targets)
        seen.extend([predictions.boxes.dtype, criterion.matcher.costs(predictions, targets).dtype])
        seen.extend(loss.dtype for loss in losses.values())
        return losses

    monkeypatch.setattr(SetCriterion, 'forward', forward)
    half_settings = wrapper(dtype=half, loss_scale=dict(init_scale=256.0)) | dict(type='vitdense.AmpOptimWrapper')
    exact, mixed = (
        [step['loss'] for step in train(family, tmp_path, batch_size=2, steps=20, optim_wrapper=settings).steps]
        for settings in (wrapper(), half_settings)
    )
    assert exact != mixed
    assert sum(mixed) == pytest.approx(sum(exact), rel=0.02)
    assert set(seen) <= {torch.float32}


@pytest.fixture
def on_cpus(monkeypatch):
    monkeypatch.setattr('vitdense.engine.amp.get_device', lambda: 'cpu')


class Products(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.5, 0.25]]))


def step(optim_wrapper: OptimWrapper, model: Products, factor: float) -> torch.dtype:
    """A step of the loss ``factor * weight.sum()``; returns the type of matrix products in it."""
    with optim_wrapper.optim_context(model):
        loss = nn.functional.linear(torch.full((1, 2), factor), model.weight)
    optim_wrapper.update_params(loss.float().sum())
    return loss.dtype


@pytest.mark.parametrize(('dtype', 'expected'), [(None, torch.bfloat16), *((x, getattr(torch, x)) for x in HALVES)])
def test_a_step_is_that_of_the_exact_gradient(dtype, expected, on_cpus):
    model = Products()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    optim_wrapper = AmpOptimWrapper(optimizer, dtype=dtype, loss_scale=dict(init_scale=1024.0))
    assert step(optim_wrapper, model, 0.5) == expected
    assert model.weight.tolist() == [[0.25, 0.0]]
    assert bool(optim_wrapper.state_dict()['loss_scaler']) == (dtype == 'float16')


def test_a_step_that_overflows_float16_is_left_out_and_the_scale_halved(on_cpus):
    model = Products()
    optim_wrapper = AmpOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.5), dtype='float16')
    step(optim_wrapper, model, 2.0)  # a gradient of 2 * 65536
    assert model.weight.tolist() == [[0.5, 0.25]]
    assert optim_wrapper.loss_scaler.get_scale() == 32768
    step(optim_wrapper, model, 0.5)
    assert model.weight.tolist() == [[0.25, 0.0]]


def test_a_fixed_scale_stays(on_cpus):
    model = Products()
    optim_wrapper = AmpOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.5), loss_scale=8, dtype='float16')
    step(optim_wrapper, model, 0.5)
    assert (model.weight.tolist(), optim_wrapper.loss_scaler.get_scale()) == ([[0.25, 0.0]], 8)


@pytest.mark.parametrize('first', [None, *HALVES])
@pytest.mark.parametrize('second', HALVES)
def test_a_state_is_taken_from_any_precision(first, second, on_cpus):
    model = Products()
    made = [torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9) for _ in range(2)]
    before = AmpOptimWrapper(made[0], loss_scale=8, dtype=first) if first else OptimWrapper(made[0])
    step(before, model, 0.5)
    after = AmpOptimWrapper(made[1], dtype=second)
    after.load_state_dict(before.state_dict())
    [state] = after.optimizer.state.values()
    assert state['momentum_buffer'].tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(dtype='float8'), r"optim_wrapper.dtype: expected float16 or bfloat16, found 'float8'"),
        (dict(dtype='float32'), 'optim_wrapper.dtype: expected float16 or bfloat16'),
        (dict(loss_scale='high'), "optim_wrapper.loss_scale: expected a number, 'dynamic' or a dict .* found 'high'"),
    ],
)
def test_settings_that_do_not_exist(settings, message):
    with pytest.raises(ValueError, match=message):
        AmpOptimWrapper(torch.optim.SGD(Products().parameters(), lr=0.5), **settings)


def arguments(**options) -> argparse.Namespace:
    given = dict(config=QUICKSTART, amp=True, auto_scale_lr=False, seed=None, deterministic=False, log=[])
    given['save_every'] = None
    return argparse.Namespace(**given, cfg_options=options)


def test_the_options_of_amp_are_read():
    args = arguments(**{'optim_wrapper.dtype': 'bfloat16', 'optim_wrapper.loss_scale': 512.0})
    cfg = read_config(args)
    set_options(cfg, args)
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.dtype) == ('vitdense.AmpOptimWrapper', 'bfloat16')
    with pytest.raises(ValueError, match=r"unknown key .* 'dtyp'.*'dtype'"):
        read_config(arguments(**{'optim_wrapper.dtyp': 'bfloat16'}))


def test_another_wrapper_is_no_mixed_precision():
    args = arguments(**{'optim_wrapper.type': 'OptimWrapper'})
    with pytest.raises(ValueError, match=r'--amp: optim_wrapper\.type=OptimWrapper of --cfg-options'):
        set_options(read_config(args), args)


def test_the_wrapper_of_a_config_runs_on_cpus_as_well():
    cfg = read_config(argparse.Namespace(config='mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py', cfg_options={}))
    assert bare_type(cfg.optim_wrapper) == 'OptimWrapper'
    config = str(CONFIGS / 'vit_upernet/upernet_mae-b_8xb2-amp-160k_ade20k-512x512.py')
    cfg = read_config(argparse.Namespace(config=config, cfg_options={}))
    assert cfg.optim_wrapper.type == 'vitdense.AmpOptimWrapper'

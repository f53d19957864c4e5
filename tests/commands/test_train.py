"""What the options of ``tools/train.py`` make of a config."""

import argparse
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from support.toy_run import ToyDetector
from torch import nn
from torch.utils.data import DataLoader

from vitdense.checks import Run, check
from vitdense.commands.train import set_options
from vitdense.config.cfg_options import merge_options
from vitdense.engine.hooks.start_report import batch_line
from vitdense.engine.runner import Runner

AUTO = argparse.Namespace(amp=False, auto_scale_lr=True, seed=None, deterministic=False, log=[], save_every=None)


def config(**settings) -> Config:
    return Config(dict(model=dict(type='RetinaNet'), optim_wrapper=dict(optimizer=dict(lr=0.1)), **settings))


@pytest.mark.parametrize('recipe', [{}, dict(auto_scale_lr=None), dict(auto_scale_lr=dict(enable=False))])
def test_scaling_a_learning_rate_that_is_for_no_batch_names_the_key_to_set(recipe):
    cfg = config(**recipe)
    with pytest.raises(ValueError, match=r'--auto-scale-lr: .* --cfg-options auto_scale_lr.base_batch_size=N'):
        set_options(cfg, AUTO)
    merge_options(cfg, {'auto_scale_lr.base_batch_size': 16})
    set_options(cfg, AUTO)
    assert cfg.auto_scale_lr == dict(base_batch_size=16, enable=True)


@pytest.mark.parametrize(('batch', 'steps', 'base'), [(4, 1, 16), (4, 4, 16), (4, 2, 16), (2, 3, 4)])
def test_the_scaled_rate_is_the_one_that_the_warning_names(tmp_path, batch, steps, base):
    """The linear rule: in proportion to the images of a step, whose gradients may be accumulated."""
    wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1), accumulative_counts=steps)
    runner = Runner(
        model=ToyDetector(),
        work_dir=str(tmp_path),
        train_dataloader=dict(batch_size=batch),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=wrapper,
        auto_scale_lr=dict(base_batch_size=base, enable=True),
        experiment_name=f'{batch}_{steps}_{base}',
    )
    runner.optim_wrapper = runner.build_optim_wrapper(wrapper)
    runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
    rate = 0.1 * batch * steps / base
    assert runner.optim_wrapper.get_lr()['lr'] == [pytest.approx(rate)]
    cfg = config(train_dataloader=dict(batch_size=batch), auto_scale_lr=dict(base_batch_size=base))
    cfg.optim_wrapper.accumulative_counts = steps
    remarks = check(Run(cfg), 'config')
    assert [f'lr={rate:.3g} ' in remark.remedy for remark in remarks] == [True] * (batch * steps != base)


def test_the_start_report_scales_by_accumulated_steps_too():
    runner = SimpleNamespace(
        optim_wrapper=OptimWrapper(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1), accumulative_counts=4),
        train_dataloader=DataLoader(range(8), batch_size=2),
        auto_scale_lr=dict(base_batch_size=16, enable=True),
    )
    assert batch_line(runner) == '8 images a step (2 x 4 accumulated), the recipe has 16: learning rate scaled by 0.5'

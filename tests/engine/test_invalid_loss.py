"""Steps whose loss or gradient is not a number, on a toy model."""

import re
from itertools import pairwise

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner as BareRunner
from support import line
from torch import nn

from vitdense.engine.hooks import CheckpointHook, InvalidLossError, InvalidLossHook, ResultsHook
from vitdense.engine.hooks.results import read_rows
from vitdense.engine.runner import Runner

STEPS = 9


class Toy(BaseModel):
    """A line whose loss, or the gradient of it, is spoilt in some iterations, counted from 1."""

    def __init__(self, bad: float = float('nan'), at: tuple[int, ...] = (4,), gradient: bool = False) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1)
        self.line = nn.Linear(1, 1)
        self.bad, self.at, self.gradient, self.calls = bad, at, gradient, 0

    def forward(self, inputs, data_samples=None, mode='tensor'):
        self.calls += 1
        x = torch.stack(inputs).float()
        if self.calls in self.at and not self.gradient:
            x = x * self.bad
        loss = self.line(self.norm(x)).square().mean()
        if self.calls in self.at and self.gradient:
            loss.register_hook(lambda grad: grad * self.bad)
        return dict(loss_cls=self.line.weight.square().mean(), loss_bbox=loss)


def make(runner_type, folder, model, hooks, **overrides):
    torch.manual_seed(0)
    settings = dict(optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01))) | overrides
    return line.make(runner_type, folder, model, hooks, **settings)


def state(runner) -> list[torch.Tensor]:
    """Weights, statistics, moments and counts."""
    optimizer = runner.optim_wrapper.optimizer.state_dict()['state']
    moments = [value for one in optimizer.values() for value in one.values()]
    return [value.clone() for value in (*runner.model.state_dict().values(), *moments)]


class States(Hook):
    """Keeps the state after each iteration."""

    priority = 'LOW'

    def __init__(self) -> None:
        self.kept: list[list[torch.Tensor]] = []

    def after_train_iter(self, runner, *args, **kwargs) -> None:
        self.kept.append(state(runner))


@pytest.mark.parametrize(
    ('bad', 'gradient', 'clip'),
    [
        (float('nan'), False, None),
        (float('inf'), False, dict(max_norm=1.0)),
        (-float('inf'), True, dict(max_norm=1.0)),
        (float('nan'), True, dict(type='value', clip_value=1.0)),
    ],
)
def test_a_bad_step_changes_nothing_and_is_said(bad, gradient, clip, tmp_path, capsys):
    bare = make(BareRunner, tmp_path / 'bare', Toy(bad, gradient=gradient), {})
    bare.train()
    assert not all(one.isfinite().all() for one in state(bare)), 'mmengine alone goes on with what is not finite'

    states = States()
    optimizer = dict(optimizer=dict(type='AdamW', lr=0.01), clip_grad=clip)
    hooks = dict(invalid_loss=InvalidLossHook(), checkpoint=CheckpointHook(interval=1), results=ResultsHook())
    runner = make(
        Runner, tmp_path / 'ours', Toy(bad, gradient=gradient), hooks, custom_hooks=[states], optim_wrapper=optimizer
    )
    runner.train()
    out = capsys.readouterr().out
    assert len(states.kept) == STEPS
    assert all(one.isfinite().all() for kept in states.kept for one in kept)
    equal = [all(map(torch.equal, *two)) for two in pairwise(states.kept)]
    assert equal == [step == 4 for step in range(2, STEPS + 1)]
    (said,) = [line for line in out.splitlines() if line.startswith('warning: step skipped')]
    if gradient:
        assert re.match(r'warning: step skipped: iteration 4: the gradient is not finite\. All terms: ', said)
    else:
        assert said.startswith('warning: step skipped: iteration 4: loss_bbox is ')
        assert 'loss_cls is' not in said
    assert 'Images of the batch: 100 (0.jpg), 101 (1.jpg)' in said
    assert '1 step of 9 was skipped' in out
    rows = read_rows(tmp_path / 'ours/results.csv')
    assert [row['iter'] for row in rows] == [3, 6, 9]
    assert all(0 < row['train/loss_bbox'] < 100 for row in rows)


def test_gradients_that_are_not_finite_are_named(tmp_path, capsys):
    model = Toy(at=())
    model.line.weight.register_hook(lambda grad: grad * float('nan') if model.calls == 2 else grad)
    make(Runner, tmp_path, model, dict(invalid_loss=InvalidLossHook())).train()
    said = '1 of 4 gradients are not finite, the first is that of line.weight. All terms: loss '
    assert f'warning: step skipped: iteration 2: {said}' in capsys.readouterr().out


def test_a_run_ends_after_too_many_in_a_row_before_anything_is_saved(tmp_path):
    def run(folder, at, most, **overrides):
        hooks = dict(invalid_loss=InvalidLossHook(most), checkpoint=CheckpointHook(interval=1))
        make(Runner, tmp_path / folder, Toy(at=at), hooks, **overrides).train()

    run('with breaks', (1, 3, 4, 6, 8, 9), 2)
    with pytest.raises(InvalidLossError, match=r'^iteration 7: loss_bbox is nan.* It is number 3 in a row. Nothing of'):
        run('in a row', (5, 6, 7), 2)
    saved = torch.load(tmp_path / 'in a row/last.pth', weights_only=True)
    assert saved['meta']['epoch'] == 2
    with pytest.raises(InvalidLossError, match=r'^iteration 4: .*\(1.jpg\)\. Nothing of this step is saved'):
        run('none', (4,), 0)
    accumulate = dict(optimizer=dict(type='AdamW', lr=0.01), accumulative_counts=2)
    with pytest.raises(InvalidLossError, match='in a row'):
        run('half of each accumulation', (1, 3, 5, 7, 9), 3, optim_wrapper=accumulate)


def test_the_count_goes_on_with_the_run(tmp_path, capsys):
    hooks = dict(checkpoint=CheckpointHook(interval=1))
    make(Runner, tmp_path, Toy(at=(2, 3)), dict(hooks, invalid_loss=InvalidLossHook())).train()
    more = dict(resume=True, load_from=str(tmp_path / 'last.pth'), train_cfg=dict(by_epoch=True, max_epochs=4))
    make(Runner, tmp_path, Toy(at=(1,)), dict(hooks, invalid_loss=InvalidLossHook()), **more).train()
    assert '3 steps of 12 were skipped' in capsys.readouterr().out


def test_a_row_of_skipped_steps_goes_on_over_a_resume(tmp_path):
    hooks = dict(checkpoint=CheckpointHook(interval=1, by_epoch=False))
    with pytest.raises(InvalidLossError, match='number 2 in a row'):
        make(Runner, tmp_path, Toy(at=(4, 5)), dict(hooks, invalid_loss=InvalidLossHook(1))).train()
    more = dict(resume=True, load_from=str(tmp_path / 'last.pth'))
    with pytest.raises(InvalidLossError, match=r'^iteration 5: .* number 2 in a row'):
        make(Runner, tmp_path, Toy(at=(1,)), dict(hooks, invalid_loss=InvalidLossHook(1)), **more).train()


def in_float16(**settings):
    return dict(type='vitdense.AmpOptimWrapper', dtype='float16', optimizer=dict(type='AdamW', lr=0.01), **settings)


@pytest.mark.parametrize('fused', [False, True])
def test_a_scaler_may_look_for_its_scale(fused, tmp_path, capsys):
    """It begins at 65536 and halves; what its first steps overflow by is no fault of the run."""
    model = Toy(float('inf'), tuple(range(1, 9)), gradient=True)
    wrapper = in_float16(clip_grad=dict(max_norm=1.0))
    wrapper['optimizer']['fused'] = fused
    runner = make(Runner, tmp_path, model, dict(invalid_loss=InvalidLossHook()), optim_wrapper=wrapper)
    runner.train()
    assert runner.iter == STEPS
    assert runner.optim_wrapper.loss_scaler.get_scale() == 2**16 / 2**8
    assert [one['step'] for one in runner.optim_wrapper.optimizer.state_dict()['state'].values()] == [1] * 4
    assert 'skipped' not in capsys.readouterr().out
    norms, counts = runner.message_hub.log_scalars['train/grad_norm'].data
    assert counts.tolist()[-STEPS:] == [0] * 8 + [1]
    assert norms[-1] > 0


@pytest.mark.parametrize('fused', [False, True])
def test_a_fixed_scale_skips_as_float32_does(fused, tmp_path):
    model = Toy(float('inf'), tuple(range(2, STEPS + 1)), gradient=True)
    wrapper = in_float16(loss_scale=8.0)
    wrapper['optimizer']['fused'] = fused
    runner = make(Runner, tmp_path, model, dict(invalid_loss=InvalidLossHook(3)), optim_wrapper=wrapper)
    with pytest.raises(InvalidLossError, match=r'^iteration 5: the gradient is not finite.* number 4 in a row'):
        runner.train()


def test_invalid_weights_are_not_saved(tmp_path):
    model = Toy()

    class Spoil(Hook):
        def after_train_iter(self, runner, *args, **kwargs):
            if runner.iter == 2:
                model.line.bias.data.fill_(float('nan'))

    with pytest.raises(InvalidLossError, match=r'after iteration 3 1 tensors .* line\.bias'):
        make(Runner, tmp_path, model, dict(invalid_loss=InvalidLossHook()), custom_hooks=[Spoil()]).train()
    assert not list(tmp_path.glob('*.pth*'))

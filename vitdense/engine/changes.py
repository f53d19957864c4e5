"""A run that goes on with other settings than it began with, because somebody accepts that."""

import copy
import warnings
from collections.abc import Mapping
from typing import Any

from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import IterBasedTrainLoop, Runner

from vitdense.engine.log_processor import batch_size


class NewSettings:
    """Rates and other settings of the optimizer, and the schedules, as the config has them.

    A checkpoint brings its own along with the moments of the optimizer, and they would stay.
    """

    def __init__(self, runner: Runner) -> None:
        self.groups = [[_settings(group) for group in one.param_groups] for one in wrappers(runner)]
        self.schedules = [copy.deepcopy(one.state_dict()) for one in _schedulers(runner)]

    def apply(self, runner: Runner) -> None:
        """Put them in the place of those of the checkpoint; the schedules go to where the run is."""
        for one, groups in zip(wrappers(runner), self.groups, strict=True):
            for group, settings in zip(one.param_groups, groups, strict=True):
                group.update(settings)
        schedulers = [one for one in _schedulers(runner) if not getattr(one, 'need_val_args', False)]
        for one, state in zip(_schedulers(runner), self.schedules, strict=True):
            if one in schedulers:
                one.load_state_dict(copy.deepcopy(state))
        by_iterations = isinstance(runner.train_loop, IterBasedTrainLoop)
        steps = 0 if by_iterations else len(runner.train_dataloader)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # PyTorch expects a step of the optimizer before one of a schedule
            for iteration in range(runner.iter):
                for one in schedulers:
                    if not one.by_epoch:
                        one.step()
                if steps and (iteration + 1) % steps == 0 and (iteration + 1) // steps <= runner.epoch:
                    for one in schedulers:
                        if one.by_epoch:
                            one.step()


def drop_optimizer(runner: Runner, checkpoint: dict, changes: Mapping[str, list[str]]) -> bool:
    """Remove the state of the optimizer from ``checkpoint`` where it is one of another kind, or of other groups."""
    ours = [[len(group['params']) for group in one.optimizer.param_groups] for one in wrappers(runner)]
    states = checkpoint['optimizer']
    states = [states] if 'param_groups' in states else list(states.values())
    theirs = [[len(group['params']) for group in state['param_groups']] for state in states]
    other = any(line.startswith('optim_wrapper.optimizer.type:') for line in changes.get('optimizer', ()))
    if other or ours != theirs:
        del checkpoint['optimizer']
        return True
    return False


def steps_done(runner: Runner, before: Mapping[str, Mapping[str, Any]]) -> int:
    """Iterations that a run of epochs has done, counted in steps of its present batch, data and processes.

    Args:
        runner: at the epoch and iteration of a checkpoint.
        before: what the run was trained with till then, see :mod:`vitdense.engine.recipe`.
    """
    batch, data = before.get('batch', {}), before.get('data', {})
    size = (batch.get('train_dataloader.batch_size') or 0) * (batch.get('processes') or 0)
    images, steps = data.get('training images'), len(runner.train_dataloader)
    seen = max(0, runner.iter - runner.epoch * -(-images // size)) * size if size and images else 0
    present = batch_size(runner.train_dataloader) * runner.world_size
    return runner.epoch * steps + min(seen // present, steps - 1)


def wrappers(runner: Runner) -> list[OptimWrapper]:
    """The wrappers of all optimizers."""
    wrapper = runner.optim_wrapper
    return list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]


def _schedulers(runner: Runner) -> list[Any]:
    found = runner.param_schedulers or []
    return [one for several in found.values() for one in several] if isinstance(found, dict) else list(found)


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: copy.deepcopy(value) for key, value in group.items() if key != 'params'}

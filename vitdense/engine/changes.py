"""A run that goes on with other settings than it began with, because somebody accepts that."""

import copy
import re
import warnings
from collections.abc import Mapping
from typing import Any

from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import IterBasedTrainLoop, Runner

from vitdense.engine.hooks.resume import VALIDATED
from vitdense.engine.log_processor import batch_size
from vitdense.engine.loops import DATA_PASS

PROGRESS = ('best', 'num_bad_epochs', 'cooldown_counter', 'last_step', '_global_step')
"""What a schedule that looks at metrics has found out so far."""


class NewSettings:
    """Rates and other settings of the optimizer, and the schedules, as the config has them.

    A checkpoint brings its own along with the moments of the optimizer, and they would stay.
    """

    def __init__(self, runner: Runner) -> None:
        self.groups = [[_settings(group) for group in one.param_groups] for one in wrappers(runner).values()]
        self.schedules = [copy.deepcopy(one.state_dict()) for one in _schedulers(runner)]

    def apply(self, runner: Runner) -> None:
        """Put them in the place of those of the checkpoint; the schedules go to where the run is.

        A rate that a schedule has reduced because of the metrics stays reduced by the same factor.
        """
        optimizers = list(wrappers(runner).values())
        before = [[_settings(group) for group in one.param_groups] for one in optimizers]
        for one, groups in zip(optimizers, self.groups, strict=True):
            for group, settings in zip(one.param_groups, groups, strict=True):
                group.update(settings)
        schedulers, by_metrics = [], []
        for one, state in zip(_schedulers(runner), self.schedules, strict=True):
            found, looks = one.state_dict(), getattr(one, 'need_val_args', False)
            one.load_state_dict(copy.deepcopy(state))
            if not looks:
                schedulers.append(one)
            elif found != state and found['monitor'] == state['monitor']:
                one.load_state_dict({key: found[key] for key in PROGRESS})
                by_metrics.append(one)
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
        for name in {one.param_name for one in by_metrics} if before != self.groups else ():
            for one, groups in zip(optimizers, before, strict=True):
                for group, old in zip(one.param_groups, groups, strict=True):
                    _reduce(group, old, name)


def _reduce(group: dict[str, Any], before: Mapping[str, Any], name: str) -> None:
    """Reduce a value of a parameter group by the factor of what it was ``before``, from that of the same schedules."""
    first, first_before = (one.get(f'initial_{name}') for one in (group, before))
    if first and first_before and group[name]:
        group[name] *= min(1.0, before[name] / first_before / (group[name] / first))


def drop_optimizer(runner: Runner, checkpoint: dict, changes: Mapping[str, list[str]]) -> bool:
    """Remove the state of the optimizer from ``checkpoint`` where it is one of another kind, or of other groups."""
    ours = {
        name: [len(group['params']) for group in one.optimizer.param_groups] for name, one in wrappers(runner).items()
    }
    states = checkpoint['optimizer']
    states = {'': states} if 'param_groups' in states else states
    theirs = {
        name: [len(group['params']) for group in state['param_groups']]
        for name, state in states.items()
        if isinstance(state, Mapping) and 'param_groups' in state
    }
    other = any(re.match(r'optim_wrapper\.(\w+\.)?optimizer\.type:', line) for line in changes.get('optimizer', ()))
    if other or ours != theirs:
        del checkpoint['optimizer']
        return True
    return False


def fit_schedules(runner: Runner, checkpoint: dict) -> None:
    """Give ``checkpoint`` a state for each schedule of this run: that of its first one of the same kind, else none."""
    theirs = checkpoint.get('param_schedulers') or []

    def fitted(name: str, schedules: list[Any]) -> list[dict[str, Any]]:
        named = theirs.get(name, []) if isinstance(theirs, dict) else theirs
        left, states = list(named), []
        for state in (one.state_dict() for one in schedules):
            place = next((i for i, other in enumerate(left) if other.keys() == state.keys()), None)
            states.append(state if place is None else left.pop(place))
        return states

    ours = runner.param_schedulers
    checkpoint['param_schedulers'] = (
        {name: fitted(name, one) for name, one in ours.items()} if isinstance(ours, dict) else fitted('', ours or [])
    )


def training_weights(checkpoint: dict) -> None:
    """Put the weights that were trained in the place of their average, where no hook of this run averages them."""
    average, weights = checkpoint.pop('ema_state_dict'), checkpoint['state_dict']
    weights.update({key.removeprefix('module.'): value for key, value in average.items() if key.startswith('module.')})


def recount(runner: Runner, before: Mapping[str, Mapping[str, Any]]) -> None:
    """Count the iterations of a run of epochs in steps of its present batch, data and processes.

    Args:
        runner: at the epoch and iteration of a checkpoint, whose message hub it has.
        before: what the run was trained with till then.
    """
    hub, loop, steps = runner.message_hub, runner.train_loop, len(runner.train_dataloader)
    found, done = loop.iter, steps_done(runner, before)
    if hub.get_info(VALIDATED) == found:
        hub.update_info(VALIDATED, done)
    loop._iter = done
    hub.update_info(DATA_PASS, dict(number=loop.epoch, first_iter=loop.epoch * steps))


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


def wrappers(runner: Runner) -> dict[str, OptimWrapper]:
    """The wrappers of all optimizers, by their names; a single one has none."""
    wrapper = runner.optim_wrapper
    return dict(wrapper.items()) if isinstance(wrapper, OptimWrapperDict) else {'': wrapper}


def _schedulers(runner: Runner) -> list[Any]:
    found = runner.param_schedulers or []
    return [one for several in found.values() for one in several] if isinstance(found, dict) else list(found)


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: copy.deepcopy(value) for key, value in group.items() if key != 'params'}

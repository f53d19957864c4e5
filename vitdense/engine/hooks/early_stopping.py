"""An end of the training before its last step."""

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from mmengine.hooks import EarlyStoppingHook as MMEngineEarlyStoppingHook
from mmengine.runner import Runner

from vitdense.console import say
from vitdense.engine.log_processor import position
from vitdense.evaluation.main_metric import direction, main_metric, number
from vitdense.names import listed
from vitdense.registry import HOOKS

STATE = ('wait_count', 'best_score', 'last_score')

GO_ON = 'This is not the end of the schedule: --resume with a greater patience goes on'


@HOOKS.register_module()
class EarlyStoppingHook(MMEngineEarlyStoppingHook):
    """mmengine's hook, which also says when and why it ends the training, and which knows the main metric.

    Its count and its best score are in checkpoints, so that a resumed run ends where an uninterrupted one does.

    Args:
        monitor: key of a metric; 'auto' takes the main one of the first evaluation, see
            :func:`~vitdense.evaluation.main_metric.main_metric`.
        rule: 'greater' or 'less', needed for metrics whose direction is not known.
        **kwargs: as for ``mmengine.hooks.EarlyStoppingHook``.

    Raises:
        ValueError: the direction of ``monitor`` is not known, and there is no ``rule``.
    """

    min_delta: float

    def __init__(self, monitor: str = 'auto', rule: str | None = None, **kwargs: Any) -> None:
        self.given_rule = rule
        self.last_score: float | None = None
        self._key = f'early_stopping_{monitor}'
        super().__init__(monitor, rule or direction(monitor) or ('greater' if monitor == 'auto' else None), **kwargs)
        self._warned = False

    def before_train(self, runner: Runner) -> None:
        """Go on with the count of a checkpoint, in the message hub of which it is; it may be over already."""
        state = runner.message_hub.get_info(self._key) if runner.iter else None
        if not state:
            return
        if self.monitor == 'auto' and state['monitor'] != 'auto':
            self._watch(state['monitor'])
        self.wait_count, self.best_score, self.last_score = (state[name] for name in STATE)
        if self._is_over():
            runner.train_loop.stop_training = True
            say(f'stopped early before: {self._reason(self.last_score or 0.0)}. {GO_ON}')

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any]) -> None:
        """Look at the metric; the training ends after this validation if it is to."""
        if self.monitor == 'auto' and (key := main_metric(metrics)) is not None:
            self._watch(key)
        score = number(metrics.get(self.monitor))
        if score is None and not self.strict:
            self._warn(runner, metrics)
            return
        stopped = runner.train_loop.stop_training
        super().after_val_epoch(runner, metrics if score is None else {self.monitor: score})
        self.last_score = score
        state = {name: getattr(self, name) for name in STATE}
        runner.message_hub.update_info(self._key, {'monitor': self.monitor, **state})
        if runner.train_loop.stop_training and not stopped:
            say(f'stopped early at {position(runner)}: {self._reason(score or 0.0)}. {GO_ON}')

    def _is_over(self) -> bool:
        if self.last_score is not None and self.check_finite and not math.isfinite(self.last_score):
            return True
        reached = self.stopping_threshold is not None and self.last_score is not None
        if reached and self.rule_map[self.rule](self.last_score, self.stopping_threshold):
            return True
        return self.wait_count >= self.patience

    def _watch(self, key: str) -> None:
        self.monitor = key
        self.rule = self.given_rule or direction(key) or 'greater'
        higher = self.rule == 'greater'
        self.min_delta = abs(self.min_delta) if higher else -abs(self.min_delta)
        self.best_score = -math.inf if higher else math.inf

    def _warn(self, runner: Runner, metrics: Mapping[str, Any]) -> None:
        if not self._warned:
            self._warned = True
            numbers = [key for key, value in metrics.items() if isinstance(value, Real)]
            runner.logger.warning(
                f'EarlyStoppingHook: monitor is {self.monitor!r}, the validation has {listed(numbers, 12) or "nothing"}'
                ': the training goes on to its end'
            )

    def _reason(self, score: float) -> str:
        if not math.isfinite(score):
            return f'{self.monitor} is {score}'
        if self.wait_count >= self.patience:
            rise = 'risen' if self.rule == 'greater' else 'fallen'
            return (
                f'{self.monitor} has not {rise} by {abs(self.min_delta):g} from its best, {self.best_score:.4g}, in '
                f'{self.wait_count} validations'
            )
        return f'{self.monitor} is {score:.4g}, stopping_threshold is {self.stopping_threshold:g}'

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


@HOOKS.register_module()
class EarlyStoppingHook(MMEngineEarlyStoppingHook):
    """mmengine's hook, which also says when and why it ends the training, and which knows the main metric.

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
        super().__init__(monitor, rule or direction(monitor) or ('greater' if monitor == 'auto' else None), **kwargs)
        self._warned = False

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
        if runner.train_loop.stop_training and not stopped:
            say(
                f'stopped early at {position(runner)}: {self._reason(score or 0.0)}. '
                'This is not the end of the schedule: --resume goes on'
            )

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

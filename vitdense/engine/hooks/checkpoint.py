"""Checkpoints under fixed names, the best one by what the run measures."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import master_only
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.runner import Runner

from vitdense.evaluation.main_metric import direction, finite, main_metric, number
from vitdense.files import replacing
from vitdense.names import listed
from vitdense.registry import HOOKS


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """mmengine's hook, which also keeps ``last.pth`` and ``best.pth`` in the work dir.

    They are hard links where the file system has them, and are replaced only after the new file is complete: while
    one checkpoint is being written the one before it is still there. With several ``save_best`` metrics the names are
    ``best_METRIC.pth``. Arguments as for ``mmengine.hooks.CheckpointHook``, with two differences in ``save_best``:

    - 'auto' is the main metric of the first evaluation, see :func:`~vitdense.evaluation.main_metric.main_metric`, not
      its first key. If there is none, no best checkpoint is kept, and one warning says so.
    - A metric that is missing, no number, NaN or infinite is passed over; the next evaluation may have a best one.

    Where an early stop ends the training, the last step is saved as it is at the end of the schedule. A checkpoint that
    a new best one makes mmengine save again is saved when all hooks have seen the metrics, so that a run can go on from
    it without another validation.
    """

    best_ckpt_path: str | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._warned: set[str] = set()
        self._saves_best = False
        self._again: tuple[int, dict] | None = None

    def before_val(self, runner: Runner) -> None:
        self._again = None

    def after_val(self, runner: Runner) -> None:
        if self._again:
            self._save_checkpoint_with_step(runner, *self._again)

    def after_train(self, runner: Runner) -> None:
        step = runner.epoch if self.by_epoch else runner.iter
        stopped = getattr(runner.train_loop, 'stop_training', False)
        if stopped and self.save_last and Path(self.last_ckpt or '').name != self.filename_tmpl.format(step):
            self._save_checkpoint_with_step(runner, step, dict(epoch=runner.epoch, iter=runner.iter))
        super().after_train(runner)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        if self._saves_best:
            self._again = step, meta
            return
        super()._save_checkpoint_with_step(runner, step, meta)
        keep_as(self.last_ckpt, runner.work_dir, 'last.pth')

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if not self.save_best or ('auto' in self.key_indicators and not self._choose(runner, metrics)):
            return
        for key in self.key_indicators:
            if finite(metrics.get(key)) is None:
                self._warn(runner, f'no best checkpoint by {key} of this validation: {_found(metrics, key)}', key)
        before = self._best()
        self._saves_best = True
        try:
            super()._save_best_checkpoint(runner, {key: finite(metrics.get(key)) for key in self.key_indicators})
        finally:
            self._saves_best = False
        for name, path in self._best().items():
            if path != before.get(name):
                keep_as(path, runner.work_dir, name)

    def _choose(self, runner: Runner, metrics: Mapping[str, Any]) -> bool:
        """Whether the metrics tell by which of them ``best.pth`` is chosen from now on."""
        key = main_metric(metrics)
        if key is None:
            self._warn(
                runner,
                'no best.pth: which metric to go by, and whether more of it is better, is not known of '
                f'{listed(list(metrics), 8)}; '
                'default_hooks.checkpoint.save_best=KEY and .rule=greater (or less) say it',
            )
            return False
        self._init_rule(self.rules, [key])
        if not Path(self.best_ckpt_path or '').name.startswith(f'best_{key}_'.replace('/', '_')):
            self.best_ckpt_path = None  # of a run that is gone on with, and that went by another metric
            runner.message_hub.runtime_info.pop('best_score', None)
        return True

    def _init_rule(self, rules: Sequence[str | None], key_indicators: Sequence[str]) -> None:
        """Take the direction of the metrics that we know; mmengine knows some others, and raises for the rest."""
        rules = list(rules) * (len(key_indicators) if len(rules) == 1 else 1)
        known = [rule or direction(key) for rule, key in zip(rules, key_indicators, strict=True)]
        super()._init_rule(known, list(key_indicators))

    def _warn(self, runner: Runner, text: str, about: str = '') -> None:
        if about not in self._warned:
            self._warned.add(about)
            runner.logger.warning(text)

    def _best(self) -> dict[str, str]:
        """Paths of the best checkpoints by their fixed names."""
        if best := getattr(self, 'best_ckpt_path', None):
            return {'best.pth': best}
        several = getattr(self, 'best_ckpt_path_dict', {})
        return {f'best_{key.replace("/", "_")}.pth': path for key, path in several.items() if path}


def _found(metrics: Mapping[str, Any], key: str) -> str:
    if key in metrics:
        return f'it is {metrics[key]!r}'
    numbers = [name for name, value in metrics.items() if number(value) is not None]
    return f'there is no such metric, only {listed(numbers, 12)}'


@master_only
def keep_as(checkpoint: str, folder: str, name: str) -> None:
    """Make ``folder/name`` the same file as ``checkpoint``; remote ones and folders are left alone."""
    if not os.path.isfile(checkpoint):
        return
    with replacing(Path(folder, name)) as part:
        try:
            os.link(checkpoint, part)
        except OSError:
            shutil.copyfile(checkpoint, part)

"""Checkpoints under fixed names: the last one, the one before it, and the best one by what the run measures."""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process, master_only
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.runner import Runner

from vitdense.evaluation.main_metric import direction, finite, main_metric, number
from vitdense.files import replacing, sync, telling_losses
from vitdense.names import listed
from vitdense.registry import HOOKS

LAST, PREVIOUS, NEXT = 'last.pth', 'previous.pth', '.next.pth'

NAMED = re.compile(r'(best|last)_ckpt(_.*)?')
"""Keys under which mmengine keeps the paths of checkpoints."""


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """mmengine's hook, which also keeps ``last.pth``, ``previous.pth`` and ``best.pth`` in the work dir.

    They are hard links where the file system has them, and are replaced only after the new file is complete: while
    one checkpoint is being written the one before it is still there, and outdated ones are removed after that.
    ``previous.pth`` is the ``last.pth`` of an earlier step. With several ``save_best`` metrics the names are
    ``best_METRIC.pth``. Arguments as for ``mmengine.hooks.CheckpointHook``, with two differences in ``save_best``:

    - 'auto' is the main metric of the first evaluation, see :func:`~vitdense.evaluation.main_metric.main_metric`, not
      its first key. If there is none, no best checkpoint is kept, and one warning says so.
    - A metric that is missing, no number, NaN or infinite is passed over; the next evaluation may have a best one.

    Where an early stop ends the training, the last step is saved as it is at the end of the schedule. A checkpoint that
    a new best one makes mmengine save again is saved when all hooks have seen the metrics, so that a run can go on from
    it without another validation. Paths in a checkpoint are names of files in the folder of the run, so that a folder
    can be moved and copied; a resumed checkpoint that names something else names nothing.
    """

    best_ckpt_path: str | None
    keep_ckpt_ids: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._warned: set[str] = set()
        self._saves_best = self._improved = False
        self._again: tuple[int, dict] | None = None
        self.saved: tuple[int, int] | None = None
        """Epochs and iterations of ``last.pth``; ``None`` before this hook has written one."""

    def before_train(self, runner: Runner) -> None:
        known = runner.message_hub.runtime_info
        steps = known.pop('keep_ckpt_ids', [])
        if isinstance(steps, list):
            known['keep_ckpt_ids'] = [step for step in steps if type(step) is int and step >= 0]
        named = {key: known.pop(key) for key in list(known) if NAMED.fullmatch(key)}
        super().before_train(runner)  # it finds out where checkpoints are
        for key, path in named.items():
            best = _own(self.out_dir, path) if key.startswith('best_ckpt') else None
            if best is None:
                continue
            known[key] = best
            metric = key.removeprefix('best_ckpt').removeprefix('_')
            if metric in getattr(self, 'best_ckpt_path_dict', {}):
                self.best_ckpt_path_dict[metric] = best
            elif not metric and hasattr(self, 'best_ckpt_path'):
                self.best_ckpt_path = best
        for key in [key for key in known if key.startswith('best_score') and number(known[key]) is None]:
            del known[key]

    def before_val(self, runner: Runner) -> None:
        self._improved, self._again = False, None

    def after_val(self, runner: Runner) -> None:
        if self._again:
            self._save_checkpoint_with_step(runner, *self._again)
        elif self._improved and self.saved:
            self._save_now(runner, *self.saved)

    def after_train(self, runner: Runner) -> None:
        step = runner.epoch if self.by_epoch else runner.iter
        stopped = getattr(runner.train_loop, 'stop_training', False)
        if stopped and self.save_last and Path(self.last_ckpt or '').name != self.filename_tmpl.format(step):
            self._save_checkpoint_with_step(runner, step, dict(epoch=runner.epoch, iter=runner.iter))
        super().after_train(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Name the files of the folder as they are called in it."""
        known = checkpoint['message_hub']['runtime_info']
        for key in known:
            if NAMED.fullmatch(key) and isinstance(known[key], str):
                known[key] = Path(known[key]).name

    def save_now(self, runner: Runner, epoch: int, iteration: int) -> None:
        """Write ``last.pth`` for a point anywhere in the training, unless it is there.

        Args:
            runner: the runner.
            epoch: complete epochs.
            iteration: complete iterations.

        Raises:
            OSError: it cannot be written.
        """
        if self.saved != (epoch, iteration):
            self._save_now(runner, epoch, iteration)

    def _save_now(self, runner: Runner, epoch: int, iteration: int) -> None:
        runner.save_checkpoint(
            runner.work_dir,
            NEXT,
            save_param_scheduler=runner.param_schedulers is not None,
            meta=dict(epoch=epoch, iter=iteration),
            by_epoch=self.by_epoch,
            **self.args,
        )
        self._become_last(runner, os.path.join(runner.work_dir, NEXT), (epoch, iteration))

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """As mmengine does it, except that what is outdated is removed last, and links are made."""
        if self._saves_best:
            self._again = step, meta
            return
        outdated = []
        if self.max_keep_ckpts > 0 and step not in list(self.keep_ckpt_ids)[-1:]:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated.append(self.keep_ckpt_ids.popleft())
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        self._become_last(runner, self.last_ckpt, (meta['epoch'], meta['iter']))
        if is_main_process():
            for old in outdated:
                path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old))
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)

    def _become_last(self, runner: Runner, checkpoint: str, point: tuple[int, int]) -> None:
        """Make a complete checkpoint ``last.pth``, and what that was of an earlier step ``previous.pth``."""
        if is_main_process():
            last = Path(runner.work_dir, LAST)
            if os.path.isfile(checkpoint):
                if self.saved != point and last.is_file():
                    keep_as(str(last), runner.work_dir, PREVIOUS)
                if os.path.basename(checkpoint) == NEXT:
                    checkpoint = str(Path(checkpoint).replace(last))
                else:
                    keep_as(checkpoint, runner.work_dir, LAST)
            with telling_losses(last):
                sync(last.parent)
                Path(runner.work_dir, 'last_checkpoint').write_bytes(
                    os.fsencode(checkpoint)
                )  # where mmengine's tools look
        self.saved = point

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
        changed = {name: path for name, path in self._best().items() if path != before.get(name)}
        for name, path in changed.items():
            keep_as(path, runner.work_dir, name)
        self._improved = bool(changed)

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


def _own(folder: str, path: Any) -> str | None:
    """The best checkpoint of this name in the folder of the run; ``None`` if it is none, or not there.

    mmengine removes what a checkpoint says to be the best one before, be it a folder.
    """
    name = Path(path).name if isinstance(path, str) else ''
    if not re.fullmatch(r'best_.+\.pth', name):
        return None
    if '://' in folder:
        return f'{folder.rstrip("/")}/{name}'
    own = Path(folder, name)
    return str(own) if own.is_file() and not own.is_symlink() else None


def _found(metrics: Mapping[str, Any], key: str) -> str:
    if key in metrics:
        return f'it is {metrics[key]!r}'
    numbers = [name for name, value in metrics.items() if number(value) is not None]
    return f'there is no such metric, only {listed(numbers, 12)}'


@master_only
def keep_as(checkpoint: str, folder: str, name: str) -> None:
    """Make ``folder/name`` the same file as ``checkpoint``; remote ones and folders are left alone.

    Raises:
        OSError: the file system has no links, and the copy cannot be written.
    """
    if not os.path.isfile(checkpoint):
        return
    path = Path(folder, name)
    with telling_losses(path), replacing(path) as part:
        try:
            os.link(checkpoint, part)
        except OSError:
            with suppress(FileNotFoundError):
                part.unlink()
            shutil.copyfile(checkpoint, part)
            sync(part)

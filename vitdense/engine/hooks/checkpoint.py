"""Checkpoints under fixed names."""

import os
import shutil
from pathlib import Path

from mmengine.dist import master_only
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.runner import Runner

from vitdense.files import replacing
from vitdense.registry import HOOKS


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """mmengine's hook, which also keeps ``last.pth`` and ``best.pth`` in the work dir.

    They are hard links where the file system has them, and are replaced only after the new file is complete: while
    one checkpoint is being written the one before it is still there. With several ``save_best`` metrics the names are
    ``best_METRIC.pth``. Arguments as for ``mmengine.hooks.CheckpointHook``.
    """

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        super()._save_checkpoint_with_step(runner, step, meta)
        keep_as(self.last_ckpt, runner.work_dir, 'last.pth')

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        before = self._best()
        super()._save_best_checkpoint(runner, metrics)
        for name, path in self._best().items():
            if path != before.get(name):
                keep_as(path, runner.work_dir, name)

    def _best(self) -> dict[str, str]:
        """Paths of the best checkpoints by their fixed names."""
        if getattr(self, 'best_ckpt_path', None):
            return {'best.pth': self.best_ckpt_path}
        several = getattr(self, 'best_ckpt_path_dict', {})
        return {f'best_{key.replace("/", "_")}.pth': path for key, path in several.items() if path}


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

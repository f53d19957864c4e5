"""mmengine's runner with a quiet console, checkpoints that are written whole and loaded only where they fit."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.hooks import EMAHook
from mmengine.logging import MMLogger
from mmengine.model import convert_sync_batchnorm, is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import MODEL_WRAPPERS
from mmengine.runner import BaseLoop, IterBasedTrainLoop
from mmengine.runner import Runner as MMEngineRunner
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from mmengine.utils.dl_utils import collect_env
from torch.utils.data import DataLoader

from vitdense.checkpoint.fetch import fetch
from vitdense.checkpoint.read import read
from vitdense.checkpoint.seal import seal
from vitdense.compat.weights import AsItIs
from vitdense.console import quiet_console, say, silent_stderr
from vitdense.datasets.at_hand import AtHand
from vitdense.datasets.draws import place_draws
from vitdense.datasets.named_errors import pipelines
from vitdense.datasets.scan import SplitReport
from vitdense.datasets.sharing import allow_many_files
from vitdense.engine.changes import NewSettings, drop_optimizer, fit_schedules, recount, training_weights
from vitdense.engine.compiling import compile_parts
from vitdense.engine.failures import explaining
from vitdense.engine.generations import check_resumable
from vitdense.engine.global_batch import count_all_images, sync_norms_on_cpus
from vitdense.engine.hooks import ConvertCheckpointHook, ProgressHook, StopHook
from vitdense.engine.log_processor import position
from vitdense.engine.loops import resumable
from vitdense.engine.processes import agree_on_products, wrapper_on_cpus
from vitdense.engine.rank_states import RankState, gather_rank_states
from vitdense.engine.recipe import Recipe, differences, recipe_of, refusal
from vitdense.engine.run_folder import about
from vitdense.engine.seeds import resumed_randomness
from vitdense.engine.workers import shield_workers
from vitdense.files import replacing, telling_losses
from vitdense.models.wrappers import unwrap_model
from vitdense.registry import RUNNERS

TIMEOUT = 600
"""Seconds that a run waits for a batch; mmengine waits for ever."""


@RUNNERS.register_module()
class Runner(MMEngineRunner):
    """Runs a config as ``mmengine.runner.Runner`` does, with the same arguments.

    - The console shows what people ask for; all records go to the log file, the environment to ``environment.txt``.
    - A checkpoint replaces its predecessor when it is complete. It is read without running code from it;
      :class:`ConvertCheckpointHook` brings it to the model.

    Attributes:
        data_reports: what a scan of the data found, for the hook that reports at the start.
        accept_changes: whether it may go on from a checkpoint of other settings.
        changes: which ones are others, see :func:`~vitdense.engine.recipe.differences`.
        resumed_recipe: the settings of the checkpoint that it goes on from.
        resumed_iter: how many iterations that checkpoint has; with another batch they are others here.
        rank_states: what each process has for itself, for the checkpoint that is being saved.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.data_reports: list[SplitReport] = []
        self.accept_changes = False
        self.changes: dict[str, list[str]] = {}
        self.resumed_recipe: Mapping[str, Mapping[str, Any]] = {}
        self.resumed_iter = 0
        self.rank_states: list[RankState] = []
        call = signature(MMEngineRunner).bind(*args, **kwargs)
        given = call.arguments
        if given.get('resume') and given.get('load_from'):
            given['randomness'] = resumed_randomness(given['load_from'], given.get('randomness'))
        super().__init__(*call.args, **call.kwargs)
        agree_on_products()

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        quiet_console(logger)
        return logger

    @staticmethod
    def build_dataloader(dataloader: DataLoader | dict, *args: Any, **kwargs: Any) -> DataLoader:
        """As in mmengine, with three differences.

        An error of a transform names its image, a process that hangs ends the run, and what is drawn for an image
        depends on its place.
        """
        if isinstance(dataloader, dict) and dataloader.get('num_workers'):
            dataloader = {'timeout': TIMEOUT, **dataloader}
            allow_many_files()
        loader = MMEngineRunner.build_dataloader(dataloader, *args, **kwargs)
        at_hand = AtHand(loader.num_workers) if loader.num_workers else None
        for pipeline in pipelines(loader.dataset):
            pipeline.at_hand = at_hand
        if kwargs.get('seed') is not None:
            place_draws(loader, kwargs['seed'])
        shield_workers(loader)
        return loader

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """As in mmengine; its two loops become those that resume exactly."""
        return super().build_train_loop(resumable(loop) if isinstance(loop, dict) else loop)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: torch.nn.Module) -> torch.nn.Module:
        """As in mmengine, on CPUs as well; several processes then learn what one would from all their images."""
        if not self.distributed or is_model_wrapper(model):
            return super().wrap_model(model_wrapper_cfg, model)
        count_all_images(model)
        if get_device() != 'cpu':
            return super().wrap_model(model_wrapper_cfg, model)
        if self.cfg.get('sync_bn'):
            model = convert_sync_batchnorm(model)
        sync_norms_on_cpus(model)
        return MODEL_WRAPPERS.build(wrapper_on_cpus(self.cfg, model_wrapper_cfg), default_args=dict(module=model))

    def _log_env(self, env_cfg: dict) -> None:
        if is_main_process():
            settings = {**env_cfg, **self._randomness_cfg, 'seed': self._seed, 'launcher': self._launcher}
            with silent_stderr():  # of the shell, where the compiler that Python was built with is not installed
                found = collect_env()
            lines = [f'{key}: {value}' for key, value in {**found, **settings}.items()]
            Path(self.work_dir, 'environment.txt').write_text('\n'.join(lines) + '\n', encoding='utf-8')

    def register_default_hooks(self, hooks: dict | None = None) -> None:
        """Register the default hooks, ours for checkpoints too; ``None`` leaves one out, also one of ours."""
        ours = dict(convert_checkpoint='ConvertCheckpointHook', resume='ResumeHook')
        hooks = {**{name: dict(type=f'vitdense.{hook}') for name, hook in ours.items()}, **(hooks or {})}
        known = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')
        super().register_default_hooks({name: hook for name, hook in hooks.items() if hook or name in known})

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict | None = None) -> None:
        """Scale the learning rate with the images of a step, those of accumulated gradients included."""
        steps = getattr(optim_wrapper, '_accumulative_counts', 1)
        if auto_scale_lr and auto_scale_lr.get('base_batch_size') and steps > 1:
            auto_scale_lr = {**auto_scale_lr, 'base_batch_size': auto_scale_lr['base_batch_size'] / steps}
        super().scale_lr(optim_wrapper, auto_scale_lr)

    def _maybe_compile(self, target: str) -> None:
        """Compile the networks of the model, where mmengine compiles the step with its losses and its optimizer."""
        settings = self.cfg.get('compile')
        if not isinstance(settings, dict | bool | None):
            raise ValueError(f'compile: expected arguments of torch.compile, True or False, found {settings!r}')
        if settings is not None and settings is not False:
            try:
                names = compile_parts(unwrap_model(self.model), **({} if settings is True else settings))
            except (TypeError, ValueError, RuntimeError) as error:
                known = ', '.join(torch.compiler.list_backends())
                raise ValueError(f'compile: {str(error).splitlines()[0]} (backends: {known})') from error
            self.logger.info(f'compiled in the first steps, which take long: {", ".join(names) or "nothing"}')

    def train(self) -> torch.nn.Module:
        """Train as mmengine does.

        Raises:
            OutOfMemory, LoadingError, TransformError: with what to do about it.
        """
        try:
            with explaining(self):
                return super().train()
        finally:
            self._close_bar()
            for hook in self.hooks:
                if isinstance(hook, StopHook):
                    hook.release()

    def test(self) -> dict:
        """Evaluate as mmengine does.

        Raises:
            OutOfMemory, LoadingError, TransformError: as in a training.
        """
        try:
            with explaining(self):
                return super().test()
        finally:
            self._close_bar()

    def _close_bar(self) -> None:
        for hook in self.hooks:
            if isinstance(hook, ProgressHook):
                hook.after_run(self)

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable = 'cpu',
        strict: bool = False,
        revise_keys: Sequence[tuple[str, str]] = ((r'^module\.', ''),),
    ) -> dict:
        """Load a checkpoint's weights into the model.

        Raises:
            FileNotFoundError, ValueError: no checkpoint, or not one of this model.
        """
        path = fetch(filename)
        checkpoint = dict(read(path))
        if self._resume:
            check_resumable(path, checkpoint)
        self._load_from = str(path)
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        if self._resume:
            self._compare(path, checkpoint)
            if 'ema_state_dict' in checkpoint and not any(isinstance(hook, EMAHook) for hook in self.hooks):
                training_weights(checkpoint)
        elif isinstance(self._test_loop, BaseLoop):
            self._compare_classes(path, checkpoint.get('meta', {}))
        checkpoint.get('meta', {}).pop('config', None)  # resuming would run it as Python
        converted = any(isinstance(hook, ConvertCheckpointHook) for hook in self.hooks)
        with AsItIs() if converted else nullcontext():
            _load_checkpoint_to_model(unwrap_model(self.model), checkpoint, strict, self.logger, list(revise_keys))
        self._has_loaded = True
        return checkpoint

    def resume(self, *args: Any, **kwargs: Any) -> None:
        """Go on from a checkpoint.

        Raises:
            FileNotFoundError, ValueError: no checkpoint of a run of this model and these settings.
        """
        settings = NewSettings(self)
        super().resume(*args, **kwargs)
        before, loop = self.resumed_recipe, self.train_loop
        self.resumed_iter = loop.iter
        by_iterations = isinstance(loop, IterBasedTrainLoop)
        if not by_iterations and not {'batch', 'data'}.isdisjoint(self.changes):
            recount(self, before)
        if not {'batch', 'optimizer', 'learning rate', 'schedule', 'data'}.isdisjoint(self.changes):
            settings.apply(self)
        if loop.iter >= loop.max_iters if by_iterations else loop.epoch >= loop.max_epochs:
            longer = 'train_cfg.max_iters' if by_iterations else 'train_cfg.max_epochs'
            say(
                f'--resume: the run is complete ({position(self)}), nothing is left to train; a longer one: --resume '
                f'--accept-changes --cfg-options {longer}=N'
            )

    def _compare(self, path: Path, checkpoint: dict) -> None:
        """Look whether a run that goes on is the one that began; what somebody accepts is in ``changes``."""
        meta = checkpoint['meta']
        self.resumed_recipe = meta.get('recipe') or {}
        self.changes = differences(self.resumed_recipe, self.recipe)
        trained, present = (
            _classes(meta.get('dataset_meta')),
            _classes(getattr(self.train_dataloader.dataset, 'metainfo', None)),
        )
        if trained and present and trained != present:
            self.changes['classes'] = [f'{trained} -> {present}']
        if self.changes and not self.accept_changes:
            raise ValueError(refusal(path, self.changes))
        if self.changes:
            self.logger.warning('\n'.join(refusal(path, self.changes).split('\n')[:-1]))
        if self.changes:
            fit_schedules(self, checkpoint)
        if self.changes and drop_optimizer(self, checkpoint, self.changes):
            self.logger.warning(
                '--resume: the optimizer is another one, and begins without the moments of the one before'
            )

    @property
    def recipe(self) -> Recipe:
        """What this run is trained with."""
        dataset = self.train_dataloader.dataset
        return recipe_of(self.cfg, self.world_size, len(dataset) if hasattr(dataset, '__len__') else None)

    def _compare_classes(self, path: Path, meta: dict) -> None:
        trained, present = (
            _classes(meta.get('dataset_meta')),
            _classes(getattr(self.test_dataloader.dataset, 'metainfo', None)),
        )
        if trained and present and trained != present:
            difference = f'{path} was trained with the classes {trained}, the data set has {present}'
            if sorted(trained) == sorted(present):
                raise ValueError(
                    f'{difference}: the same in another order, and a label is a number; '
                    f'test_dataloader.dataset.metainfo=dict(classes={trained})'
                )
            self.logger.warning(difference)

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint; a file of the same name is replaced once the new one is complete.

        Raises:
            OSError: it cannot be written; the one before it is left as it was.
        """
        path = Path(out_dir, filename)
        known = dict(recipe=self.recipe, run=about(Path(self.work_dir)).get('run'))
        kwargs['meta'] = {**(kwargs.get('meta') or {}), **known}
        self.rank_states = gather_rank_states(self) if kwargs.get('save_optimizer', True) else []
        if '://' in out_dir:
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
            return
        with telling_losses(path), replacing(path, durable=True) as part:
            super().save_checkpoint(out_dir, part.name, *args, **kwargs)
            if part.exists():  # else this is not the main process
                seal(part)


def _classes(meta: dict | None) -> tuple[str, ...]:
    return tuple((meta or {}).get('classes') or ())

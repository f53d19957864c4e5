"""Configs of mmdet and mmseg with the hooks, the logging and the data sets of vitdense."""

import argparse

from mmengine.config import Config, ConfigDict

from vitdense.config.cfg_options import merge_options
from vitdense.config.load import config_path, load_config
from vitdense.config.settle import settle
from vitdense.console import silent_imports, warn
from vitdense.registry import bare_type
from vitdense.untrusted.configs import DATA, check_places

COUNTERPARTS = (
    'AmpOptimWrapper',
    'CheckpointHook',
    'CocoDataset',
    'CocoMetric',
    'EarlyStoppingHook',
    'IoUMetric',
    'LogProcessor',
)
"""Classes of mmengine, mmdet and mmseg in whose place vitdense has one with the same arguments."""

LOGS = {
    'tensorboard': dict(type='TensorboardVisBackend'),
    'wandb': dict(type='WandbVisBackend'),
}
"""What ``--log`` takes, by the name of the package that it needs."""


def read_config(args: argparse.Namespace) -> Config:
    """The config of a tool, with the runtime of vitdense, ``--amp`` and ``--cfg-options``.

    Raises:
        FileNotFoundError: no such config.
        ValueError: it cannot be read, or nothing reads one of the options.
    """
    cfg = load_config(args.config)
    if str(cfg.filename).endswith(DATA):
        check_places(cfg.to_dict(), args.config)
    use_runtime(cfg)
    if getattr(args, 'amp', False) and isinstance(cfg.get('optim_wrapper'), dict):
        cfg.optim_wrapper.type = 'vitdense.AmpOptimWrapper'  # before the options, which may be about it
    warnings = merge_options(cfg, args.cfg_options or {})
    with silent_imports():
        warnings += settle(cfg)
    for warning in warnings:
        warn(warning)
    return cfg


def use_runtime(cfg: Config) -> None:
    """Give ``cfg`` what ``_base_/runtime/default.py`` has and it lacks; what it has is kept.

    The classes of ``COUNTERPARTS`` are replaced, and the best checkpoint is kept by the main metric unless ``cfg`` says
    otherwise.
    """
    default = Config.fromfile(config_path('vitdense::_base_/runtime/default.py'))
    cfg.setdefault('runner_type', default.runner_type)
    for key in ('log_processor', 'default_hooks', 'visualizer'):
        if not isinstance(cfg.get(key), dict):
            cfg[key] = ConfigDict()
    cfg.log_processor.setdefault('type', default.log_processor.type)
    if not cfg.visualizer:
        cfg.visualizer = ConfigDict(type='Visualizer', vis_backends=default.vis_backends)
    for name, hook in default.default_hooks.items():
        if hook.type.startswith('vitdense.'):
            cfg.default_hooks.setdefault(name, hook)
    replace_types(cfg._cfg_dict)
    checkpoint = cfg.default_hooks.get('checkpoint')
    if checkpoint and checkpoint.get('type') == 'vitdense.CheckpointHook':
        checkpoint.setdefault('save_best', 'auto')


def replace_types(node: ConfigDict | list) -> None:
    """Replace the ``type`` of every config node that is one of ``COUNTERPARTS``."""
    children = node.values() if isinstance(node, dict) else node
    for child in children:
        if isinstance(child, dict | list | tuple):
            replace_types(child)
    if isinstance(node, dict) and (name := bare_type(node)) in COUNTERPARTS:
        package = getattr(node['type'], '__module__', None) or str(node['type'])
        if package.split('.')[0] in (name, 'mmdet', 'mmseg', 'mmengine'):
            node['type'] = f'vitdense.{name}'


def log_to(cfg: Config, names: list[str]) -> None:
    """Send the scalars of a run to TensorBoard or Weights & Biases as well."""
    for name in names:
        if all(backend.type != LOGS[name]['type'] for backend in cfg.visualizer.vis_backends):
            cfg.visualizer.vis_backends = [*cfg.visualizer.vis_backends, ConfigDict(LOGS[name])]

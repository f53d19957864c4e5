"""What follows from other settings of a config and need not be asked for."""

import inspect
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config, ConfigDict

from vitdense.config.datasets import leaf_datasets
from vitdense.registry import bare_type

PACKAGES = ('mmdet', 'mmseg')
"""Scopes in which a model may be that has none."""

OF_WORKERS = {'persistent_workers': False, 'prefetch_factor': None, 'timeout': 0, 'multiprocessing_context': None}
"""Settings of a loader that PyTorch refuses without workers, and what they are then."""


def settle(cfg: Config) -> list[str]:
    """Set in ``cfg`` what its other settings imply; returns what is worth to be said of it, a line each.

    - ``default_scope``, where it is missing, is the package that has the model.
    - What is set about the workers of a loader that has none is dropped.
    - Where training counts iterations, so do the log and the checkpoints.
    - Sizes in transforms are tuples: JSON and YAML have none, and mmcv takes no lists.
    - ``test_pipeline`` of a segmentor, which ``mmseg.apis.inference_model`` reads, is that of the test.
    """
    _tuples(cfg._cfg_dict)
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if isinstance(loader, dict) and not loader.get('num_workers'):
            loader.update({name: off for name, off in OF_WORKERS.items() if name in loader})
    said = [*_scope(cfg), *_iterations(cfg)]
    tested = next((leaf.get('pipeline') for _, leaf in leaf_datasets(cfg, 'test')), None)
    if tested and cfg.get('default_scope') == 'mmseg':
        cfg.test_pipeline = tested
    return said


def _scope(cfg: Config) -> Iterator[str]:
    model = cfg.get('model')
    if cfg.get('default_scope') or not isinstance(model, dict) or not model.get('type'):
        return
    from vitdense.config.known_keys import resolve  # imports PyTorch, as do the next imports

    kind, name = model['type'], bare_type(model)
    prefix = getattr(kind, '__module__', str(kind)).partition('.')[0]
    if isinstance(resolve(name, 'mmengine'), type):
        return
    found = [package for package in PACKAGES if prefix in (name, package) and resolve(name, package)]
    if len(found) == 1:
        cfg.default_scope = found[0]
        yield f'default_scope is not set: {found[0]}, which has {name}'


def counts_epochs(loop: dict, scope: str | None) -> bool:
    """Whether a training loop counts epochs, or else iterations."""
    name = bare_type(loop)
    if not name:
        return bool(loop.get('by_epoch', 'max_iters' not in loop))
    if name in ('EpochBasedTrainLoop', 'IterBasedTrainLoop'):
        return name == 'EpochBasedTrainLoop'
    from mmengine.runner import IterBasedTrainLoop

    from vitdense.config.known_keys import resolve

    kind = loop['type'] if inspect.isclass(loop['type']) else resolve(loop['type'], scope or 'mmengine')
    return not issubclass(kind, IterBasedTrainLoop) if isinstance(kind, type) else 'max_iters' not in loop


def _tuples(node: Any, in_pipeline: bool = False) -> Any:
    """The node, in whose pipelines lists of two whole numbers are tuples."""
    if isinstance(node, dict):
        for key, child in node.items():
            node[key] = _tuples(child, in_pipeline or str(key).endswith('pipeline'))
    elif isinstance(node, list):
        if in_pipeline and len(node) == 2 and all(type(number) is int for number in node):
            return tuple(node)
        node[:] = [_tuples(child, in_pipeline) for child in node]
    return node


def _iterations(cfg: Config) -> Iterator[str]:
    """Where epochs were counted, mmengine would take the whole training for one."""
    loop, hooks = cfg.get('train_cfg'), cfg.setdefault('default_hooks', ConfigDict())
    if not isinstance(loop, dict) or counts_epochs(loop, cfg.get('default_scope')):
        return
    if isinstance(cfg.get('log_processor'), dict):
        cfg.log_processor.by_epoch = False
    if bare_type(hooks.setdefault('logger', ConfigDict(type='LoggerHook'))) == 'LoggerHook':
        hooks.logger.log_metric_by_epoch = False
    checkpoint = hooks.get('checkpoint')
    if bare_type(checkpoint) != 'CheckpointHook' or not checkpoint.get('by_epoch', True):
        return
    checkpoint.by_epoch = False
    given, validated = checkpoint.get('interval', -1), loop.get('val_interval', 1000)
    if isinstance(given, int) and isinstance(validated, int) and 0 < given < validated:
        checkpoint.interval = validated
        yield (
            f'default_hooks.checkpoint.interval: {given} epochs -> {validated} iterations as train_cfg.val_interval, '
            'because training counts iterations'
        )

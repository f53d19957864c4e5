"""What a run was trained with, as plain data in its checkpoints, and what of it is another now."""

import os
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from vitdense.registry import bare_type
from vitdense.untrusted.text import visible

Recipe = dict[str, dict[str, Any]]
"""Values by their key in the config, grouped by what they are about."""

UNLIKE = {
    'model': ('init_cfg', 'pretrained', 'test_cfg', 'with_cp'),
    'optim_wrapper': ('accumulative_counts',),
    'train_cfg': ('val_begin', 'val_interval', 'dynamic_intervals'),
    'train_dataloader.dataset': ('data_root', 'backend_args', 'file_client_args', 'serialize_data', 'lazy_init'),
}
"""Keys that do not count: a resumed run loads its weights, and data may have moved."""

OF_TRAINING = ('EMAHook', 'MeanTeacherHook', 'PipelineSwitchHook', 'YOLOXModeSwitchHook')
"""Ends of the names of hooks that change weights, their average or the data."""

HINTS = {
    'schedule': 'a longer schedule is another one: its learning rates of the steps so far are not those that were',
    'batch': 'steps and learning rate are those of the batch before',
}


def recipe_of(cfg: Config, processes: int, images: int | None = None) -> Recipe:
    """Describe the training of ``cfg``.

    Args:
        cfg: the whole config.
        processes: number of processes.
        images: number of training images, where it is known.
    """
    loader = cfg.get('train_dataloader') or {}
    wrapper = cfg.get('optim_wrapper') or {}
    optimizer = _flat(wrapper, 'optim_wrapper')
    rates = {key: optimizer.pop(key) for key in list(optimizer) if key.endswith('.lr')}
    if (cfg.get('auto_scale_lr') or {}).get('enable'):
        rates['auto_scale_lr.base_batch_size'] = cfg.auto_scale_lr.get('base_batch_size')
    batch = {
        'train_dataloader.batch_size': loader.get('batch_size')
        or (loader.get('batch_sampler') or {}).get('batch_size'),
        'processes': processes,
        'optim_wrapper.accumulative_counts': wrapper.get('accumulative_counts', 1),
    }
    data = _flat(loader.get('dataset') or {}, 'train_dataloader.dataset')
    data |= _flat({'sampler': loader.get('sampler') or {}}, 'train_dataloader')
    if images is not None:
        data['training images'] = images
    return {
        'architecture': _flat(cfg.get('model') or {}, 'model'),
        'batch': batch,
        'optimizer': optimizer,
        'learning rate': rates,
        'schedule': _flat(cfg.get('train_cfg') or {}, 'train_cfg')
        | _flat({'param_scheduler': cfg.get('param_scheduler') or []}, ''),
        'data': data,
        'hooks': _flat({'hooks': hooks_of_training(cfg)}, ''),
    }


def hooks_of_training(cfg: Config) -> dict[str, Any]:
    """Hooks in ``cfg`` that have a part in what is learned, by their names."""
    hooks = [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or [])]
    found = [hook for hook in hooks if isinstance(hook, dict) and bare_type(hook).endswith(OF_TRAINING)]
    return {bare_type(hook): hook for hook in found}


def differences(before: object, now: Recipe) -> dict[str, list[str]]:
    """What differs, a line each, by what it is about; keys of another number of images are left out if one lacks it."""
    found: dict[str, list[str]] = {}
    if not isinstance(before, Mapping):
        return found
    for subject, values in now.items():
        old = before.get(subject)
        if not isinstance(old, Mapping):
            continue  # written by a version that did not record it
        lines = []
        for key in sorted({*old, *values}):
            one, other = old.get(key, ABSENT), values.get(key, ABSENT)
            if one != other and not (key == 'training images' and ABSENT in (one, other)):
                lines.append(visible(f'{key}: {one} -> {other}').replace('\n', '\\n'))
        if lines:
            found[subject] = lines
    return found


def refusal(name: object, found: Mapping[str, list[str]], most: int = 6) -> str:
    """The message about ``differences`` of the checkpoint ``name``."""
    lines = [f'--resume: {name} was trained with other settings:']
    for subject, differing in found.items():
        lines += [f'  {subject:14} {line}' for line in differing[:most]]
        if len(differing) > most:
            lines.append(f'  {subject:14} and {len(differing) - most} more')
        if subject in HINTS:
            lines.append(f'  {"":14} ({HINTS[subject]})')
    return '\n'.join([*lines, '--accept-changes goes on with the new ones'])


ABSENT = '(absent)'


def _flat(node: Any, key: str) -> dict[str, Any]:
    """Leaves of a config node by their keys, as plain values."""
    unlike = next((names for part, names in UNLIKE.items() if key == part or key.startswith(f'{part}.')), ())
    if isinstance(node, dict):
        children = [(name, child) for name, child in node.items() if name not in unlike]
    elif isinstance(node, list | tuple) and any(isinstance(child, dict | list | tuple) for child in node):
        children = list(enumerate(node))
    else:
        return {key: _plain(node, key)}
    leaves: dict[str, Any] = {}
    for name, child in children:
        leaves |= _flat(child, f'{key}.{name}'.removeprefix('.'))
    return leaves


def _plain(value: Any, key: str) -> Any:
    if key.endswith('.type') or isinstance(value, type) or callable(value):
        return bare_type({'type': value})
    if isinstance(value, list | tuple):
        return [_plain(one, '') for one in value]
    if isinstance(value, str):
        return os.path.basename(value.rstrip('/')) if os.path.isabs(value) else value
    return value if value is None or isinstance(value, bool | int | float) else str(value)

"""A trained model as weights with a description: no code, no Python config, nothing that runs by being read."""

import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from vitdense.config.building import building
from vitdense.config.known_keys import resolve
from vitdense.config.settle import PACKAGES, settle
from vitdense.config.swap.measure import without_weights
from vitdense.files import replacing
from vitdense.predict.model import Model
from vitdense.untrusted.values import UnboundedError, check_values
from vitdense.version import __version__

from . import seal
from .exported import KEY, not_understood
from .half import weights_in_half

SCOPES = (*PACKAGES, 'mmengine', 'mmcv', 'vitdense')
"""Packages whose classes a description may name."""


def to_weights(model: Model, path: Path, half: bool = False) -> None:
    """Write ``path``, a file of safetensors.

    Raises:
        ValueError: the config has something that a JSON text cannot describe.
    """
    facts = dict(
        version=__version__, task=model.task, names=model.names, palette=model.palette, config=described(model.cfg)
    )
    state = weights_in_half(model.network) if half else model.network.state_dict()
    about = {KEY: json.dumps(facts), seal.KEY: seal.OPEN}
    with replacing(path) as part:
        # safetensors takes no two names of one memory
        save_file({name: value.contiguous().clone() for name, value in state.items()}, part, about)
        seal.close(part)


def described(cfg: Config) -> dict[str, Any]:
    """What of a config a model needs for prediction, as a JSON text can have it.

    Raises:
        ValueError: something is neither a number nor a text, list or dict; the message has its key.
    """
    split = next(split for split in ('test', 'val') if cfg.get(f'{split}_dataloader'))
    parts = dict(
        default_scope=cfg.get('default_scope') or 'mmengine',
        model=without_weights(cfg.model),
        test_dataloader={'dataset': cfg[f'{split}_dataloader'].dataset},
    )
    plain: dict[str, Any] = Config(parts).to_dict()
    for key, value in _leaves(plain):
        if value is not None and not isinstance(value, bool | int | float | str):
            raise ValueError(f'{key} is {value!r}, which a file of weights cannot describe: expected numbers and names')
    return plain


def _leaves(node: Any, key: str = '') -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict | list | tuple):
        for name, child in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(child, f'{key}.{name}' if key else str(name))
    else:
        yield key, node


def facts_in(path: str | os.PathLike) -> dict[str, Any] | None:
    """What a file of safetensors says about its model; None of one that is not of ``vitdense export``.

    Raises:
        ValueError: it is no file of safetensors, is damaged, or what it says cannot be read.
    """
    seal.check(path)
    try:
        with safe_open(path, 'pt') as file:
            text = (file.metadata() or {}).get(KEY)
        return None if text is None else json.loads(text)
    except (SafetensorError, ValueError, RecursionError) as error:
        raise ValueError(f'{os.fspath(path)} is no file of safetensors, or is damaged: {error}') from None


def load_weights(path: str | os.PathLike, facts: Mapping[str, Any], device: torch.device) -> Model:
    """A model as a file describes it, with its weights.

    Raises:
        ValueError: the description names what is not registered here, or the weights are of another model.
    """
    try:
        check_values(facts)
        cfg, meta = Config(facts['config']), dict(classes=facts['names'], palette=facts['palette'])
        check_types(cfg.to_dict(), cfg.default_scope, path)
    except (KeyError, TypeError, AttributeError, UnboundedError) as error:
        raise ValueError(not_understood(path, error)) from None
    settle(cfg)
    with building(cfg), DefaultScope.overwrite_default_scope(cfg.default_scope):
        network = MODELS.build(without_weights(cfg.model))
    try:
        network.load_state_dict(load_file(path))
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f'{os.fspath(path)} holds other weights than it describes: {error}') from None
    return Model(cfg, network, meta, device)


def check_types(node: Any, scope: str, path: str | os.PathLike) -> None:
    """Refuse types that are not registered: mmengine would import, and call, whatever a path names.

    Raises:
        ValueError: there is one.
    """
    if isinstance(node, list | tuple):
        for child in node:
            check_types(child, scope, path)
    if not isinstance(node, dict):
        return
    for key in ('type', '_scope_'):
        kind = node.get(key)
        if kind is None:
            continue
        if not (kind in SCOPES if key == '_scope_' else is_harmless(kind, scope)):
            raise ValueError(
                f'{os.fspath(path)} describes a model with {key}={kind!r}, which is not registered here; import the '
                'package that has it first'
            )
    for child in node.values():
        check_types(child, node.get('_scope_') or scope, path)


def is_harmless(kind: Any, scope: str) -> bool:
    """Whether a type is registered, or else a bare word that no module has for its name, as mmdet's own RoIAlign is."""
    prefix, _, name = kind.rpartition('.') if isinstance(kind, str) else ('.', '', '')
    if prefix not in ('', *SCOPES):
        return False
    return resolve(kind, scope) is not None or (not prefix and importlib.util.find_spec(name) is None)

"""One line from a work dir, a config or an exported file to a model that predicts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitdense.files import WEIGHTS, checkpoints_in
from vitdense.names import brief, listed

from .predictor import Predictor

if TYPE_CHECKING:
    import torch
    from mmengine.config import Config
    from torch import nn

BEST = ('best.pth', 'last.pth')
"""Checkpoints of a work dir, the first that is there is taken."""

EXPORTED = ('.onnx', '.pt2', '.safetensors')
"""Suffixes of what ``vitdense export`` writes."""

SUFFIXES = ('.py', '.json', '.yaml', '.yml')
"""Of configs."""


def load(
    source: str | os.PathLike, checkpoint: str | os.PathLike | None = None, device: str | torch.device | None = None
) -> Predictor:
    """Load a trained model.

    Args:
        source: a work dir, whose config and ``best.pth`` (or else ``last.pth``) are taken; a config, as
            ``tools/train.py`` takes it: a file, or ``mmdet::...``; a file of ``vitdense export``: ONNX, for which
            onnxruntime is enough, ``.pt2``, for which PyTorch is, or ``.safetensors``.
        checkpoint: whatever ``load_from`` takes: a file, a URL, ``hf-hub:OWNER/NAME``, or the name of an official
            release. A work dir needs none, nor does a config with ``load_from``.
        device: by default ``cuda`` where there is one, else ``cpu``.

    Raises:
        FileNotFoundError: there is no such source, no checkpoint in the work dir, or none is given with a config.
        ValueError: the config or the device cannot be used, or the checkpoint is of another model.
    """
    config, weights = find_model(os.fspath(source), checkpoint)
    if config.endswith(EXPORTED):
        return load_exported(config, device)
    from vitdense.config.load import load_config

    cfg = load_config(config)
    weights = weights or cfg.get('load_from')
    if not weights:
        raise FileNotFoundError(f'config {config!r} has no load_from: name a checkpoint (a file, a URL or a release)')
    return load_model(cfg, str(weights), device)


def load_exported(path: str, device: str | torch.device | None = None) -> Predictor:
    """A model of a file of ``vitdense export``.

    Raises:
        ImportError: what runs such a file is not installed.
        ValueError: it is none, or is damaged; or the device cannot be used.
    """
    if path.endswith('.onnx'):
        from vitdense.export.runtime import OnnxModel

        return OnnxModel(path, None if device is None else str(device))
    if path.endswith('.pt2'):
        from vitdense.export.program_runtime import ProgramModel

        return ProgramModel(path, usable(device))
    from mmengine.device import get_device

    import vitdense.engine  # noqa: F401  it silences what the packages print
    from vitdense.export.weights import facts_in, load_weights

    facts = facts_in(path)
    if facts is None:
        raise ValueError(f'model {path!r} is a checkpoint: name its work dir or its config, and it as checkpoint')
    return load_weights(path, facts, usable(device or get_device()))


def load_model(cfg: Config, checkpoint: str | None, device: str | torch.device | None = None) -> Predictor:
    """A model of a config that has been read, see :func:`load`; without a checkpoint, its weights are drawn.

    Raises:
        FileNotFoundError, ValueError: see :func:`load`.
        BuildError, KeyError: see :func:`~vitdense.config.building.building`.
    """
    from mmengine.device import get_device
    from mmengine.logging import MMLogger
    from mmengine.registry import MODELS, DefaultScope

    import vitdense.engine  # noqa: F401  it silences what the packages print
    from vitdense.config.building import building
    from vitdense.config.settle import settle
    from vitdense.config.swap.measure import without_weights
    from vitdense.console import quiet_console, silent_imports

    from .model import Model
    from .pipeline import test_steps

    settle(cfg)
    test_steps(cfg)  # a model that cannot predict says so before it is built
    place = usable(device or get_device())
    scope = cfg.get('default_scope') or 'mmengine'
    with building(cfg), DefaultScope.overwrite_default_scope(scope), silent_imports():
        network = MODELS.build(without_weights(cfg.model))
    if checkpoint is None:
        quiet_console(MMLogger.get_current_instance())  # it would list all parameters
        network.init_weights()
    meta = (fill(network, checkpoint) if checkpoint else {}) or data_meta(cfg)
    return Model(cfg, network, meta, place)


def usable(device: str | torch.device | None) -> torch.device:
    """A device on which something can be computed, by default a GPU if there is one.

    Raises:
        ValueError: it is none, or this machine has none such.
    """
    import torch

    try:
        found = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
        torch.empty(1, device=found)
    except Exception as error:  # of any kind, which differs from one kind of device to the other
        there = ', '.join(['cpu', *(f'cuda:{k}' for k in range(torch.cuda.device_count()))])
        raise ValueError(f'device {str(device)!r} cannot be used, there is {there}: {brief(error)}') from None
    return found


def fill(network: nn.Module, checkpoint: str) -> dict[str, Any]:
    """Load weights, which have to fit as in a test, and return what they say of the data set: classes and palette.

    Raises:
        FileNotFoundError, ConnectionError: there is no such checkpoint.
        ValueError: it is of another model.
    """
    from vitdense.checkpoint.check import check_fit
    from vitdense.checkpoint.fetch import fetch
    from vitdense.checkpoint.into_model import adapt
    from vitdense.checkpoint.read import read

    path = fetch(checkpoint)
    content = dict(read(path))
    meta = content.get('meta') or {}
    try:
        converted, changes = adapt(content, network)
    except ValueError as error:
        raise ValueError(f'checkpoint: {path}: {error}') from None
    check_fit(network, converted, path, purpose='checkpoint', changes=changes)
    network.load_state_dict(converted['state_dict'], strict=False)
    known = meta.get('dataset_meta') or {}
    return dict(known) if known.get('classes') else {}


def data_meta(cfg: Config) -> dict[str, Any]:
    """Classes and palette as the data sets of a config have them; empty where they do not say it."""
    from vitdense.config.datasets import leaf_datasets
    from vitdense.config.known_keys import resolve

    for split in ('test', 'val', 'train'):
        for _, leaf in leaf_datasets(cfg, split):
            kind = leaf.type if isinstance(leaf.type, type) else resolve(leaf.type, cfg.get('default_scope'))
            meta = {**getattr(kind, 'METAINFO', {}), **(leaf.get('metainfo') or {})}
            if meta.get('classes'):
                return meta
    return {}


def find_model(source: str, checkpoint: str | os.PathLike | None = None) -> tuple[str, str | None]:
    """The config, or exported file, of a ``source`` of :func:`load`, and its checkpoint; ``None`` of a config.

    Raises:
        FileNotFoundError: a work dir has no config, or no checkpoint where none is given.
        ValueError: it is a checkpoint, or an exported file for which another one is given.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if folder.suffix in EXPORTED:
            if not folder.is_file():
                raise FileNotFoundError(f'there is no exported file {source!r}')
            if checkpoint is not None:
                raise ValueError(f'{source!r} has its weights, it takes no other checkpoint: {str(checkpoint)!r}')
            return str(folder), None
        if folder.suffix in WEIGHTS:
            raise ValueError(f'model {source!r} is a checkpoint: name its work dir or its config, and it as checkpoint')
        if folder.suffix not in SUFFIXES and '::' not in source:
            raise FileNotFoundError(f'there is no work dir or config {source!r}')
        return source, None if checkpoint is None else str(checkpoint)
    there = sorted(folder.iterdir(), key=lambda file: (file.suffix == '.py', file.stat().st_mtime))  # the latest last
    configs = [file for file in there if file.suffix in SUFFIXES and file.is_file()]
    if not configs:
        names = listed([file.name for file in there], 5) or 'nothing'
        raise FileNotFoundError(f'model {source!r} is not the work dir of a run: it has no config, but {names}')
    if checkpoint is not None:
        return str(configs[-1]), str(checkpoint)
    best = next((folder / name for name in BEST if (folder / name).is_file()), None)
    if best is None:
        hint = checkpoints_in(folder, BEST[0])
        raise FileNotFoundError(f'work dir {source!r} has neither {" nor ".join(BEST)}{hint}')
    return str(configs[-1]), str(best)

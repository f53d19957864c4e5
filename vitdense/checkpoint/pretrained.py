"""Loading published weights into a backbone, with a report of what fitted."""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import torch
from filelock import FileLock
from torch import nn

from vitdense.checkpoint.convert import convert
from vitdense.checkpoint.layouts import FAMILIES, RELEASES
from vitdense.checkpoint.resize import resize_tables
from vitdense.console import say
from vitdense.names import nearest
from vitdense.registry import WEIGHT_INITIALIZERS


@WEIGHT_INITIALIZERS.register_module()
class Pretrained:
    """Initialise a backbone from a checkpoint of any layout in ``checkpoint/layouts``.

    Logs one line: the share of the backbone's parameters that was loaded, and what was resized, dropped or left out.

    Args:
        checkpoint: a key of ``RELEASES``, a path, or a URL. Downloads are kept in ``torch.hub.get_dir()/checkpoints``.
        min_loaded: least share of the backbone's parameters that must fit.

    Raises:
        FileNotFoundError: no such file or release.
        ConnectionError: the download failed; the message says which file to fetch and where to put it.
        ValueError: not a checkpoint of this backbone, or less than ``min_loaded`` of it fits.
        TypeError: the module is not a backbone of vitdense.
    """

    def __init__(self, checkpoint: str, min_loaded: float = 0.9) -> None:
        self.checkpoint = checkpoint
        self.min_loaded = min_loaded

    def __call__(self, module: nn.Module) -> None:
        family = getattr(module, 'family', None)
        if family not in FAMILIES:
            raise TypeError(
                f'vitdense.Pretrained initialises the backbones of vitdense, not {type(module).__name__}; '
                "mmengine's initializer for others is type='Pretrained'"
            )
        path = fetch(self.checkpoint)
        try:
            state, dropped = convert(read(path), family)
            state, resized = resize_tables(state, module)
        except ValueError as error:
            raise ValueError(f'{path}: {error}') from error
        own = module.state_dict()
        misfit = [key for key, value in state.items() if key in own and value.shape != own[key].shape]
        fitting = {key: value for key, value in state.items() if key in own and key not in misfit}
        new = [key for key in own if module.is_new(key)]
        if any(key in state for key in new):
            new = []  # a file of this very network, where nothing is
        missing = [key for key in own if key not in fitting and key not in new]
        fillable = sum(value.numel() for key, value in own.items() if key not in new)
        loaded = sum(own[key].numel() for key in fitting) / fillable
        dropped += [key for key in state if key not in own]
        report = [f'loaded {percent(loaded)} of backbone parameters from {path}']
        for verb, keys in (('resized', resized), ('dropped', dropped), ('missing', missing), ('new', new)):
            if keys:
                report.append(f'{verb} {summary(keys)}')
        if loaded < self.min_loaded:
            shapes = ''.join(
                f'\n  {key}: the model has {tuple(own[key].shape)}, the file {tuple(state[key].shape)}'
                for key in misfit[:5]
            )
            raise ValueError(
                f'{path} does not fit {type(module).__name__}: {", ".join(report)}; at least '
                f'{percent(self.min_loaded)} must fit (argument min_loaded of vitdense.Pretrained).{shapes}'
            )
        module.load_state_dict(fitting, strict=False)
        say(', '.join(report))


def fetch(checkpoint: str) -> Path:
    """Local path of a release name, a URL or a path; downloads at most once, also with several processes."""
    url = RELEASES.get(checkpoint, checkpoint)
    if urlparse(url).scheme not in ('http', 'https'):
        path = Path(url.removeprefix('file://')).expanduser()
        if not path.is_file() and len(path.parts) > 1:
            run = f'; the run {path.parent.name!r} writes it and has to come first' if 'work_dirs' in path.parts else ''
            raise FileNotFoundError(f'no checkpoint file {str(path.absolute())!r}{run}')
        if not path.is_file():
            names = ', '.join(nearest(path.stem, RELEASES)[:4])
            raise FileNotFoundError(f'no checkpoint file {str(path)!r}; official releases, nearest first: {names}, ...')
        return path
    path = Path(torch.hub.get_dir()) / 'checkpoints' / os.path.basename(urlparse(url).path)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f'{path}.lock'):
            if not path.is_file():
                _download(url, path)
    return path


def _download(url: str, path: Path) -> None:
    try:
        torch.hub.download_url_to_file(url, str(path))
    except OSError as error:
        raise ConnectionError(
            f'could not download {url} ({error}).\nFetch that file on a machine with internet access and put it at '
            f'{path}, or name its path in init_cfg.checkpoint of the backbone, or train from scratch with '
            '--no-pretrained.'
        ) from error


def read(path: Path) -> Mapping:
    """Read a checkpoint file, also an ``.npz`` of JAX, without running code from it (``weights_only=True``)."""
    try:
        if path.suffix == '.npz':
            with np.load(path, allow_pickle=False) as arrays:
                return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:
        raise ValueError(f'cannot be read as a checkpoint of plain tensors: {error}') from error
    if not isinstance(content, Mapping):
        raise ValueError(f'expected a dict of tensors, found {type(content).__name__}')
    return content


def percent(share: float) -> str:
    """``share`` with one decimal; only all of it is 100 %."""
    rounded = f'{100 * share:.1f}'.removesuffix('.0')
    return ('99.9' if rounded == '100' and share < 1 else rounded) + ' %'


def summary(keys: list[str]) -> str:
    """Keys shortened to their first parts: ``head.*, norm.*, cls_token``."""
    return ', '.join(dict.fromkeys(f'{key.split(".")[0]}.*' if '.' in key else key for key in keys))

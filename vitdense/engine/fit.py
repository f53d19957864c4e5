"""Does a checkpoint fit a model? Asked before its weights are loaded."""

import ast
import copy
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

from vitdense.checkpoint.pretrained import fetch, percent, read, summary
from vitdense.names import nearest


def read_checkpoint(filename: str | Path) -> tuple[Path, Mapping]:
    """Read a checkpoint onto the CPU without running code from it.

    Args:
        filename: a path, or a URL, which is downloaded once (see :func:`vitdense.checkpoint.pretrained.fetch`).

    Returns:
        The local path, and what the file holds.

    Raises:
        FileNotFoundError: no such file; the message lists the checkpoints beside it, nearest first.
        ValueError: a folder; or a file that is empty, truncated, a text, or holds more than tensors and plain values.
        ConnectionError: the download failed.
    """
    path = fetch(str(filename)) if '://' in str(filename) else Path(filename).expanduser()
    if path.is_dir():
        raise ValueError(f'checkpoint {path} is a folder, expected a file{_beside(path, path.name)}')
    if not path.is_file():
        raise FileNotFoundError(f'no checkpoint file {str(path)!r}{_beside(path.parent, path.name)}')
    _check_bytes(path)
    try:
        return path, read(path)
    except ValueError as error:
        raise ValueError(f'checkpoint {path} {error}') from error


def _beside(folder: Path, name: str) -> str:
    there = nearest(name, (p.name for p in folder.glob('*.pt*'))) if folder.is_dir() else []
    return f'; checkpoints in {folder}: {", ".join(there[:5])}' if there else ''


def _check_bytes(path: Path) -> None:
    """What PyTorch's own errors do not say about a file that is no checkpoint."""
    size = path.stat().st_size
    with path.open('rb') as file:
        start = file.read(256)
    if not start:
        raise ValueError(f'checkpoint {path} is empty')
    if start.startswith(b'PK\x03\x04') and not zipfile.is_zipfile(path):
        raise ValueError(f'checkpoint {path} is truncated: {size} bytes are there, its end is missing; copy it again')
    if all(byte >= 32 or byte in b'\t\n\r' for byte in start):
        line = start.decode(errors='replace').splitlines()[0][:60]
        raise ValueError(f'checkpoint {path} is a text file that begins with {line!r}')


def check_fit(
    model: nn.Module, checkpoint: Mapping, path: str | Path, least: float = 0.9, what: str = 'load_from'
) -> str:
    """Find out how much of ``model`` a checkpoint fills, without changing the model.

    Keys are compared after the renaming that ``Runner.load_checkpoint`` and the modules themselves do when they load.

    Args:
        model: the built model; wrappers of distributed training and of test-time augmentation are looked through.
        checkpoint: what the file holds, or its state dict.
        path: where it comes from, for the messages.
        least: least share of the floating-point values in the model's state dict that the file must have.
        what: the setting that names the file, for the messages.

    Returns:
        A line for the log: ``loaded 98.7 % of parameters from PATH, other shape: bbox_head.*``.

    Raises:
        ValueError: less than ``least`` fits. The message has the share, the first keys that are missing, unexpected or
            of other shapes, and the type of the model that the checkpoint says it is from.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    found = checkpoint.get('state_dict', checkpoint)
    state = type(found)((re.sub(r'^module\.', '', str(key)), value) for key, value in found.items())
    if hasattr(found, '_metadata'):  # versions of modules, by which they rename their keys
        state._metadata = found._metadata
    shapes, missing, unexpected = _left_out(model, state)
    own = model.state_dict()
    sizes = {key: value.numel() for key, value in own.items() if value.is_floating_point()}
    total = sum(sizes.values())
    fits = total - sum(sizes.get(key, 0) for key in (*shapes, *missing))
    differences = {'other shape': shapes, 'missing': missing, 'unexpected': unexpected}
    if fits >= least * total:
        parts = [f'{name}: {summary(list(keys))}' for name, keys in differences.items() if keys]
        return ', '.join([f'loaded {percent(fits / total)} of parameters from {path}', *parts])
    lines = [
        f'{what}: {path} has {percent(fits / total)} of the parameters of {type(model).__name__} ({fits} of {total} '
        f'values), at least {percent(least)} must be there.{_origin(checkpoint, type(model).__name__)}'
    ]
    for name, keys in differences.items():
        shown = shapes.values() if keys is shapes else keys
        lines += [f'  {name}: {_first(shown)}'] if keys else []
    raise ValueError('\n'.join(lines))


def _left_out(model: nn.Module, state: Mapping[str, Tensor]) -> tuple[dict[str, str], list[str], list[str]]:
    """Keys of other shapes with a description, missing and unexpected ones; found by loading into an empty copy.

    The copy has no memory. Modules are visited as mmengine does it, because some rename their keys when they load.
    """
    tensors = [*model.parameters(), *model.buffers()]
    empty = copy.deepcopy(model, memo={id(tensor): _without_memory(tensor) for tensor in tensors})
    versions = getattr(state, '_metadata', None) or {}
    shapes, missing, unexpected = {}, [], []

    def load(module: nn.Module, local: dict[str, Tensor], prefix: str = '') -> None:
        module._load_from_state_dict(local, prefix, versions.get(prefix[:-1], {}), True, missing, unexpected, [])
        for name, own in (*module._parameters.items(), *module._buffers.items()):
            found = local.get(prefix + name)
            if own is not None and isinstance(found, Tensor) and found.shape != own.shape:
                key = prefix + name
                shapes[key] = f'{key}: the model has {tuple(own.shape)}, the file {tuple(found.shape)}'
        for name, child in module.named_children():
            below = f'{prefix}{name}.'
            load(child, {key: value for key, value in local.items() if key.startswith(below)}, below)

    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='.*no-op')
        load(empty, dict(state))
    return shapes, missing, unexpected


def _without_memory(tensor: Tensor) -> Tensor:
    empty = tensor.detach().to('meta')
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def _first(keys: Iterable[str], most: int = 5) -> str:
    keys = list(keys)
    more = f' and {len(keys) - most} more' if len(keys) > most else ''
    return ', '.join(keys[:most]) + more


def _origin(checkpoint: Mapping, name: str) -> str:
    """A sentence about the model that a checkpoint of mmengine says it is from."""
    text = (checkpoint.get('meta') or {}).get('cfg') if 'state_dict' in checkpoint else None
    kinds = _model_type(text) if isinstance(text, str) else []
    if not kinds:
        return ' It looks like a checkpoint of another model.'
    return f' It looks like a checkpoint of another model: its config says {" with ".join(kinds)}, this is {name}.'


def _model_type(text: str) -> list[str]:
    """``type`` of the model and of its backbone in the text of a config, which is parsed and not run."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return []
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and getattr(statement.targets[0], 'id', None) == 'model':
            model = _keywords(statement.value)
            nodes = [model, _keywords(model.get('backbone'))]
            kinds = [getattr(node.get('type'), 'value', None) for node in nodes]
            return [kind for kind in kinds if isinstance(kind, str)]
    return []


def _keywords(node: ast.expr | None) -> dict[str, ast.expr]:
    return {keyword.arg: keyword.value for keyword in node.keywords} if isinstance(node, ast.Call) else {}

"""Weights that mmengine loads elsewhere than in our runner: into models, or parts of them, of ours and of others."""

import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from vitdense.checkpoint.check import check_fit, compare
from vitdense.checkpoint.fetch import fetch
from vitdense.checkpoint.into_model import Changes, adapt, adapt_backbone
from vitdense.checkpoint.layouts import family_of
from vitdense.checkpoint.read import read_content
from vitdense.checkpoint.report import listing, report
from vitdense.checkpoint.translate import WRAPPERS, unwrap
from vitdense.models.backbones import Backbone
from vitdense.models.wrappers import unwrap_model

UNNAMED = 'the weights'

_last_path = UNNAMED
"""File that was read and whose weights no module has got yet: mmengine hands them on without their name."""


def read_weights(filename: str) -> Any:
    """What is in a file, as mmengine wants it: weights of whatever wrapper are under ``state_dict``.

    Args:
        filename: whatever :func:`fetch` takes.

    Raises:
        FileNotFoundError, ConnectionError, ValueError: as of :func:`fetch` and of :func:`read`.
    """
    global _last_path
    path = fetch(filename)
    content = read_content(path)
    _last_path = str(path)
    if isinstance(content, Mapping) and 'state_dict' not in content:
        inner = next((content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping)), None)
        if inner is not None:
            return dict({'meta': {}}, **content, state_dict=inner)
    return content


def fitted(module: nn.Module, state: Mapping) -> Mapping[str, Tensor]:
    """The weights ``state`` brought to ``module``.

    Those for a backbone, or for a detector or segmentor with parts, of ours are converted, and have to fit as in
    ``init_cfg`` and in ``load_from``. Of those for any other module, at least one parameter has to fit.

    Raises:
        ValueError: they do not fit; the message says what the weights have and what the module.
    """
    path = _take_path()
    module, metadata = unwrap_model(module), getattr(state, '_metadata', None)
    if not module.state_dict():
        return state
    try:
        found, changes = _brought_to(module, state)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from None
    if changes is None:
        _check_some_fit(module, found, path)
    else:
        purpose = 'init_cfg' if isinstance(module, Backbone) else 'weights'
        line = check_fit(module, found, path, purpose=purpose, changes=changes)
        print_log(line, 'current', logging.WARNING if changes.fresh else logging.INFO)
    result = OrderedDict(found)
    if metadata is not None and not changes:
        result._metadata = metadata  # type: ignore[attr-defined]
    return result


def _take_path() -> str:
    global _last_path
    path, _last_path = _last_path, UNNAMED
    return path


def _brought_to(module: nn.Module, state: Mapping) -> tuple[Mapping[str, Tensor], Changes | None]:
    """Weights by name, and what was done to them if any part of ``module`` is ours."""
    if isinstance(module, Backbone) and family_of(type(module)):
        return adapt_backbone(state, module)
    parts = (getattr(module, name, None) for name in ('backbone', 'neck', 'bbox_head', 'decode_head'))
    if any(family_of(type(part)) for part in parts):
        converted, changes = adapt(state, module)
        return converted['state_dict'], changes
    return unwrap(state), None


def _check_some_fit(module: nn.Module, state: Mapping[str, Tensor], path: str) -> None:
    name, differences = type(module).__name__, compare(module, state)
    sizes = {key: value.numel() for key, value in module.state_dict().items() if value.is_floating_point()}
    lost = [key for key in (*differences.missing, *differences.shapes) if key in sizes]
    if sizes and len(lost) == len(sizes):
        inside = any(key.startswith('backbone.') for key in state) and not hasattr(module, 'backbone')
        hint = "; prefix='backbone.' takes the backbone out of a whole model" if inside else ''
        raise ValueError(f'nothing of {path} fits {name}{hint}{listing(differences.described())}')
    if lost:
        total = sum(sizes.values())
        share = 1 - sum(sizes[key] for key in lost) / total
        line = report(share, f'the parameters of {name}', path, [], {'fresh': lost})
        print_log(line, 'current', logging.WARNING)

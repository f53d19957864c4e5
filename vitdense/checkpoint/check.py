"""Does a checkpoint fit a model? Asked before its weights are loaded."""

import ast
import copy
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Size, Tensor, nn

from vitdense.checkpoint.into_model import Changes
from vitdense.checkpoint.layouts import FAMILIES
from vitdense.checkpoint.report import Differences, listing, percent, report
from vitdense.checkpoint.translate import recognise
from vitdense.models.backbones import Backbone

COUNTERS = re.compile(r'.*\.num_batches_tracked')
"""Buffers that frozen norms do not have, and that change no output."""

AUXILIARY = 'auxiliary_head.'
"""Heads that only training uses."""


def check_fit(
    model: nn.Module,
    checkpoint: Mapping,
    path: str | Path,
    *,
    purpose: str = 'load_from',
    changes: Changes | None = None,
    allow_partial: bool = False,
) -> str:
    """Find out how much of ``model`` a checkpoint fills, without changing the model.

    Keys are compared after the renaming that the modules themselves do when they load. To resume and to test, all
    parameters must be there. For ``load_from`` it is 90 %: parts that the file does not have start afresh, and so do
    layers of heads with another number of rows. In no case may it have more layers, or other parameters in a layer,
    than the model; parts that the model does not have are left out. Auxiliary heads start afresh where they differ, and
    tests do without.

    Args:
        model: the built model; wrappers of distributed training and of test-time augmentation are looked through.
        checkpoint: what the file holds, or its state dict.
        path: where it comes from, for the messages.
        purpose: ``load_from``, ``--resume``, or ``checkpoint`` for a test.
        changes: what was done to the checkpoint.
        allow_partial: for ``load_from``: accept whatever fits.

    Returns:
        A line for the log: ``loaded 98.7 % of parameters from PATH (mmdet), fresh 2 (bbox_head.*)``.

    Raises:
        ValueError: it does not fit. The message has the share, the first keys that are missing, unexpected or of other
            shapes, and the model that the checkpoint seems to be from.
    """
    model, changes, in_test = unwrap_model(model), changes or Changes(), purpose == 'checkpoint'
    state = _state_of(checkpoint)
    found = compare(model, state)
    needed = {key: value for key, value in model.state_dict().items() if not (in_test and key.startswith(AUXILIARY))}
    sizes = {key: value.numel() for key, value in needed.items() if value.is_floating_point()}
    total = sum(sizes.values())
    fits = total - sum(sizes.get(key, 0) for key in (*found.shapes, *found.missing))
    wrong = _undeclared(found, model, state, changes)
    partial = allow_partial and purpose == 'load_from' and fits
    problem = details = ''
    if fits < (least := 0.9 if purpose == 'load_from' else 1.0) * total:
        problem = f' ({fits} of {total} values), at least {percent(least)} must be there.'
        details = listing(found.described()) + listing({'other number of logits': changes.reasons()})
    elif wrong:
        option = '\n--cfg-options default_hooks.convert_checkpoint.allow_partial=True loads what fits'
        problem, details = ', but is not of the same layers.', listing(wrong.described())
        details += option if purpose == 'load_from' else ''
    if problem and not partial:
        name = type(model).__name__
        has = f'{purpose}: {path} has {percent(fits / total)} of the parameters of {name}'
        raise ValueError(f'{has}{problem}{origin(checkpoint, state, name)}{details}')
    remarks = {
        'resized': changes.resized,
        'fresh': [key for key in (*found.missing, *found.shapes) if key not in (*wrong.missing, *wrong.shapes)],
        'left out': changes.dropped + [key for key in found.unexpected if key not in wrong.unexpected],
        **wrong.keys(),
    }
    line = report(fits / total, 'parameters', path, changes.sources, remarks)
    return '; '.join([line, *changes.selections(), *changes.reasons(), *changes.notes])


def _state_of(checkpoint: Mapping) -> Mapping[str, Tensor]:
    """The state dict of a checkpoint, without the prefix of data parallel models."""
    found = checkpoint.get('state_dict', checkpoint)
    state = type(found)((re.sub(r'^module\.', '', str(key)), value) for key, value in found.items())
    if hasattr(found, '_metadata'):  # versions of modules, by which they rename their keys
        state._metadata = found._metadata
    return state


def _undeclared(found: Differences, model: nn.Module, state: Mapping[str, Tensor], changes: Changes) -> Differences:
    """Those of the differences by which a checkpoint is of another model.

    A part of the model with a name of its own may be missing as a whole, and the file may have parts that the model
    does not have. A parameter in a module that is there, or one more of its numbered layers, are neither.
    """
    backbone = getattr(model, 'backbone', None)
    declares = backbone if isinstance(backbone, Backbone) else None
    here, there = _modules(model.state_dict()), _modules(state)

    def may_be_missing(key: str) -> bool:
        if COUNTERS.fullmatch(key) or key.startswith(AUXILIARY) or key.rpartition('.')[0] in changes.fresh:
            return True
        if declares and key.startswith('backbone.'):
            return re.match(declares.fresh, key.removeprefix('backbone.')) is not None
        return _is_of_a_part_without(key, there)

    def may_be_left_out(key: str) -> bool:
        if declares and key.startswith('backbone.'):
            return declares.leaves_out(key.removeprefix('backbone.'))
        return bool(COUNTERS.fullmatch(key)) or key.startswith(AUXILIARY) or _is_of_a_part_without(key, here)

    return Differences(
        [key for key in found.missing if not may_be_missing(key)],
        [key for key in found.unexpected if not may_be_left_out(key)],
        {key: pair for key, pair in found.shapes.items() if not _has_other_rows(key, *pair)},
    )


def _modules(keys: Iterable[str]) -> set[str]:
    """Names of all modules that have one of the parameters ``keys``."""
    return {key[: dot.start()] for key in keys for dot in re.finditer(r'\.', key)}


def _is_of_a_part_without(key: str, modules: set[str]) -> bool:
    """Whether the first module of ``key`` that is not among ``modules`` has a name instead of a number."""
    names = key.split('.')
    absent = (name for i, name in enumerate(names[:-1]) if '.'.join(names[: i + 1]) not in modules)
    return not next(absent, '0').isdigit()


def _has_other_rows(key: str, own: Size, found: Size) -> bool:
    """Whether a parameter of a head differs in its first dimension only: that of classes, or of queries."""
    if key.startswith(AUXILIARY):
        return True
    return not re.match(r'(backbone|neck)\.', key) and own[1:] == found[1:] and len(own) == len(found)


def compare(model: nn.Module, state: Mapping[str, Tensor]) -> Differences:
    """Find what differs by loading ``state`` into an empty copy of ``model``, which has no memory.

    Modules are visited as mmengine does it, because some rename their keys when they load.
    """
    tensors = [*model.parameters(), *model.buffers()]
    empty = copy.deepcopy(model, memo={id(tensor): _without_memory(tensor) for tensor in tensors})
    versions = getattr(state, '_metadata', None) or {}
    found = Differences()

    def load(module: nn.Module, local: dict[str, Tensor], prefix: str = '') -> None:
        metadata = versions.get(prefix[:-1], {})
        module._load_from_state_dict(local, prefix, metadata, True, found.missing, found.unexpected, [])
        for name, own in (*module._parameters.items(), *module._buffers.items()):
            value = local.get(prefix + name)
            if own is not None and isinstance(value, Tensor) and value.shape != own.shape:
                found.shapes[prefix + name] = own.shape, value.shape
        for name, child in module.named_children():
            below = f'{prefix}{name}.'
            load(child, {key: value for key, value in local.items() if key.startswith(below)}, below)

    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='.*no-op')
        load(empty, dict(state))
    return found


def unwrap_model(model: nn.Module) -> nn.Module:
    """The model itself inside the wrappers of distributed training and of test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def _without_memory(tensor: Tensor) -> Tensor:
    empty = tensor.detach().to('meta')
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def origin(checkpoint: Mapping, state: Mapping[str, Tensor], name: str) -> str:
    """A sentence about the model that a checkpoint is from, by what it says or by its keys."""
    known = recognise(state)
    if known and not any(key.startswith('backbone.') for key in state) and not FAMILIES[known[0]].whole:
        return (
            f' It looks like the weights of a backbone ({known[0]}), which go to model.backbone.init_cfg='
            "dict(type='vitdense.Pretrained', checkpoint=...)."
        )
    text = (checkpoint.get('meta') or {}).get('cfg') if 'state_dict' in checkpoint else None
    kinds = _model_type(text) if isinstance(text, str) else []
    if kinds:
        return f' It looks like a checkpoint of another model: its config says {" with ".join(kinds)}, this is {name}.'
    return f' It looks like a checkpoint of {known[0] if known else "another model"}.'


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

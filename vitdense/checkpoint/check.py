"""Does a checkpoint fit a model? Asked before its weights are loaded."""

import ast
import copy
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Size, Tensor, nn

from vitdense.checkpoint.into_model import Changes
from vitdense.checkpoint.layouts import FAMILIES, family_of
from vitdense.checkpoint.layouts.family import PROFILED
from vitdense.checkpoint.report import Differences, listing, percent, report
from vitdense.checkpoint.translate import recognise
from vitdense.models.backbones import Backbone
from vitdense.models.wrappers import unwrap_model

COUNTERS = re.compile(rf'.*\.num_batches_tracked|.*{PROFILED.pattern}')
"""Buffers that change no output: frozen norms do not have the first, and profilers leave the others behind."""

AUXILIARY = 'auxiliary_head.'
"""Heads that only training uses."""

LEAST = {'init_cfg': 0.0, 'load_from': 0.9, 'weights': 0.9, '--resume': 1.0, 'checkpoint': 1.0}
"""Share of the parameters that must be there, by purpose."""

PARTIAL = {
    'init_cfg': 'allow_partial=True of vitdense.Pretrained loads what fits',
    'load_from': '--cfg-options default_hooks.convert_checkpoint.allow_partial=True loads what fits',
}


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
    parameters must be there; for ``load_from`` and ``weights`` it is 90 %. In no case may anything be missing or too
    much that :func:`undeclared` does not allow. A test does without auxiliary heads.

    Args:
        model: the built model; wrappers of distributed training and of test-time augmentation are looked through.
        checkpoint: what the file holds, or its state dict.
        path: where it comes from, for the messages.
        purpose: ``init_cfg`` of a backbone, ``load_from``, ``--resume``, ``checkpoint`` for a test, or ``weights`` for
            a model of which one does not know what it is for.
        changes: what was done to the checkpoint.
        allow_partial: for ``init_cfg`` and ``load_from``: accept whatever fits.

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
    wrong = undeclared(found, model, state, changes)
    least = LEAST[purpose]
    problem = details = ''
    if fits < least * total:
        problem = f' ({fits} of {total} values), at least {percent(least)} must be there.'
        details = listing(found.described()) + listing({'other number of logits': changes.reasons()})
    elif wrong:
        problem, details = ', but is not of the same layers.', listing(wrong.described())
        details += f'\n{PARTIAL[purpose]}' if purpose in PARTIAL else ''
    what = 'backbone parameters' if purpose == 'init_cfg' else 'parameters'
    if problem and not (allow_partial and purpose in PARTIAL and fits):
        name = type(model).__name__
        source = f' ({", ".join(changes.sources)})' if changes.sources else ''
        has = f'{purpose}: {path}{source} has {percent(fits / total)} of the {what} of {name}'
        seems = '' if purpose == 'init_cfg' else origin(checkpoint, state, name)
        raise ValueError(f'{has}{problem}{seems}{details}')
    remarks = {
        'resized': changes.resized,
        'fresh': [key for key in (*found.missing, *found.shapes) if key not in (*wrong.missing, *wrong.shapes)],
        'left out': changes.dropped + [key for key in found.unexpected if key not in wrong.unexpected],
        **wrong.keys(),
    }
    line = report(fits / total, what, path, changes.sources, remarks)
    selected = ['the 80 classes were taken from the 91 ids of COCO'] if changes.selected else []
    return '; '.join([line, *selected, *changes.reasons(), *changes.notes])


def undeclared(found: Differences, model: nn.Module, state: Iterable[str], changes: Changes) -> Differences:
    """Those of the differences by which a checkpoint is of another model: THE rule of what one may lack, or have more.

    - Counters of batch norms and of profilers do not count.
    - Of a backbone of ours, alone or in a model, all that its family declares ``fresh`` may be missing, or none
      of it; what its arguments leave out may be too much (:meth:`Backbone.leaves_out`).
    - Elsewhere a part with a name of its own may be missing as a whole, and the file may have parts that the model does
      not have. A parameter in a module that is there, or one more of its numbered layers, are neither.
    - Heads may have other rows: of classes, or of queries. Auxiliary heads may differ in all.
    """
    alone = isinstance(model, Backbone)
    backbone = model if alone else getattr(model, 'backbone', None)
    family = FAMILIES.get(family_of(type(backbone)))
    prefix = '' if alone else 'backbone.'
    fresh = [
        group for group in (family.fresh if family else ()) if not any(re.match(prefix + group, key) for key in state)
    ]
    here, there = _modules(model.state_dict()), _modules(state)

    def may_be_missing(key: str) -> bool:
        if COUNTERS.fullmatch(key) or key.startswith(AUXILIARY) or key.rpartition('.')[0] in changes.fresh:
            return True
        if family and key.startswith(prefix):
            return re.match('|'.join(fresh) or '(?!)', key.removeprefix(prefix)) is not None
        return _is_of_a_part_without(key, there)

    def may_be_left_out(key: str) -> bool:
        if COUNTERS.fullmatch(key) or key.startswith(AUXILIARY):
            return True
        if isinstance(backbone, Backbone) and key.startswith(prefix):
            return backbone.leaves_out(key.removeprefix(prefix))
        return _is_of_a_part_without(key, here)

    def may_differ(key: str, own: Size, found: Size) -> bool:
        if key.startswith(AUXILIARY):
            return True
        is_of_a_head = not alone and not key.startswith(('backbone.', 'neck.'))
        return is_of_a_head and own[1:] == found[1:] and len(own) == len(found)

    return Differences(
        [key for key in found.missing if not may_be_missing(key)],
        [key for key in found.unexpected if not may_be_left_out(key)],
        {key: pair for key, pair in found.shapes.items() if not may_differ(key, *pair)},
    )


def _state_of(checkpoint: Mapping) -> Mapping[str, Tensor]:
    """The state dict of a checkpoint, without the prefix of data parallel models."""
    found = checkpoint.get('state_dict', checkpoint)
    state = type(found)((re.sub(r'^module\.', '', str(key)), value) for key, value in found.items())
    if hasattr(found, '_metadata'):  # versions of modules, by which they rename their keys
        state._metadata = found._metadata
    return state


def _modules(keys: Iterable[str]) -> set[str]:
    """Names of all modules that have one of the parameters ``keys``."""
    return {key[: dot.start()] for key in keys for dot in re.finditer(r'\.', key)}


def _is_of_a_part_without(key: str, modules: set[str]) -> bool:
    """Whether the first module of ``key`` that is not among ``modules`` has a name instead of a number."""
    names = key.split('.')
    absent = (name for i, name in enumerate(names[:-1]) if '.'.join(names[: i + 1]) not in modules)
    return not next(absent, '0').isdigit()


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


def _without_memory(tensor: Tensor) -> Tensor:
    empty = tensor.detach().to('meta')
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def origin(checkpoint: Mapping, state: Mapping[str, Tensor], name: str) -> str:
    """A sentence about the model that a checkpoint is from, by what it says or by its keys."""
    known = recognise(dict(state))
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
    keywords = node.keywords if isinstance(node, ast.Call) else []
    return {keyword.arg: keyword.value for keyword in keywords if keyword.arg}

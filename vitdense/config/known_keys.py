"""Who reads a key of a config: classes, mmengine itself, or the sources of a package."""

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import mmengine.registry
import torch
from mmengine.config import Config
from mmengine.dist import init_dist
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.registry import Registry
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, LogProcessor, Runner, TestLoop, ValLoop
from mmengine.utils import get_object_from_string
from mmengine.utils.dl_utils import set_multi_processing
from torch.utils.data import DataLoader

STACK = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'vitdense')

BUILD_KEYS = {'type', '_scope_', 'priority', 'override', 'layer', 'requires_grad', 'convert_to_iter_based'}
"""Keys that builders of mmengine and mmcv take off before they call the class; elsewhere the class refuses them."""


@dataclass(frozen=True)
class Place:
    """A node of a config that mmengine knows by its place.

    Attributes:
        targets: what is called with its keys where it has no ``type``.
        names: further keys that are read there.
    """

    targets: tuple[Callable, ...] = ()
    names: tuple[str, ...] = ()


_LOADER = Place(
    (DataLoader,),
    (
        'dataset', 'sampler', 'batch_sampler', 'num_batch_per_epoch', 'worker_init_fn', 'collate_fn',
        'disable_subprocess_warning',
    ),
)  # fmt: skip
PLACES = {
    '': Place(
        (Runner,),
        (
            'runner_type', 'model_wrapper_cfg', 'sync_bn', 'find_unused_parameters', 'activation_checkpointing',
            'efficient_conv_bn_eval', 'compile', 'tta_model', 'tta_pipeline',
        ),
    ),
    **{f'{split}_dataloader': _LOADER for split in ('train', 'val', 'test')},
    'train_cfg': Place((EpochBasedTrainLoop, IterBasedTrainLoop), ('by_epoch',)),
    'val_cfg': Place((ValLoop,)),
    'test_cfg': Place((TestLoop,)),
    'optim_wrapper': Place((OptimWrapper,), ('constructor', 'paramwise_cfg')),
    'optim_wrapper.clip_grad': Place((torch.nn.utils.clip_grad_norm_, torch.nn.utils.clip_grad_value_)),
    'log_processor': Place((LogProcessor,)),
    'model_wrapper_cfg': Place((MMDistributedDataParallel,)),
    'compile': Place((torch.compile,)),
    'auto_scale_lr': Place((), ('base_batch_size', 'enable')),
    'randomness': Place((Runner.set_randomness,)),
    'env_cfg': Place((), ('cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit')),
    'env_cfg.mp_cfg': Place((set_multi_processing,)),
    'env_cfg.dist_cfg': Place((init_dist, torch.distributed.init_process_group)),
}  # fmt: skip

HOOKS = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')
"""Names of mmengine's default hooks, which None switches off."""


class Readers:
    """Answers whether something reads a key, for one config and the options that are to be merged into it."""

    def __init__(self, cfg: Config, options: dict) -> None:
        self.cfg, self.options = cfg, options
        self.scope = options.get('default_scope', cfg.get('default_scope') or 'mmengine')
        imports = (cfg.get('custom_imports') or {}).get('imports') or []
        named = [imports] if isinstance(imports, str) else imports
        types = [kind for kind in [*_types(cfg.to_dict()), *options.values()] if isinstance(kind, str) and '.' in kind]
        owners = {name.split('.')[0] for name in [self.scope, *named, *types]}
        self.packages = frozenset(STACK) | {owner for owner in owners if owner.isidentifier()}

    def type_name(self, place: str, node: dict) -> str:
        """The type at a place in brackets, for messages."""
        kind = self._type(place, node)
        return f' ({kind})' if kind else ''

    def _type(self, place: str, node: dict) -> str | None:
        return self.options.get(f'{place}.type', node.get('type'))

    def at_top(self, name: str) -> bool:
        """Is a top-level key read after the config file has been?"""
        return self.refusal('', {}, name) is None

    def refusal(self, place: str, node: dict, part: str) -> set[str] | None:
        """None if the new key ``part`` of ``node`` at ``place`` is read, else the valid keys."""
        name = place.rpartition('.')[2]
        if name.endswith('kwargs') or name == 'custom_keys':
            return None
        if place == 'default_hooks':
            return self._refused_hook(node, part)
        if '.paramwise_cfg' in place:
            return self._refused_unless(part, self._paramwise_keys(place))
        known = PLACES.get(place, Place())
        found = resolve(self._type(place, node), self.scope)
        targets = (found,) if found else known.targets
        if not targets and not known.names:
            return self._refused_in_free_dict(node, part)
        names = set(known.names).union(*(arguments(target) for target in targets))
        if part in BUILD_KEYS and place:
            return None
        if place and any(hands_on(target) for target in targets) and part not in names:
            packages = self.packages.union(*(imported_by(target) for target in targets))
            return None if is_word(part, packages) else names
        if not place:
            names.discard('cfg')
            if is_read_from_runner(part, self.packages):
                return None
        return self._refused_unless(part, names)

    def _refused_unless(self, part: str, names: set[str]) -> set[str] | None:
        return None if part in names else names

    def _refused_hook(self, node: dict, part: str) -> set[str] | None:
        """A new default hook needs a type; None switches one of mmengine's off."""
        off = part in HOOKS and f'default_hooks.{part}' in self.options
        return None if off or f'default_hooks.{part}.type' in self.options else set(node)

    def _paramwise_keys(self, place: str) -> set[str]:
        """What the constructor of the optimizer wrapper names in its source; below custom_keys the group settings."""
        wrapper = self.cfg.get('optim_wrapper') or {}
        if '.custom_keys.' in place:
            optimizer = self._type('optim_wrapper.optimizer', wrapper.get('optimizer') or {})
            found = resolve(optimizer, self.scope)
            return {'lr_mult', 'decay_mult'} | (arguments(found) if found else set())
        kind = self.options.get('optim_wrapper.constructor', wrapper.get('constructor'))
        found = resolve(kind or 'DefaultOptimWrapperConstructor', self.scope)
        sources = [inspect.getsource(owner) for owner in found.__mro__[:-1]] if found else []
        return set(re.findall(r"'([a-z]\w*)'", ''.join(sources)))

    def _refused_in_free_dict(self, node: dict, part: str) -> set[str] | None:
        return None if is_word(part, self.packages) else {str(key) for key in node} | settings_read(self.packages)


def _types(node) -> Iterator[object]:
    if isinstance(node, dict):
        yield node.get('type')
    for child in node.values() if isinstance(node, dict) else node:
        if isinstance(child, dict | list | tuple):
            yield from _types(child)


@cache
def resolve(kind: str | None, scope: str) -> Callable | None:
    """What ``type=kind`` builds under a default scope, None if no registry of mmengine's has it."""
    if not isinstance(kind, str):
        return None
    prefix, _, rest = kind.partition('.')
    owner, name = (prefix, rest) if rest else (scope, kind)
    with suppress(ImportError):
        importlib.import_module(f'{owner}.registry')
    for root in vars(mmengine.registry).values():
        if isinstance(root, Registry):
            registry = root.children.get(owner, root)
            registry.import_from_location()
            while registry is not None:
                if name in registry.module_dict:
                    return registry.module_dict[name]
                registry = registry.parent
    found = get_object_from_string(kind) if rest else None
    return found if callable(found) else None


@cache
def arguments(target: Callable) -> set[str]:
    """Names of the arguments that a function or class takes, through ``**kwargs`` up the base classes."""
    names = set()
    for function in _calls(target):
        found = _parameters(function)
        names |= {p.name for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if all(p.kind is not p.VAR_KEYWORD for p in found):
            break
    return names - {'self'}


def hands_on(target: Callable) -> bool:
    """Does it take any further keyword, to hand it on to something?"""
    return any(p.kind is p.VAR_KEYWORD for p in _parameters(next(_calls(target))))


def _parameters(function: Callable) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except ValueError:  # written in C, without a signature
        return [inspect.Parameter('kwargs', inspect.Parameter.VAR_KEYWORD)]


def _calls(target: Callable) -> Iterator[Callable]:
    owners = target.__mro__[:-1] if inspect.isclass(target) else ()
    yield from [vars(owner)['__init__'] for owner in owners if '__init__' in vars(owner)] or [target]


def imported_by(target: Callable) -> set[str]:
    """Packages to which the module that defines ``target`` may hand arguments on."""
    module = sys.modules.get(getattr(target, '__module__', None))
    values = vars(module).values() if module else ()
    found = {value.__name__.split('.')[0] for value in values if isinstance(value, ModuleType)}
    return found - {'torch', 'numpy', *sys.stdlib_module_names}


@cache
def is_word(name: str, packages: frozenset[str]) -> bool:
    """Does ``name`` occur as a word in the Python sources of ``packages``?"""
    return _occurs(rf'\b{re.escape(name)}\b', packages)


@cache
def is_read_from_runner(name: str, packages: frozenset[str]) -> bool:
    """Do the sources of ``packages`` read the top-level key ``name`` of the config of a runner?"""
    return _occurs(rf'\brunner\.cfg(\.|\.get\(\s*|\[)[\'"]?{re.escape(name)}\b', packages)


def _occurs(pattern: str, packages: frozenset[str]) -> bool:
    return any(re.search(pattern, text) for text in _sources(packages))


@cache
def settings_read(packages: frozenset[str]) -> set[str]:
    """Names that ``packages`` read from config dicts, such as ``cfg.nms_pre`` and ``test_cfg.get('mode')``."""
    pattern = r'cfg(?:\.(?!get\b)|\.get\(\s*[\'"]|\[[\'"])([a-z]\w+)\b(?!\()'
    return {name for text in _sources(packages) for name in re.findall(pattern, text)}


@cache
def _sources(packages: frozenset[str]) -> tuple[str, ...]:
    files = [path for package in sorted(packages) for path in _files(package)]
    return tuple(path.read_text(errors='ignore') for path in files)


def _files(package: str) -> Iterator[Path]:
    spec = importlib.util.find_spec(package)
    if spec is None:
        return
    for folder in spec.submodule_search_locations or []:
        # not the hidden folder in which mmdet keeps its configs: they set keys and read none
        yield from (p for p in Path(folder).rglob('*.py') if '.mim' not in p.parts)
    if not spec.submodule_search_locations and spec.origin and spec.origin.endswith('.py'):
        yield Path(spec.origin)

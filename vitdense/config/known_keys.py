"""Who reads a key of a config, for ``cfg_options.py``: classes, mmengine at known places, heads and detectors."""

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields
from functools import cache
from typing import Any, NamedTuple

import mmengine.registry
import torch
from mmengine.dist import init_dist
from mmengine.hooks import CheckpointHook
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.registry import Registry
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, LogProcessor, Runner, TestLoop, ValLoop
from mmengine.utils import get_object_from_string
from mmengine.utils.dl_utils import set_multi_processing
from torch.utils.data import DataLoader

from vitdense.config.tree import look_up

BUILD_KEYS = {'type', '_scope_', 'priority', 'override', 'layer', 'requires_grad', 'convert_to_iter_based'}
"""Keys that builders of mmengine and mmcv take off before they call the class; elsewhere the class refuses them."""


_LOADER = (
    (DataLoader,),
    'dataset sampler batch_sampler num_batch_per_epoch worker_init_fn collate_fn disable_subprocess_warning',
)
PLACES: dict[str, tuple[tuple[Callable, ...], str]] = {
    '': (
        (Runner,),
        'runner_type model_wrapper_cfg sync_bn find_unused_parameters activation_checkpointing efficient_conv_bn_eval '
        'compile tta_model tta_pipeline',
    ),
    **{f'{split}_dataloader': _LOADER for split in ('train', 'val', 'test')},
    'train_cfg': ((EpochBasedTrainLoop, IterBasedTrainLoop), 'by_epoch'),
    'val_cfg': ((ValLoop,), ''),
    'test_cfg': ((TestLoop,), ''),
    'optim_wrapper': ((OptimWrapper,), 'constructor paramwise_cfg'),
    'optim_wrapper.clip_grad': ((torch.nn.utils.clip_grad_norm_, torch.nn.utils.clip_grad_value_), ''),
    'log_processor': ((LogProcessor,), ''),
    'model_wrapper_cfg': ((MMDistributedDataParallel,), ''),
    'compile': ((torch.compile,), ''),
    'custom_imports': ((), 'imports allow_failed_imports'),
    'auto_scale_lr': ((), 'base_batch_size enable'),
    'randomness': ((Runner.set_randomness,), ''),
    'model.data_preprocessor.test_cfg': ((), 'size size_divisor'),
    'env_cfg': ((), 'cudnn_benchmark mp_cfg dist_cfg resource_limit'),
    'env_cfg.mp_cfg': ((set_multi_processing,), ''),
    'env_cfg.dist_cfg': ((init_dist, torch.distributed.init_process_group), ''),
}
"""Nodes that mmengine knows by their place: what is called with their keys where they have no ``type``, and what
else is read there."""

HOOKS = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')
"""Names of mmengine's default hooks, which None switches off."""

PARTS = ('rpn', 'rcnn', 'init', 'refine', 'panoptic')
"""Dicts in ``train_cfg`` and ``test_cfg`` whose keys are of the kind of those around them."""

SETTINGS = {
    ('mmdet', 'train_cfg'): """
        rpn rpn_proposal rcnn init refine assigner sampler pos_weight allowed_border debug mask_size mask_thr_binary
        ga_assigner ga_sampler center_ratio ignore_ratio initial_assigner initial_epoch alpha beta reg_assigner
        soft_mask_target neg_pos_ratio smoothl1_beta num_points oversample_ratio importance_sample_ratio max_num_grid
        pos_radius isr carl dynamic_rcnn""",
    ('mmdet', 'test_cfg'): """
        rpn rcnn panoptic nms nms_pre nms_post nms_across_levels nms_cfg max_per_img min_bbox_size score_thr conf_thr
        iou_thr topk top_k corner_topk local_maximum_kernel distance_threshold chunked_size mask_thr mask_thr_binary
        mask_overlap stuff_area_limit filter_thr kernel sigma scale_factor subdivision_num_points subdivision_steps
        panoptic_on semantic_on instance_on filter_low_score object_mask_thr max_per_image async_sleep_interval""",
    ('mmdet', 'rpn_proposal'): 'nms nms_pre nms_post nms_across_levels max_per_img min_bbox_size score_thr',
    ('mmseg', 'train_cfg'): 'assigner sampler num_points oversample_ratio importance_sample_ratio',
    ('mmseg', 'test_cfg'): 'mode crop_size stride scale_factor subdivision_num_points subdivision_steps',
    ('', 'semi_train_cfg'): """
        freeze_teacher sup_weight unsup_weight cls_pseudo_thr min_pseudo_bbox_wh jitter_times jitter_scale
        pseudo_label_initial_score_thr rpn_pseudo_thr reg_pseudo_thr""",
    ('', 'semi_test_cfg'): 'predict_on forward_on extract_feat_on',
    ('', 'dynamic_rcnn'): 'iou_topk beta_topk update_iter_interval initial_iou initial_beta',
    ('', 'isr'): 'k bias',
    ('', 'carl'): 'k bias',
    ('', 'tta_cfg'): 'nms max_per_img',
    ('', 'filter_cfg'): 'filter_empty_gt min_size bbox_min_size',
    ('', 'data_prefix'): 'img img_path seg seg_map_path anno ann img_path2 depth_map_path sub_data_root',
    ('', 'metainfo'): 'classes palette thing_classes stuff_classes',
    ('', 'backend_args'): 'backend path_mapping',
}
"""What heads, detectors and data sets of mmdet and mmseg read from dicts without a type, by the package of the model
and by the key that holds the dict."""

NMS = 'type iou_threshold score_threshold max_num offset sigma min_score method class_agnostic split_thr'
"""Arguments of mmcv's ``nms`` and ``soft_nms``, and what ``batched_nms`` takes off before it calls them."""


class Keys(NamedTuple):
    """The ``names`` that are read at a place; all of them, unless code reads there that signatures do not show."""

    names: frozenset[str]
    complete: bool


class Readers:
    """Tells what reads the keys of a config ``tree`` with the options ``new``."""

    def __init__(self, tree: dict, new: dict) -> None:
        def said(key: str, default: str = '') -> Any:
            return look_up(new, key) or look_up(tree, key) or default

        self.scope = said('default_scope', 'mmengine')
        self.constructor = resolve(said('optim_wrapper.constructor', 'DefaultOptimWrapperConstructor'), self.scope)
        self.optimizer = resolve(said('optim_wrapper.optimizer.type'), self.scope)
        self.package = getattr(resolve(said('model.type'), self.scope), '__module__', '').split('.')[0]
        imports = said('custom_imports.imports')
        imported = {name.split('.')[0] for name in ([imports] if isinstance(imports, str) else imports)}
        self.foreign = {self.scope, *imported} - {'', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'vitdense'}

    def at_top(self, name: str) -> bool:
        """Is a top-level key read after the config file has been?"""
        return self.refusal('', {}, name) is None

    def refusal(self, place: str, node: dict, part: str) -> Keys | None:
        """None if the key ``part`` of ``node`` at a dotted ``place`` is read, else those that are."""
        known = self._keys(place, node)
        built = 'type' in node and part in BUILD_KEYS
        return None if known is None or built or part in known.names else known

    def complete_keys(self, place: str, node: dict) -> Keys | None:
        """All keys that are read from ``node``; ``None`` where it has neither a class nor a place that says them."""
        known = self._keys(place, node) if place in PLACES or node.get('type') else None
        return known if known and known.complete else None

    def _keys(self, place: str, node: dict) -> Keys | None:
        parts = [part for part in place.split('.') if not part.isdigit()]
        if parts[-1].endswith('kwargs') or parts[-1] == 'custom_keys':
            return None
        if parts[-1] == 'nms':
            return Keys(frozenset(NMS.split()), self.package == 'mmdet')
        if 'custom_keys' in parts:
            return Keys(frozenset({'lr_mult', 'decay_mult'} | arguments(self.optimizer)), True)
        if parts[-1] == 'paramwise_cfg':
            return self._paramwise()
        targets, further = PLACES.get(place, ((), ''))
        if found := resolve(node.get('type'), self.scope):
            targets = (found,)
        if not targets and not further:
            return Keys(self._settings(parts, node), False)
        names = frozenset(further.split()).union(*map(arguments, targets))
        if inspect.isclass(found) and issubclass(found, CheckpointHook):  # what it does not take goes to the runner
            return Keys(names | arguments(Runner.save_checkpoint), complete=True)
        if not place:  # hooks of other packages may read what they like
            return Keys(names - {'cfg'}, not self.foreign)
        return Keys(names, not any(map(hands_on, targets)))

    def _paramwise(self) -> Keys:
        """What the constructor of the optimizer wrapper takes from ``paramwise_cfg``; ours states it."""
        if own := getattr(self.constructor, 'DEFAULTS', None):
            return Keys(frozenset(own), complete=True)
        sources = [source(owner) for owner in getattr(self.constructor, '__mro__', ())[:-1]]
        return Keys(frozenset(re.findall(r"paramwise_cfg(?:\.\w+\(|\[)\s*'(\w+)'", ''.join(sources))), bool(sources))

    def _settings(self, parts: list[str], node: dict) -> frozenset[str]:
        """What is read from a dict without a type."""
        if parts[-1] in ('train_cfg', 'test_cfg') and node.keys() & {'rpn', 'rcnn'}:
            return frozenset({'rpn', 'rpn_proposal', 'rcnn', 'panoptic'})
        holder = next((part for part in reversed(parts) if part not in PARTS), '')
        packages = {self.package} & {'mmdet', 'mmseg'} or {'mmdet', 'mmseg'}
        return frozenset(' '.join(SETTINGS.get((package, holder), '') for package in packages | {''}).split())


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


def registered_names(kind: type) -> Iterator[tuple[str, str]]:
    """Scopes and names under which the registries that are loaded have a class."""
    roots = [root for root in vars(mmengine.registry).values() if isinstance(root, Registry)]
    for registry in (one for root in roots for one in (root, *root.children.values())):
        yield from ((registry.scope, name) for name, found in registry.module_dict.items() if found is kind)


@cache
def arguments(target: Callable | None) -> frozenset[str]:
    """Names of the arguments that a function or class takes, through ``**kwargs`` up the base classes.

    Backbones of this package take the columns of their ``ARCHS`` as well.
    """
    rows = getattr(target, 'ARCHS', {}).values()
    names = {column.name for row in rows for column in fields(row)}
    for function in _calls(target):
        found = _parameters(function)
        names |= {p.name for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        rest = _rest(function)
        if rest is None or _is_dropped(function, rest) or (rows and not _only_for_base(function, rest)):
            break
    return frozenset(names - {'self'})


@cache
def hands_on(target: Callable) -> bool:
    """Does it take further keywords and give them to anything but its base classes, whose arguments are known?"""
    for function in _calls(target):
        rest = _rest(function)
        if rest is None or _is_dropped(function, rest):
            return False
        if not _only_for_base(function, rest):
            return not hasattr(target, 'ARCHS')
    return True


@cache
def drops(target: Callable | None) -> bool:
    """Does it take whatever keywords it is given, and read only those that it names?"""
    return any((rest := _rest(function)) and _is_dropped(function, rest) for function in _calls(target))


def _is_dropped(function: Callable, rest: str) -> bool:
    """Does nothing read ``**rest``?"""
    text = source(function)
    return bool(text) and not any(
        isinstance(node, ast.Name) and node.id == rest for node in ast.walk(ast.parse(textwrap.dedent(text)))
    )


def _only_for_base(function: Callable, rest: str) -> bool:
    """Does a constructor give ``**rest`` to ``super().__init__`` and to nothing else?"""
    nodes = list(ast.walk(ast.parse(textwrap.dedent(source(function)))))
    calls = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func).startswith('super(')]
    given = [node for call in calls for word in call.keywords if word.arg is None for node in ast.walk(word.value)]
    asked = [
        operand for node in nodes if isinstance(node, ast.Compare) for operand in node.comparators
    ]  # 'x' in kwargs
    used = [node for node in nodes if isinstance(node, ast.Name) and node.id == rest]
    return any(node in given for node in used) and all(node in given + asked for node in used)


@cache
def source(owner: Callable) -> str:
    """Python source, empty where there is none."""
    with suppress(OSError, TypeError):
        return inspect.getsource(owner)
    return ''


def _rest(function: Callable) -> str | None:
    return next((p.name for p in _parameters(function) if p.kind is p.VAR_KEYWORD), None)


def _parameters(function: Callable) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except ValueError:  # written in C, without a signature
        return [inspect.Parameter('kwargs', inspect.Parameter.VAR_KEYWORD)]


def _calls(target: Callable | None) -> Iterator[Callable]:
    owners = target.__mro__[:-1] if inspect.isclass(target) else ()
    yield from [vars(owner)['__init__'] for owner in owners if '__init__' in vars(owner)] or filter(None, [target])

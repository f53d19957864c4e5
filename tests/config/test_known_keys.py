"""The written lists of settings against what the installed mmcv, mmdet and mmseg read, and what their configs set."""

import ast
import importlib.util
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from mmcv.ops import batched_nms, nms, soft_nms
from support import CONFIGS

from vitdense.config.known_keys import NMS, PARTS, SETTINGS, arguments

HOLDER = re.compile(r'(\w+\.)*(\w*(train|test)_cfg(\.(rpn|rcnn|dynamic_rcnn|panoptic))?|cfg|cfg\.nms)')
"""Expressions from which models read settings: ``self.test_cfg``, ``rcnn_train_cfg``, ``model.train_cfg.rcnn``."""

NOT_SETTINGS = {
    'type': 'of a layer or an nms, by its class',
    'iou_threshold': 'of an nms',
    'max_num': 'an old name, for which mmdet says that it is one',
    'nms_thr': 'an old name, for which mmdet says that it is one',
}
NOT_READ = {'debug': 'set by all configs'}
CONFIG_ONLY = {'score_voting', 'augments'}
"""What configs of mmdet set and nothing in it reads."""


def home(package: str) -> Path:
    return Path(importlib.util.find_spec(package).origin).parent


def listed(*keys: tuple[str, str]) -> set[str]:
    return set(' '.join(SETTINGS[key] for key in keys).split())


def names_read(source: str) -> Iterator[str]:
    """``a.x``, ``a['x']``, ``a.get('x')``, ``a.pop('x')``, ``'x' in a``, ``hasattr(a, 'x')`` of a holder ``a``."""
    for node in ast.walk(ast.parse(source)):
        name = owner = None
        if isinstance(node, ast.Attribute):
            owner, name = node.value, ast.Constant(node.attr)
        elif isinstance(node, ast.Subscript):
            owner, name = node.value, node.slice
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            owner, name = node.comparators[0], node.left
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            owner, name = node.func.value, node.args[0]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ('hasattr', 'getattr'):
            owner, name = node.args[:2]
        if isinstance(name, ast.Constant) and isinstance(name.value, str) and HOLDER.fullmatch(ast.unparse(owner)):
            yield name.value


def read_by_models(package: str) -> set[str]:
    files = [p for folder in ('models', 'structures') for p in (home(package) / folder).rglob('*.py')]
    ours = [p for p in files if p.parent.name != 'backbones' and p.stem != 'd2_wrapper']
    return {name for p in ours for name in names_read(p.read_text())} - {'get', 'pop', 'update', 'copy', *NOT_SETTINGS}


def test_what_counts_as_reading():
    source = """
        x = self.test_cfg.a, cfg['b'], rcnn_train_cfg.get('c', 1), self.train_cfg.rcnn.d, getattr(model.test_cfg, 'e')
        if 'f' in self.train_cfg or hasattr(cfg, 'g'): norm_cfg.h, other['i'], config.j, 'k' in names
    """
    assert set(names_read(inspect.cleandoc(source))) - {'get', 'rcnn'} == set('abcdefg')


@pytest.mark.slow
def test_detectors_read_what_is_listed():
    parts = [('mmdet', name) for name in ('train_cfg', 'test_cfg', 'rpn_proposal')]
    semi = [('', name) for name in ('semi_train_cfg', 'semi_test_cfg', 'dynamic_rcnn')]
    assert listed(*parts, *semi) - NOT_READ.keys() == read_by_models('mmdet')
    assert set(PARTS) <= listed(*parts)
    assert listed(('mmdet', 'rpn_proposal')) <= listed(('mmdet', 'test_cfg'))


def test_segmentors_read_what_is_listed():
    heads_of_mmdet = {'sampler'}  # those of MaskFormer and Mask2Former
    preprocessor = {'size', 'size_divisor'}
    expected = listed(('mmseg', 'train_cfg'), ('mmseg', 'test_cfg')) - heads_of_mmdet | preprocessor
    assert expected == read_by_models('mmseg') - {'train_cfg', 'test_cfg'}


def test_nms_takes_what_is_listed():
    taken = set(re.findall(r"nms_cfg_\.pop\('(\w+)'", inspect.getsource(batched_nms)))
    assert set(NMS.split()) == (arguments(nms) | arguments(soft_nms) | taken) - {'boxes', 'scores'}


NOT_MODELS = ('train_cfg', 'test_cfg', 'data_preprocessor')


def settings_of(path: Path, package: str) -> Iterator[tuple[str, str]]:
    """Keys in the dicts of a config file for which there is a list, by the key of that list."""

    def walk(node: ast.AST, holder: str) -> Iterator[tuple[str, str]]:
        if isinstance(node, ast.List | ast.Tuple):
            for child in node.elts:
                yield from walk(child, holder)
        if not isinstance(node, ast.Call) or ast.unparse(node.func) != 'dict':
            return
        typed = any(keyword.arg == 'type' for keyword in node.keywords)
        for keyword in node.keywords:
            if keyword.arg in ('_delete_', 'data_preprocessor'):  # the latter's has a place of its own
                continue
            if holder and not typed:
                yield holder, keyword.arg
            inner = keyword.arg if (package, keyword.arg) in SETTINGS or ('', keyword.arg) in SETTINGS else ''
            yield from walk(keyword.value, holder if keyword.arg in PARTS and holder and not typed else inner)

    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) not in NOT_MODELS:
            yield from walk(statement.value, '')


@pytest.mark.parametrize('package', ['mmdet', 'mmseg', 'vitdense'])
def test_configs_set_what_is_listed(package):
    root = CONFIGS if package == 'vitdense' else home(package) / '.mim/configs'
    packages = ('mmdet', 'mmseg') if package == 'vitdense' else (package,)
    found = {pair for path in root.rglob('*.py') for one in packages for pair in settings_of(path, one)}
    assert {holder for holder, _ in found} > {'test_cfg', 'data_prefix'}
    unlisted = {
        (holder, name)
        for holder, name in found
        if name not in set().union(*(SETTINGS.get((one, holder), '').split() for one in (*packages, '')))
    }
    assert {name for _, name in unlisted} <= CONFIG_ONLY, unlisted

"""Registries of the scope ``vitdense``, children of mmengine's roots.

``type='vitdense.PVT'`` resolves from configs of any OpenMMLab scope, because mmengine imports this module when it meets
the prefix.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

from vitdense.compat import requirements
from vitdense.names import unknown

requirements.check()

import mmengine.registry  # noqa: E402
from mmengine.registry import Registry as MMEngineRegistry  # noqa: E402

SCOPE = 'vitdense'


class Registry(MMEngineRegistry):
    """An mmengine registry that answers a wrong name with the nearest right ones."""

    def get(self, key: str) -> type:
        """Return the class registered as ``key``.

        Raises:
            KeyError: no such class; the message lists the registered names, nearest first.
        """
        found = super().get(key)
        if found is None:
            raise KeyError(unknown(f'{SCOPE} {self.name}', key.removeprefix(f'{SCOPE}.'), self.module_dict))
        return found


def bare_type(node: Any) -> str:
    """Name of the class that a config node, or its ``type``, stands for, without scope or module; empty if it has none.

    Configs written as Python have the classes themselves.
    """
    kind = node.get('type') if isinstance(node, dict) else node
    return getattr(kind, '__name__', None) or str(kind or '').rpartition('.')[2]


def _child(root: str, location: str) -> Registry:
    parent = getattr(mmengine.registry, root)
    return Registry(parent.name, parent=parent, scope=SCOPE, locations=[f'vitdense.{location}'])


MODELS = _child('MODELS', 'models')
WEIGHT_INITIALIZERS = _child('WEIGHT_INITIALIZERS', 'checkpoint')
DATASETS = _child('DATASETS', 'datasets.registered')
TRANSFORMS = _child('TRANSFORMS', 'datasets.registered')
METRICS = _child('METRICS', 'evaluation')
OPTIM_WRAPPERS = _child('OPTIM_WRAPPERS', 'engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child('OPTIM_WRAPPER_CONSTRUCTORS', 'engine')
HOOKS = _child('HOOKS', 'engine')
LOG_PROCESSORS = _child('LOG_PROCESSORS', 'engine')
RUNNERS = _child('RUNNERS', 'engine')
LOOPS = _child('LOOPS', 'engine')
FUNCTIONS = _child('FUNCTIONS', 'engine')


PEERS = ('mmdet', 'mmseg')
"""Scopes that are looked through for a name that the scope of a config does not have."""

RENAMED = {'DefaultFormatBundle': 'PackDetInputs or PackSegInputs', 'Collect': 'PackDetInputs or PackSegInputs'}
"""Types of mmdet 2 and mmseg 0 whose successors have other names."""


@contextmanager
def nearest_type_names() -> Iterator[None]:
    """Within it, mmengine's error about an unregistered type also says which scope has it, or what is nearest."""
    try:
        yield
    except KeyError as error:
        found = re.search(r'(\S+) is not in the (\S+?)::(.+?) registry', str(error))
        roots = [root for root in vars(mmengine.registry).values() if isinstance(root, MMEngineRegistry)]
        root = next((root for root in roots if found and root.name == found[3].split('::')[-1]), None)
        if found is None or root is None:
            raise
        raise KeyError(_not_there(root, found[1].strip('\'"'), found[2].strip('\'"'))) from error


def _not_there(root: MMEngineRegistry, name: str, scope: str) -> str:
    for peer in PEERS:
        with suppress(ImportError):
            import_module(f'{peer}.registry')
        if peer in root.children:
            root.children[peer].import_from_location()
    elsewhere = [other for other, child in root.children.items() if other != scope and name in child.module_dict]
    if elsewhere:
        other = elsewhere[0]
        return (
            f'type {name!r} of a {root.name} is not known to {scope}, where default_scope or a prefix looks for it: '
            f'did you mean {f"{other}.{name}"!r}, or default_scope={other!r} for the whole config?'
        )
    if name in RENAMED:
        return f'type {name!r} of a {root.name} is of mmdet 2.x or mmseg 0.x; today {RENAMED[name]} does this'
    names = set(root.module_dict)
    for other, child in root.children.items():
        names |= {key if other == scope else f'{other}.{key}' for key in child.module_dict}
    return unknown(f'type of a {root.name}', name, names)

"""Registries of the scope ``vitdense``, children of mmengine's roots.

``type='vitdense.PVT'`` resolves from configs of any OpenMMLab scope, because mmengine imports this module when it meets
the prefix.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import mmengine.registry
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import WEIGHT_INITIALIZERS as ROOT_WEIGHT_INITIALIZERS
from mmengine.registry import Registry as MMEngineRegistry

from vitdense.names import unknown

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


MODELS = Registry('model', parent=ROOT_MODELS, scope=SCOPE, locations=['vitdense.models'])
DATASETS = Registry('dataset', parent=ROOT_DATASETS, scope=SCOPE, locations=['vitdense.datasets'])
WEIGHT_INITIALIZERS = Registry(
    'weight initializer', parent=ROOT_WEIGHT_INITIALIZERS, scope=SCOPE, locations=['vitdense.checkpoint']
)


@contextmanager
def nearest_type_names() -> Iterator[None]:
    """Within it, mmengine's error about an unregistered type also lists the registered names, nearest first."""
    try:
        yield
    except KeyError as error:
        found = re.search(r'(\S+) is not in the \S+?::(.+?) registry', str(error))
        roots = [root for root in vars(mmengine.registry).values() if isinstance(root, MMEngineRegistry)]
        root = next((root for root in roots if found and root.name == found[2].split('::')[-1]), None)
        if root is None:
            raise
        names = set(root.module_dict)
        for scope, child in root.children.items():
            names |= set(child.module_dict) if scope != SCOPE else {f'{SCOPE}.{name}' for name in child.module_dict}
        raise KeyError(unknown(f'type of a {root.name}', found[1].strip('\'"'), names)) from error

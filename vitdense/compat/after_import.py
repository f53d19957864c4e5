"""Work on a module right after its import, so that preparing the stack imports nothing of it."""

import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

from vitdense_startup import changed

Repair = Callable[[Any], None]
REPAIRS: dict[str, Repair] = {}
"""What to do with a module once it is imported, by the name of the module."""


class RepairFinder(MetaPathFinder):
    """Imports the modules of ``REPAIRS`` as they are, and then repairs them."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        repair = REPAIRS.get(fullname)
        if repair is None:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        return changed(spec, repair)


FINDER = RepairFinder()


def after_import(name: str, repair: Repair) -> None:
    """Let ``repair`` have the module ``name``: now if it is imported already, else when it will be. Idempotent."""
    again = REPAIRS.get(name) is repair
    REPAIRS[name] = repair
    if FINDER not in sys.meta_path:
        sys.meta_path.insert(0, FINDER)
    module = sys.modules.get(name)
    if module is not None and not again:
        repair(module)

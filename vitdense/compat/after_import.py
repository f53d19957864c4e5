"""Work on a module right after its import, so that preparing the stack imports nothing of it."""

import sys
from collections.abc import Callable
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

from vitdense_startup import changed

Repair = Callable[[Any], None]
REPAIRS: dict[str, list[Repair]] = {}
"""What to do with a module once it is imported, in this order, by the name of the module."""


class RepairFinder(MetaPathFinder):
    """Imports the modules of ``REPAIRS`` as they are, and then repairs them."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        repairs = REPAIRS.get(fullname)
        if repairs is None:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        return changed(spec, partial(_repair, repairs))


def _repair(repairs: list[Repair], module: Any) -> None:
    for repair in repairs:
        repair(module)


FINDER = RepairFinder()


def after_import(name: str, repair: Repair) -> None:
    """Let ``repair`` have the module ``name``: now if it is imported already, else when it will be. Idempotent."""
    known = REPAIRS.setdefault(name, [])
    again = repair in known
    if not again:
        known.append(repair)
    if FINDER not in sys.meta_path:
        sys.meta_path.insert(0, FINDER)
    module = sys.modules.get(name)
    if module is not None and not again:
        repair(module)

"""``--cfg-options``: a key that nothing reads is an error, and one that nothing known reads gives a warning."""

from copy import deepcopy
from functools import cached_property
from typing import TYPE_CHECKING

from mmengine.config import Config

from vitdense.config.tree import look_up, nested, places
from vitdense.console import silent_imports
from vitdense.names import listed, unknown
from vitdense.untrusted.configs import STACK, check_types, packages_of

if TYPE_CHECKING:
    from vitdense.config.known_keys import Keys, Readers

RUNNER_KEYS = frozenset(
    f"""
    model work_dir load_from resume launcher env_cfg log_processor log_level visualizer default_scope randomness
    optim_wrapper param_scheduler auto_scale_lr default_hooks custom_hooks
    {' '.join(f'{split}_{part}' for split in ('train', 'val', 'test') for part in ('dataloader', 'cfg', 'evaluator'))}
    """.split()
) - {'train_evaluator'}
"""Top-level keys that mmengine's runner reads: of settings below them that a config has, that is all one has to know,
and neither PyTorch nor the classes of the config are imported."""


def merge_options(cfg: Config, options: dict) -> list[str]:
    """Check ``--cfg-options`` and merge them into ``cfg``; a setting that is None may be given keys.

    Returns:
        Warnings, see :func:`check_options`.

    Raises:
        ValueError: see :func:`check_options`; or one is a type of a package that neither is of the stack nor named in
            the config, which would be imported.
    """
    tree = cfg.to_dict()
    check_types(nested(deepcopy(options)), '--cfg-options', dict.fromkeys([*STACK, *sorted(packages_of(tree))]))
    warnings, options = check_options(cfg, options), deepcopy(options)
    parents = [place for place, value in places(nested(options)).items() if isinstance(value, dict)]
    # without this mark mmengine refuses to merge keys into None
    unset = {f'{parent}._delete_': True for parent in parents if look_up(tree, parent, default=...) is None}
    cfg.merge_from_dict({**options, **unset})
    return warnings


def check_options(cfg: Config, options: dict) -> list[str]:
    """Check the keys of ``--cfg-options``, and those of dicts among their values, before they are merged into ``cfg``.

    A component of a key is fine if it is in the config; if the class that its place is built from takes an argument of
    this name; if mmengine reads it at that place; or if heads and detectors read it from a dict of this name
    (``known_keys.SETTINGS``).

    Args:
        cfg: the config as it was read.
        options: values by dotted key; list indices and ``_delete_`` as in mmengine.

    Returns:
        A warning for each key of which nobody can tell whether it is read: in dicts without a type, and of classes that
        hand ``**kwargs`` on. It lists the known ones, nearest first.

    Raises:
        ValueError: nothing reads a key, the message lists the valid ones, nearest first; or it is a variable of the
            config file, which was used while that was read, and the message names the keys that hold its value.
    """
    check = _Check(cfg.to_dict(), options)
    check.walk('', check.tree, check.new)
    return check.warnings


class _Check:
    """Walks through options and config together."""

    def __init__(self, tree: dict, options: dict) -> None:
        self.tree, self.options, self.new = tree, options, nested(deepcopy(options))
        self.warnings: list[str] = []

    @cached_property
    def readers(self) -> 'Readers':
        """Who reads what; it imports the classes of the config."""
        with silent_imports():
            from vitdense.config.known_keys import Readers

            return Readers(self.tree, self.new)

    def walk(self, place: str, node: object, new: object) -> None:
        """Check the keys that ``new`` has beyond those of ``node``, which is what the config has at ``place``."""
        if isinstance(new, list | tuple):  # it replaces what was there
            for i, child in enumerate(new):
                self.walk(f'{place}.{i}', None, child)
        if not isinstance(new, dict):
            return
        if new.get('_delete_'):
            node = None
        if not isinstance(node, dict | list | None):
            raise ValueError(f'{self.option(place)}: {place} is {node!r}, which has no keys')
        for part, child in new.items():
            below = f'{place}.{part}' if place else part
            if isinstance(node, list):
                if not part.isdigit() or int(part) >= len(node):
                    raise ValueError(
                        f'{self.option(below)}: {place} is a list, expected an index from 0 to {len(node) - 1}, '
                        f'found {part!r}'
                    )
                self.walk(below, node[int(part)], child)
            elif part != '_delete_' and isinstance(part, str) and self.is_read(place, node or {}, new, part):
                self.walk(below, (node or {}).get(part), child)

    def is_read(self, place: str, node: dict, new: dict, part: str) -> bool:
        """Is ``part`` of ``new`` known to be read? If not, there is an error, or a warning where that is not sure."""
        option = self.option(f'{place}.{part}' if place else part)
        if not place:
            self.check_top(option, part)
        if part in node:
            return True
        if part.isdigit():
            raise ValueError(f'{option}: {place or "the config"} is not a list that has an item {part}')
        settings = {**node, **new}
        refusal = self.hook(new, part) if place == 'default_hooks' else self.readers.refusal(place, settings, part)
        if refusal is None:
            return True
        kind = f' ({settings["type"]})' if settings.get('type') else ''
        name = f'key of {place}{kind}' if place else 'key of the config'
        deeper = [] if place else [holder for holder in self.read_places() if holder.endswith(f'.{part}')]
        hint = f'. Deeper keys of this name: {listed(deeper, 6)}' if deeper else ''
        self.refuse(f'{option}: {unknown(name, part, refusal.names | node.keys())}{hint}', refusal.complete)
        return False

    def hook(self, new: dict, part: str) -> 'Keys | None':
        """A new default hook needs a type; None switches one of mmengine's off."""
        from vitdense.config.known_keys import HOOKS, Keys

        off = part in HOOKS and new[part] is None
        return None if off or look_up(new, f'{part}.type') else Keys(frozenset(), complete=True)

    def check_top(self, option: str, name: str) -> None:
        """Refuse variables, which only the config file itself uses."""
        key = option.removeprefix('--cfg-options ')
        if name == 'data_preprocessor' and name in (self.tree.get('model') or {}):
            raise ValueError(f'{option}: the model has its own data_preprocessor, which counts: model.{key}')
        if name not in self.tree or name in RUNNER_KEYS or self.readers.at_top(name):
            return
        read = self.read_places()
        holders = [place for place, node in read.items() if _holds(place.split('.')[-1], node, name, self.tree[name])]
        # the same name is the better witness than the same value
        holders.sort(key=lambda place: place.split('.')[-1] != name)
        found = f'Keys that hold its value: {listed([place + key.removeprefix(name) for place in holders], 6)}'
        self.refuse(
            f'{option}: {name} was used while the config file was read, and nothing reads it afterwards. '
            + (found if holders else 'No key holds its value'),
            sure=not self.readers.foreign,
        )

    def refuse(self, message: str, sure: bool) -> None:
        if sure:
            raise ValueError(message)
        self.warnings.append(f'{message}. It is set all the same')

    def option(self, place: str) -> str:
        """The option that speaks of a place, or of what is above or below it."""
        keys = (key for key in self.options if f'{place}.'.startswith(f'{key}.') or key.startswith(f'{place}.'))
        return f'--cfg-options {next(keys)}'

    def read_places(self) -> dict[str, object]:
        return places({part: node for part, node in self.tree.items() if self.readers.at_top(part)})


def _holds(part: str, node: object, name: str, value: object) -> bool:
    """Does a ``node`` under the key ``part`` come from a variable? Short numbers and the like tell by name only."""
    telling = part == name or not (value in (None, 0, 1, '') or isinstance(value, bool))
    below = isinstance(value, str) and '/' in value and isinstance(node, str) and node.startswith(value)
    return telling and type(node) is type(value) and (node == value or below)

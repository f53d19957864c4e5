"""Does what a config builds take the arguments that it is given?"""

import inspect
import re
from collections.abc import Iterator

from vitdense.config.known_keys import Keys, Readers, arguments, drops, source
from vitdense.config.tree import look_up, places
from vitdense.names import listed, nearest

from .rules import Case, rule
from .run import Run

SHOWN = 8
"""Arguments that a message lists."""


@rule(
    'unknown argument',
    looks_at='the keys of each part of the config whose class, or place, says which ones it takes',
    expected='an argument of the class',
)
def unknown_arguments(run: Run) -> Iterator[Case]:
    yield from _strange(run, dropped=False)


@rule(
    'argument that nobody reads',
    looks_at='the keys of each part of the config whose class takes any, as IoUMetric of mmseg does',
    expected='an argument that the class reads',
    fatal=False,
)
def unread_arguments(run: Run) -> Iterator[Case]:
    yield from _strange(run, dropped=True)


def _strange(run: Run, dropped: bool) -> Iterator[Case]:
    """Arguments that nobody takes, of classes that drop them or of those that refuse them."""
    tree = run.cfg.to_dict()
    readers = Readers(tree, {})
    unused = {f'{split}_{part}' for split in {'train', 'val', 'test'} - {*run.names} for part in ('dataloader', 'cfg')}
    read = {key: node for key, node in tree.items() if readers.at_top(key) and key not in unused}
    for place, node in places(read).items():
        if not isinstance(node, dict) or drops(run.kind(node)) != dropped:
            continue
        known = None if hasattr(run.kind(node), 'ARCHS') else readers.complete_keys(place, node)  # they say more
        strange = [key for key in node if known and readers.refusal(place, node, key)]
        for key in strange:
            if known and not _taken_elsewhere(run, tree, place, node, key):
                yield _case(f'{place}.{key}', key, node, known)


def _case(where: str, key: str, node: dict, known: Keys) -> Case:
    names = nearest(key, known.names)
    kind = f', which {_name(node)} does not know' if node.get('type') else ', which nothing reads'
    return Case(where, f'{node[key]!r:.60}{kind}', f'one of {listed(names, SHOWN)}' if names else '')


def _name(node: dict) -> str:
    """Name of the class of a node, as its config has it."""
    return getattr(node['type'], '__name__', str(node['type']))


def _taken_elsewhere(run: Run, tree: dict, place: str, node: dict, key: str) -> bool:
    """Whether a base class knows the argument, or the class renames it, or one around the node takes it off before."""
    kind = run.kind(node)
    bases = kind.__mro__[:-1] if inspect.isclass(kind) else ()
    parts = place.split('.')
    around = [look_up(tree, '.'.join(parts[:n])) for n in range(1, len(parts))]
    kinds = [run.kind(one) for one in around if isinstance(one, dict)]
    owners = {inspect.getmodule(base) for kind in kinds if inspect.isclass(kind) for base in kind.__mro__[:-1]}
    quoted = re.compile(rf'[\'"]{re.escape(key)}[\'"]')
    named = any(quoted.search(source(owner)) for owner in [*bases, *owners] if owner)
    return named or any(key in arguments(base) for base in bases)

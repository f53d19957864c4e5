"""``--cfg-options``: a key that nothing reads is an error."""

from mmengine.config import Config

from vitdense.config.known_keys import Readers
from vitdense.names import unknown


def merge_options(cfg: Config, options: dict) -> None:
    """Check ``--cfg-options`` and merge them into ``cfg``; a setting that is None may be given keys.

    Raises:
        ValueError: see :func:`check_options`.
    """
    check_options(cfg, options)
    tree = cfg.to_dict()
    parents = {key[:dot] for key in options for dot, letter in enumerate(key) if letter == '.'}
    # without this mark mmengine refuses to merge keys into None
    unset = {f'{parent}._delete_': True for parent in parents if look_up(tree, parent, default=...) is None}
    cfg.merge_from_dict({**options, **unset})


def check_options(cfg: Config, options: dict) -> None:
    """Check the keys of ``--cfg-options`` before they are merged into ``cfg``.

    A component of a key is fine if it is in the config; if the class that its place is built from takes an argument of
    this name; if mmengine reads it at that place; or, in free dicts such as ``model.test_cfg``, if it occurs as a word
    in the sources of the packages that could read it.

    Args:
        cfg: the config as it was read.
        options: values by dotted key; list indices and ``_delete_`` as in mmengine.

    Raises:
        ValueError: nothing reads a key, the message lists the valid ones, nearest first; or it is a variable of the
            config file, which was used while that was read, and the message names the keys that hold its value.
    """
    tree = cfg.to_dict()
    for key, value in options.items():
        place, _, last = key.rpartition('.')
        if last == '_delete_' and value and isinstance(node := look_up(tree, place), dict):
            node.clear()
    readers = Readers(cfg, options)
    for key in options:
        _check_top(key, tree, readers)
        _check_key(key, tree, readers)


def look_up(node, key: str, default=None):
    """The value at a dotted key below a config node, list indices included."""
    for part in key.split('.'):
        if isinstance(node, dict) and part in node:
            node = node[part]
        elif isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        else:
            return default
    return node


def _check_key(key: str, tree: dict, readers: Readers) -> None:
    node, place = tree, ''
    for part in key.split('.'):
        if part == '_delete_':
            return
        if isinstance(node, list):
            if not part.isdigit() or int(part) >= len(node):
                raise ValueError(
                    f'--cfg-options {key}: {place} is a list, expected an index from 0 to {len(node) - 1}, '
                    f'found {part!r}'
                )
            node = node[int(part)]
        elif node is None or isinstance(node, dict):
            _check_part(key, place, node or {}, part, tree, readers)
            node = (node or {}).get(part)
        else:
            raise ValueError(f'--cfg-options {key}: {place} is {node!r}, which has no keys')
        place = f'{place}.{part}'.lstrip('.')


def _check_part(key: str, place: str, node: dict, part: str, tree: dict, readers: Readers) -> None:
    if part in node:
        return
    if part.isdigit():
        raise ValueError(f'--cfg-options {key}: {place or "the config"} is not a list that has an item {part}')
    valid = readers.refusal(place, node, part)
    if valid is None:
        return
    name = f'key of {place}{readers.type_name(place, node)}' if place else 'key of the config'
    deeper = [] if place else [holder for holder in _read_places(tree, readers) if holder.endswith(f'.{part}')]
    hint = f'. Deeper keys of this name: {_some(deeper)}' if deeper else ''
    raise ValueError(f'--cfg-options {key}: {unknown(name, part, valid)}{hint}')


def _check_top(key: str, tree: dict, readers: Readers) -> None:
    """Refuse variables, which only the config file itself uses."""
    name, dot, rest = key.partition('.')
    if name == 'data_preprocessor' and name in (tree.get('model') or {}):
        raise ValueError(f'--cfg-options {key}: the model has its own data_preprocessor, which counts: model.{key}')
    if name not in tree or readers.at_top(name):
        return
    places = _read_places(tree, readers)
    holders = [place for place, node in places.items() if _holds(place.split('.')[-1], node, name, tree[name])]
    # the same name is the better witness than the same value
    holders.sort(key=lambda place: place.split('.')[-1] != name)
    found = f'Keys that hold its value: {_some([f"{place}{dot}{rest}" for place in holders])}'
    raise ValueError(
        f'--cfg-options {key}: {name} was used while the config file was read, and nothing reads it afterwards. '
        + (found if holders else 'No key holds its value')
    )


def _some(places: list[str], most: int = 6) -> str:
    more = f' and {len(places) - most} more' if len(places) > most else ''
    return ', '.join(places[:most]) + more


def _read_places(tree: dict, readers: Readers) -> dict[str, object]:
    return _places({part: node for part, node in tree.items() if readers.at_top(part)})


def _places(node, above: str = '') -> dict[str, object]:
    """All values below a node by their dotted keys."""
    places = {}
    for part, child in node.items() if isinstance(node, dict) else enumerate(node):
        place = f'{above}.{part}' if above else str(part)
        places[place] = child
        if isinstance(child, dict | list | tuple):
            places.update(_places(child, place))
    return places


def _holds(part: str, node: object, name: str, value: object) -> bool:
    """Does a ``node`` under the key ``part`` come from a variable? Short numbers and the like tell by name only."""
    telling = part == name or not (value in (None, 0, 1, '') or isinstance(value, bool))
    below = isinstance(value, str) and '/' in value and isinstance(node, str) and node.startswith(value)
    return telling and type(node) is type(value) and (node == value or below)

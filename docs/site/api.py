"""The pages of the API: one a package, with what it offers."""

import re

import griffe

REFERENCE = re.compile('identifier="(.+?)"')
WITHOUT_EXPORTS = {
    'vitdense.checkpoint': {'vitdense.checkpoint.translate.convert'},
    'vitdense.config': set(),
    'vitdense.models.layers': set(),
}
"""Packages that offer also what the other packages import from them, and what is named here."""


def page(title: str, room: griffe.Module, package: griffe.Module, elsewhere: tuple[str, ...]) -> str:
    """The Markdown of a ``room`` of the ``package``; what is in the packages ``elsewhere`` has a page of its own."""
    about = room.docstring.value if room.docstring else ''
    paths = _offered(room, package, elsewhere)
    return '\n\n'.join([f'# {title}', f'`{room.path}`', about, *(f'::: {path}' for path in paths)])


def _offered(room: griffe.Module, package: griffe.Module, elsewhere: tuple[str, ...]) -> list[str]:
    """What ``room`` imports from its own modules, with its base classes and what its docstrings refer to."""
    inside = f'{room.path}.'
    aliases = [member for member in room.members.values() if member.is_alias]
    if room.path in WITHOUT_EXPORTS:
        aliases += [alias for alias in _aliases(package) if not alias.path.startswith(inside)]
    waiting = WITHOUT_EXPORTS.get(room.path, set()) | {alias.target_path for alias in aliases}
    # a function that bears the name of its module hides behind it
    waiting |= {module[name].path for name, module in room.modules.items() if name in module.members}
    offered: set[str] = set()
    while waiting:
        path = waiting.pop()
        if not path.startswith(inside) or path.startswith(elsewhere) or path in offered:
            continue
        found = package.modules_collection[path]
        if found.is_alias:
            waiting.add(found.canonical_path)
        elif found.parent.is_module and not found.is_module:
            offered.add(path)
            waiting |= {str(base.canonical_path) for base in getattr(found, 'bases', ())}
            waiting |= set(REFERENCE.findall(found.docstring.value if found.docstring else ''))
    return sorted(offered)


def _aliases(found: griffe.Object) -> list[griffe.Alias]:
    members = found.members.values()
    return [inner for member in members for inner in ([member] if member.is_alias else _aliases(member))]

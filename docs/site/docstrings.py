"""The docstrings' references as links, and the registered names of classes, for the pages of the API."""

import re
from contextlib import suppress

import griffe

ROLE = re.compile(r':(attr|class|func|meth|mod):`(~?)\.?([\w.]+)`')
KINDS = {'class': 'class', 'func': 'function', 'meth': 'function', 'attr': 'attribute', 'mod': 'module'}


class Docstrings(griffe.Extension):
    """Turns the roles of Sphinx into links, wherever a page has the object.

    Raises:
        NameError: roles that name nothing in the package.
    """

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **kwargs: object) -> None:
        self.objects = _walk(pkg)
        self.unknown: list[str] = []
        for found in self.objects:
            if found.docstring:
                found.docstring.value = ROLE.sub(
                    lambda role, found=found: self._link(role, found), found.docstring.value
                )
            elif found.name == 'ARCHS' and found.value is not None:
                found.docstring = griffe.Docstring('The variants.', parent=found)
            if any('.register_module' in str(decorator.value) for decorator in getattr(found, 'decorators', ())):
                found.labels.add(f'{pkg.name}.{found.name}')
        if self.unknown:
            raise NameError('\n'.join(self.unknown))

    def _link(self, role: re.Match, found: griffe.Object) -> str:
        kind, tilde, name = role.groups()
        path = self._path(KINDS[kind], name, found)
        if path is None:
            self.unknown.append(f'{found.path}: {role[0]} names no {KINDS[kind]} of the package, or several')
        shown = name.rpartition('.')[2] if tilde else name
        return f'<autoref optional identifier="{path}"><code>{shown}</code></autoref>'

    def _path(self, kind: str, name: str, found: griffe.Object) -> str | None:
        """Where ``name`` is defined: as seen from ``found``, or else the only object of that name in the package."""
        first, dot, rest = name.partition('.')
        with suppress(griffe.NameResolutionError):
            name = f'{found.resolve(first)}{dot}{rest}'
        with suppress(griffe.AliasResolutionError, KeyError):
            return found.modules_collection[name].canonical_path
        paths = [other.path for other in self.objects if other.kind.value == kind]
        ends = [path for path in paths if path.endswith(f'.{name}')]
        return ends[0] if len(ends) == 1 else None


def _walk(found: griffe.Object) -> list[griffe.Object]:
    own = [member for member in found.members.values() if not member.is_alias]
    return [found, *(inner for member in own for inner in _walk(member))]

"""Reading configs, with answers to wrong names."""

import importlib.util
from pathlib import Path

from mmengine.config import Config

from vitdense.names import nearest


def config_path(name: str) -> Path:
    """File of a config given as a path, or as ``package::path`` within the configs of an installed package.

    Raises:
        FileNotFoundError: no such package or config; the message lists the configs that are there, nearest first.
    """
    package, _, inner = name.rpartition('::')
    if not package:
        path = Path(name)
        root = next((p for p in path.parents if p.is_dir()), Path('.'))
        return _existing(path, root, name)
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f'config {name!r}: the package {package!r} is not installed')
    home = Path(spec.origin).parent
    roots = [root for root in (home / '.mim' / 'configs', home.parent / 'configs') if root.is_dir()]
    if not roots:
        raise FileNotFoundError(f'config {name!r}: the installed {package!r} has no configs')
    return _existing(roots[0] / inner, roots[0], name)


def _existing(path: Path, root: Path, name: str) -> Path:
    if path.is_file():
        return path
    there = {p.relative_to(root).as_posix() for p in root.rglob('*.py') if '_base_' not in p.parts}
    wanted = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    candidates = nearest(wanted, there)[:5]
    found = f'; nearest in {root}: ' + ', '.join(candidates) if candidates else ''
    raise FileNotFoundError(f'no config {name!r}{found}')


def load_config(name: str) -> Config:
    """Read a config, which imports vitdense from now on.

    Raises:
        FileNotFoundError: see :func:`config_path`.
    """
    cfg = Config.fromfile(config_path(name))
    import_vitdense(cfg)
    return cfg


def import_vitdense(cfg: Config) -> None:
    """Make a config import vitdense, so that its dumped copy runs under the tools of mmdet and mmseg as well."""
    known = dict(cfg.get('custom_imports') or {})
    imports = known.get('imports', [])
    imports = [imports] if isinstance(imports, str) else list(imports)
    if 'vitdense' not in imports:
        cfg.custom_imports = dict(known, imports=[*imports, 'vitdense'])

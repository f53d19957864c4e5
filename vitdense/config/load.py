"""Reading configs of all styles, with answers to wrong names."""

import importlib.util
import os
from itertools import islice
from pathlib import Path
from traceback import walk_tb

from mmengine.config import Config

from vitdense.config.python_style import in_text_style
from vitdense.console import silent_imports
from vitdense.names import nearest
from vitdense.untrusted.configs import check_inner

SUFFIXES = ('.py', '.json', '.yaml', '.yml')

MOST_FOLDERS = 500
"""That are looked through for the nearest names to a wrong one."""


def config_path(name: str) -> Path:
    """File of a config given as a path, or as ``package::path`` within the configs of an installed package.

    Raises:
        FileNotFoundError: no such package or config; the message lists the configs that are there, nearest first.
        ValueError: it leads out of the package.
    """
    package, _, inner = name.rpartition('::')
    if not package:
        path = Path(name)
        root = next((p for p in path.parents if p.is_dir()), Path('.'))
        if root == Path('.') and Path('configs').is_dir():
            root = Path('configs')
        return _existing(path, root, name)
    check_inner(name)
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
    wanted = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
    there = {
        p.relative_to(root).as_posix()
        for p in _config_files(root)
        if '_base_' in wanted.parts or '_base_' not in p.parts
    }
    candidates = nearest(wanted.as_posix(), there)[:5]
    found = f'; nearest in {root}: ' + ', '.join(candidates) if candidates else ''
    raise FileNotFoundError(f'no config {name!r}{found}')


def _config_files(root: Path) -> list[Path]:
    """Those below ``root``, of its first folders: where there are more, they are of data."""
    folders = islice(os.walk(root), MOST_FOLDERS)
    return [Path(folder, name) for folder, _, names in folders for name in names if name.endswith(SUFFIXES)]


def load_config(name: str) -> Config:
    """Read a config, which imports vitdense from now on; one in Python style is in text style afterwards.

    Raises:
        FileNotFoundError: see :func:`config_path`.
        ValueError: something in the file or in its base files does not work; the message has the place.
    """
    path = config_path(name)
    try:
        with silent_imports():
            cfg = in_text_style(Config.fromfile(path))
    except Exception as error:  # a config in Python can raise whatever it likes
        raise ValueError(f'config {name!r}: {_fault(error)}') from error
    import_vitdense(cfg)
    return cfg


def _fault(error: Exception) -> str:
    """What is wrong in a config file, and if it can be told, in which file and line."""
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error  # of an import: which module
    text = cause.args[0] if isinstance(cause, KeyError | SyntaxError) and cause.args else cause
    message = f'{type(cause).__name__}: {text}'
    frames = list(walk_tb(error.__traceback__))
    lines = [(frame.f_code.co_filename, line) for frame, line in frames if '__name__' not in frame.f_globals]
    if isinstance(error, SyntaxError):  # mmengine parses files without their names
        files = [str(frame.f_locals.get('filename')) for frame, _ in frames]
        lines = [(file, error.lineno or 1) for file in files if os.path.isfile(file)]
    return f'{lines[-1][0]}, line {lines[-1][1]}: {message}' if lines else message


def import_vitdense(cfg: Config) -> None:
    """Make a config import vitdense, so that its dumped copy runs under the tools of mmdet and mmseg as well."""
    known = dict(cfg.get('custom_imports') or {})
    imports = known.get('imports', [])
    imports = [imports] if isinstance(imports, str) else list(imports)
    if 'vitdense' not in imports:
        cfg.custom_imports = dict(known, imports=[*imports, 'vitdense'])

"""The folder of a run: never one that holds another run, never one that another run is using."""

import itertools
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from glob import escape
from pathlib import Path

from filelock import FileLock, Timeout

from vitdense.files import replacing
from vitdense.untrusted.files import MOST_LABELS, read_regular

LOCK, ABOUT = 'run.lock', 'run.json'

RESUMABLE = ('last.pth', 'previous.pth', 'epoch_*.pth', 'iter_*.pth')
"""Names of checkpoints that a run can go on from."""

LOG = r'\d{8}_\d{6}'
"""The folder of a start, called by its time."""

OF_A_START = re.compile(
    rf'run\.lock|environment\.txt|[^/]*\.(py|json|ya?ml)|clean/.*|{LOG}/([^/]*\.log|vis_data/(config\.py|events\..*))'
)
"""Files that are there before a run has done anything."""

OF_A_RUN = re.compile(
    rf"""run\.json|environment\.txt|last_checkpoint|clean/(train|val|test)_dataloader[^/]*\.(json|txt)|{LOG}/.*|vis_data/.*|
    ((last|previous|unused|best|\.next)|(best|epoch|iter)_[^/]*)\.pth|
    (results|per_class|pr_curves|confusion_matrix|labels|train_batch|val|test)(_[^/]*)?\.(csv|png|jpg)""",
    re.VERBOSE,
)
"""Files that runs write, beside their config."""

CONFIGS = ('.py', '.json', '.yaml', '.yml')


class RunFolder:
    """A work dir, locked for as long as this object lives.

    Attributes:
        path: the folder; it exists and can be written to.
    """

    def __init__(self, path: Path) -> None:
        """Lock ``path``, which is made where it is missing.

        Raises:
            BlockingIOError: another run is using it.
            OSError: it cannot be written to.
        """
        self.path = path
        self._made = [folder for folder in (path, *path.parents) if not folder.exists()]
        try:
            path.mkdir(parents=True, exist_ok=True)
            self.lock = FileLock(path / LOCK)
            self.lock.acquire(timeout=0)
        except Timeout:
            raise BlockingIOError(
                f'work dir {str(path)!r} is in use by another run; choose another --work-dir'
            ) from None
        except OSError as error:
            raise type(error)(f'work dir {str(path)!r} cannot be written to: {error.strerror or error}') from error

    @property
    def about(self) -> dict[str, str]:
        """What the run has said about itself: ``config``, ``folder`` (that was wanted) and ``run``, or nothing."""
        return about(self.path)

    @classmethod
    def fresh(cls, path: str, overwrite: bool = False, config: str = '') -> 'RunFolder':
        """A folder for a new run: ``path``, or where that holds anything ``path_run2``, ``path_run3``, ...

        Args:
            path: the wanted folder.
            overwrite: remove what an earlier run wrote in ``path`` instead.
            config: name of the config, without suffix.

        Raises:
            FileExistsError: ``overwrite``, and ``path`` holds something that is no run; or it is the folder of this
                process, and not empty.
        """
        wanted = named(path)
        if overwrite:
            if _holds_files(wanted) and not (wanted / LOCK).is_file():
                raise FileExistsError(f'--overwrite: {path!r} holds files but no run; choose another --work-dir')
            folder = cls(wanted)
            _remove_run(wanted)
            return folder._begun(wanted, config)
        if _holds_files(wanted) and Path.cwd().is_relative_to(wanted.resolve()):
            raise FileExistsError(f'--work-dir {path}: this folder is not empty; name one for the run')
        for number in itertools.count(2):
            if not _holds_files(wanted):
                with suppress(BlockingIOError):  # another run took it a moment ago
                    return cls(wanted)._begun(named(path), config)
            wanted = named(path).with_name(f'{named(path).name}_run{number}')
        raise AssertionError

    def _begun(self, wanted: Path, config: str) -> 'RunFolder':
        content = dict(config=config, folder=wanted.name, run=uuid.uuid4().hex)
        try:
            with replacing(self.path / ABOUT) as part:
                part.write_text(json.dumps(content) + '\n', encoding='utf-8')
        except OSError:
            self.leave(failed=True)
            raise
        return self

    def leave(self, failed: bool = False) -> None:
        """Give the folder free.

        Args:
            failed: remove it, and folders around it that were made for it, unless it was there before or holds more
                than what a start leaves: any result, picture or checkpoint.
        """
        if failed and self._made and all(map(OF_A_START.fullmatch, _files(self.path))):
            shutil.rmtree(self.path, ignore_errors=True)
            for folder in self._made[1:]:
                with suppress(OSError):  # another run is in it
                    folder.rmdir()
        self.lock.release()

    @classmethod
    def latest(cls, path: str, config: str = '', default: str = '') -> 'RunFolder':
        """The last of ``path``, ``path_run2``, ``path_run3``, ... that is a run of this and holds a checkpoint.

        Args:
            path: the wanted folder.
            config: name of the config, without suffix.
            default: name of the folder where nobody wants another one. Runs of it were called ``path2``, ``path3``, ...
                once; they are told from those of other configs by the config in them.

        Raises:
            FileNotFoundError: none does.
        """
        wanted = named(path)
        runs = {(0, 1): wanted}
        for sibling in wanted.parent.glob(f'{escape(wanted.name)}*'):
            end = re.fullmatch(r'(_run)?(\d+)', sibling.name.removeprefix(wanted.name))
            if not end or not sibling.is_dir():
                continue
            said = about(sibling)
            if said:
                ours = said.get('folder') == wanted.name
            else:
                ours = wanted.name == default and any((sibling / f'{config}{suffix}').is_file() for suffix in CONFIGS)
            if ours:
                runs[bool(end[1]), int(end[2])] = sibling
        for _, run in sorted(runs.items(), reverse=True):
            if any(any(run.glob(name)) for name in RESUMABLE):
                return cls(run)
        raise FileNotFoundError(f'--resume: no checkpoint in {path!r}, so there is no run to go on with')


def named(path: str) -> Path:
    """The folder that ``path`` stands for, which has a name; ``~`` is that of the user.

    Raises:
        ValueError: PyTorch and the log cannot write this name, because it is no text.
    """
    folder = Path(path).expanduser()
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(folder).decode(errors='backslashreplace')
        raise ValueError(f"work dir '{shown}': its name, or that of a folder above it, is not in UTF-8") from None
    return folder if folder.name not in ('', '..') else folder.resolve()


def about(folder: Path) -> dict[str, str]:
    """What the run in a folder has said about itself; nothing where it is none, or of an earlier version."""
    try:
        content = json.loads(read_regular(folder / ABOUT, MOST_LABELS))
    except (OSError, ValueError, RecursionError):
        return {}
    return {key: value for key, value in content.items() if isinstance(value, str)} if isinstance(content, dict) else {}


def is_run_of(folder: Path, wanted: str) -> bool:
    """Whether the run in a folder is the first or a later one of the folder that was ``wanted``."""
    path = named(wanted).absolute()
    return folder.absolute() == path or (
        folder.absolute().parent == path.parent and about(folder).get('folder') == path.name
    )


def _remove_run(folder: Path) -> None:
    """Remove what a run wrote in a folder; what else is there stays."""
    config = about(folder).get('config')
    for name in list(_files(folder)):
        of_config = config and Path(name).stem == config and Path(name).suffix in CONFIGS and '/' not in name
        if OF_A_RUN.fullmatch(name) or of_config:
            (folder / name).unlink()
    for path in sorted(folder.rglob('*'), reverse=True):
        if (
            path.is_dir()
            and not path.is_symlink()
            and re.match(rf'(clean|vis_data|{LOG})(/|$)', _relative(path, folder))
        ):
            with suppress(OSError):  # it holds something else
                path.rmdir()


def _files(folder: Path) -> Iterator[str]:
    """Paths of the files in a folder and below it, links among them, which are not followed."""
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if Path(place, name).is_symlink()]
        for name in (*files, *links):
            yield _relative(Path(place, name), folder)


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _holds_files(folder: Path) -> bool:
    return folder.exists() and (
        not folder.is_dir() or any(entry.name not in (LOCK, ABOUT) for entry in folder.iterdir())
    )

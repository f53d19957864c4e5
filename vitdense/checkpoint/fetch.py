"""Where a checkpoint is: a release, a URL, a file of the hub or a path."""

import hashlib
import re
from pathlib import Path
from urllib.parse import urlparse

import torch
from filelock import FileLock

from vitdense.checkpoint.hub import HubFile, hub_file
from vitdense.checkpoint.layouts import RELEASES
from vitdense.checkpoint.read import UnfitError, reader_of
from vitdense.files import checkpoints_in, replacing
from vitdense.names import nearest

HASH = re.compile(r'-(?!20\d{6}\.)([0-9a-f]{8,})\.')
"""The start of its SHA-256 in the name of a file, as ``torch.hub`` has it; eight digits from 20 on are a date."""

SOURCE = '.source'
"""After the name of a download, a file with the address that it came from."""


def fetch(checkpoint: str) -> Path:
    """Local path of a checkpoint; downloads at most once, also with several processes.

    Args:
        checkpoint: a key of ``RELEASES``, a path, a URL, or a file on the hub of Hugging Face: its address, or
            ``hf-hub:OWNER/NAME[@REVISION][/FILE]``. Downloads are kept in ``torch.hub.get_dir()/checkpoints``, where
            those of the hub are looked for before they go into its own cache. Where the name of a file has a hash, as
            in ``detr-r50-e632da11.pth``, the content has to have it, too.

    Raises:
        FileNotFoundError: no such file; the message lists the checkpoints beside it or the releases, nearest first.
        ValueError: a folder, a URL without a file name, or one of another scheme.
        ConnectionError: the download failed, or what came is no file of weights; the message says which file to fetch
            and where to put it. Nothing is left behind.
    """
    url = RELEASES.get(str(checkpoint), str(checkpoint))
    on_hub = hub_file(url)
    if on_hub is not None:
        return _from_hub(url, on_hub)
    if urlparse(url).scheme not in ('http', 'https'):
        place = url.removeprefix('file://')
        if '://' in place:
            raise ValueError(
                f'checkpoint {url}: expected a path, a URL of http or https, hf-hub:OWNER/NAME or the name of a release'
            )
        return _existing(Path(place).expanduser())
    first = _downloads() / _file_name(url)
    path = _place_of(url, first)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f'{first}.lock'):
            path = _place_of(url, first)
            if not path.is_file():
                _download(url, path)
    return path


def _downloads() -> Path:
    return Path(torch.hub.get_dir()) / 'checkpoints'


def _file_name(url: str) -> str:
    name = urlparse(url).path.rpartition('/')[2]
    if not name:
        raise ValueError(f'checkpoint {url} is a folder, expected the URL of a file')
    return name


def _place_of(url: str, first: Path) -> Path:
    """``first``, unless that came from another address: many files are called ``best.pth``."""
    source = first.with_name(f'{first.name}{SOURCE}')
    if not first.is_file() or not source.is_file() or source.read_text(encoding='utf-8') == _address(url):
        return first
    return first.with_name(f'{hashlib.sha256(_address(url).encode()).hexdigest()[:8]}_{first.name}')


def _address(url: str) -> str:
    """Without the query, which may have a signature that is new each time."""
    return url.partition('?')[0]


def _from_hub(name: str, file: HubFile) -> Path:
    by_hand = [_downloads() / copy for copy in file.kept_as()]
    for path in by_hand:
        if path.is_file():
            return path
    try:
        return file.fetch()
    except ConnectionError as error:
        raise _failed(name, error, by_hand[0]) from error
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f'checkpoint {name}: {error}') from None


def _existing(path: Path) -> Path:
    if path.is_file():
        return path
    if path.is_dir():
        raise ValueError(f'checkpoint {path} is a folder, expected a file{checkpoints_in(path, path.name)}')
    bare = len(path.parts) == 1
    hint = checkpoints_in(path.absolute().parent, path.name)
    if bare:
        hint += f'; official releases, nearest first: {", ".join(nearest(path.stem, RELEASES)[:4])}, ...'
    elif 'work_dirs' in path.parts and not hint:
        hint = f'; the run {path.parent.name!r} writes it and has to come first'
    raise FileNotFoundError(f'no checkpoint file {str(path if bare else path.absolute())!r}{hint}')


def _download(url: str, path: Path) -> None:
    """Nothing appears at ``path`` before it is whole."""
    known = HASH.search(path.name)
    try:
        with replacing(path) as part:
            torch.hub.download_url_to_file(url, str(part), hash_prefix=known and known[1])
            reader_of(part)
            if not known:
                path.with_name(f'{path.name}{SOURCE}').write_text(_address(url), encoding='utf-8')
    except Exception as error:
        raise _failed(url, f'what came {error}' if isinstance(error, UnfitError) else error, path) from error


def _failed(name: str, why: object, path: Path) -> ConnectionError:
    return ConnectionError(
        f'could not download {name} ({why}).\nFetch that file on a machine with internet access and put it at {path}, '
        'or name the path of a copy; a training can do without pretrained weights (--no-pretrained).'
    )

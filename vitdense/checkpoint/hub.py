"""Files on the hub of Hugging Face, by the name that timm has for them or by the address of a page."""

import re
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse
from urllib.request import getproxies

from vitdense.files import WEIGHTS
from vitdense.names import brief, listed, nearest

NAME = re.compile(r'hf[-_]hub:(?P<model>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?(/(?P<file>.+))?')
PAGE = re.compile(
    r'https?://(www\.)?(huggingface\.co|hf\.co)/(?!datasets/|spaces/)(?P<model>[^/?]+/[^/?]+)'
    r'(/(resolve|blob|raw|tree)/(?P<revision>[^/?]+))?(/(?P<file>[^?]+?))?/?(\?.*)?'
)
FILES = ('model.safetensors', 'pytorch_model.bin')
"""What weights are called there; the first that a model has is taken."""


@dataclass(frozen=True)
class HubFile:
    """A file of weights on the hub.

    Attributes:
        model: owner and name of its model.
        revision: branch, tag or commit.
        file: its path within the model, None for one of ``FILES``.
    """

    model: str
    revision: str = 'main'
    file: str | None = None

    def names(self) -> tuple[str, ...]:
        """Paths within the model that it may have."""
        return FILES if self.file is None else (self.file,)

    def kept_as(self) -> list[str]:
        """What copies of it are called, with the name of the model in front: ``model.safetensors`` are nearly all."""
        return [f'{self.model.partition("/")[2]}_{Path(name).name}' for name in self.names()]

    def fetch(self) -> Path:
        """Path of the copy in the cache of ``huggingface_hub``, which downloads it where that has none.

        Raises:
            FileNotFoundError: there is no such model, revision or file.
            ConnectionError: the hub cannot be reached, or refuses.
            ValueError: no model can have this name.
        """
        from huggingface_hub import errors, hf_hub_download, try_to_load_from_cache

        try:
            for name in self.names():
                there = try_to_load_from_cache(self.model, name, revision=self.revision)
                if isinstance(there, str):
                    return Path(there)
            _check_address()
            for name in self.names():
                try:
                    return Path(hf_hub_download(self.model, name, revision=self.revision))
                except errors.RemoteEntryNotFoundError:
                    continue
        except errors.GatedRepoError as error:
            raise ConnectionError(f'{self.model} is for those who were granted access: set HF_TOKEN') from error
        except errors.RepositoryNotFoundError:
            raise FileNotFoundError(f'the hub has no model {self.model!r}; of a private one, set HF_TOKEN') from None
        except errors.RevisionNotFoundError:
            raise FileNotFoundError(f'{self.model} has no revision {self.revision!r}') from None
        except errors.HFValidationError as error:
            raise ValueError(brief(error)) from None
        except (errors.LocalEntryNotFoundError, errors.HfHubHTTPError) as error:
            raise ConnectionError(f'not in the cache, and {_why(error)}') from error
        raise FileNotFoundError(f'{self.model} has no {" and no ".join(self.names())}{self._others()}')

    def _others(self) -> str:
        """For the end of a message: the weights that the model has, nearest first."""
        from huggingface_hub import list_repo_files

        try:
            there = [name for name in list_repo_files(self.model, revision=self.revision) if name.endswith(WEIGHTS)]
        except Exception:  # the message is about something else
            return ''
        return f'; there is {listed(nearest(self.names()[0], there), 5)}' if there else ', nor other weights'


def hub_file(name: str) -> HubFile | None:
    """The file that ``hf-hub:OWNER/NAME[@REVISION][/FILE]`` or the address of a page means, None if it is neither.

    Raises:
        ValueError: it begins so, but goes on otherwise.
    """
    found = NAME.fullmatch(name) or PAGE.fullmatch(name)
    if found:
        parts = {key: unquote(value) for key, value in found.groupdict().items() if value}
        return HubFile(**parts)
    if re.match('hf[-_]hub:', name):
        raise ValueError(f'checkpoint {name}: expected hf-hub:OWNER/NAME[@REVISION][/FILE]')
    return None


def _check_address() -> None:
    """Look whether the hub has an address: without a network, ``huggingface_hub`` asks for it for half a minute.

    Raises:
        ConnectionError: it has none, nor is there a proxy that may know it.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or getproxies():
        return
    host = urlparse(constants.ENDPOINT).hostname
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        raise ConnectionError(f'not in the cache, and {host} cannot be reached: {error.strerror}') from error


def _why(error: Exception) -> str:
    from huggingface_hub.errors import OfflineModeIsEnabled

    cause = error.__cause__
    if isinstance(cause, OfflineModeIsEnabled):
        return 'HF_HUB_OFFLINE is set'
    return f'the hub cannot be reached: {brief(cause if isinstance(cause, Exception) else error)}'

"""The error of an operator that the stand-in does not have."""

from collections.abc import Callable
from importlib import metadata
from typing import Any, NoReturn

UPSTREAM_PAGE = 'https://github.com/open-mmlab/mmcv/blob/v2.1.0/docs/en/get_started/build.md'
BUILDS = {  # distribution without operators -> (distribution to compile, instructions)
    'onedl-mmcv': ('onedl-mmcv', 'https://onedl-mmcv.readthedocs.io/en/latest/'),
    'mmcv-lite': ('mmcv', UPSTREAM_PAGE),
    'mmcv': ('mmcv', UPSTREAM_PAGE),
}


class OpNotAvailableError(NotImplementedError):
    """An operator of mmcv was called that needs mmcv's compiled library."""


def unavailable(name: str) -> Callable[..., NoReturn]:
    """Return a function that raises :class:`OpNotAvailableError` for operator ``name`` when it is called."""

    def op(*args: Any, **kwargs: Any) -> NoReturn:
        raise OpNotAvailableError(message(name))

    op.__name__ = op.__qualname__ = name
    return op


def message(name: str) -> str:
    """Name the operator and say how to get it."""
    return (
        f'The operator {name} of mmcv is not available: the installed mmcv has no compiled operators (mmcv._ext), '
        f'and what vitdense puts in their place does not include it. {_remedy()}'
    )


def _remedy() -> str:
    for lite, (full, page) in BUILDS.items():
        try:
            version = metadata.version(lite)
        except metadata.PackageNotFoundError:
            continue
        return (
            'Compile mmcv with its operators (needs a C++ compiler, and nvcc for CUDA): '
            f'pip uninstall -y {lite} && MMCV_WITH_OPS=1 pip install --no-cache-dir --no-build-isolation '
            f'--no-binary {full} {full}=={version}; see {page}'
        )
    return f'Install an mmcv that is compiled with its operators; see {UPSTREAM_PAGE}'

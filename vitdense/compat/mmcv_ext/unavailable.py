"""The error of an operator that the stand-in does not have."""

from importlib import metadata

BUILDS = {  # distribution without operators -> (distribution to compile, instructions)
    'onedl-mmcv': ('onedl-mmcv', 'https://onedl-mmcv.readthedocs.io/en/latest/get_started/build.html'),
    'mmcv-lite': ('mmcv', 'https://mmcv.readthedocs.io/en/v2.1.0/get_started/build.html'),
    'mmcv': ('mmcv', 'https://mmcv.readthedocs.io/en/v2.1.0/get_started/build.html'),
}


class OpNotAvailableError(NotImplementedError):
    """An operator of mmcv was called that needs mmcv's compiled library."""


def unavailable(name: str):
    """Return a function that raises :class:`OpNotAvailableError` for operator ``name`` when it is called."""

    def op(*args, **kwargs):
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
            f'pip uninstall -y {lite} && '
            f'MMCV_WITH_OPS=1 pip install --no-build-isolation --no-binary {full} {full}=={version}; see {page}'
        )
    return f'Install an mmcv that is compiled with its operators; see {BUILDS["mmcv"][1]}'

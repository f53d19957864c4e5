"""Which packages must be there, and what to tell a user who lacks one."""

import importlib.util
import re
from importlib import metadata

STACK = ('mmengine', 'mmcv')

NEEDS = {
    **dict.fromkeys(('LVISV05Dataset', 'LVISMetric', 'LVISFixedAPMetric'), ('lvis', 'lvis')),
    **dict.fromkeys(
        ('CocoPanopticMetric', 'LoadPanopticAnnotations'),
        ('panopticapi', 'git+https://github.com/cocodataset/panopticapi.git'),
    ),
    **dict.fromkeys(('CityScapesMetric', 'CityscapesMetric'), ('cityscapesscripts', 'cityscapesscripts')),
    **dict.fromkeys(('DSDLDetDataset', 'DSDLSegDataset'), ('dsdl', 'dsdl')),
    'COCOCaptionMetric': ('pycocoevalcap', 'pycocoevalcap'),
    'DODDataset': ('d_cube', 'ddd-dataset'),
    'InstaBoost': ('instaboostfast', 'instaboostfast'),
    'Albu': ('albumentations', 'albumentations'),
}
"""Modules without which parts of mmdet and mmseg cannot be built, and what pip calls them, by the names of types."""


def has_stack() -> bool:
    """Whether any package of the stack is installed."""
    return any(map(_installed, STACK))


def check() -> None:
    """Check that the packages behind every OpenMMLab model are installed and load.

    mmdet and mmseg are not checked: a user of one of them need not have the other.

    Raises:
        ImportError: with the command that repairs the installation.
    """
    _check_installed()
    _check_cv2_loads()
    _check_pkg_resources()


def missing_package(kind: type) -> str | None:
    """What to give to ``pip install`` before a part of a config can be built; ``None`` if it lacks nothing known.

    Args:
        kind: the class of a data set, transform, metric or the like.
    """
    needed = (NEEDS[base.__name__] for base in kind.__mro__ if base.__name__ in NEEDS)
    return next((package for module, package in needed if not _installed(module)), None)


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _check_installed() -> None:
    missing = [name for name in STACK if not _installed(name)]
    if missing:
        raise ImportError(
            f'vitdense needs the OpenMMLab stack, and {" and ".join(missing)} cannot be found. '
            'Install it with: pip install "vitdense[openmmlab]"',
            name=missing[0],
        )
    if not _installed('torchvision'):
        raise ImportError(
            'vitdense needs torchvision (nms, RoIAlign, deformable convolution), and it cannot be found. '
            'Install the release that belongs to your torch: pip install torchvision',
            name='torchvision',
        )


def _check_cv2_loads() -> None:
    try:
        import cv2  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != 'cv2':
            raise
        raise ImportError(
            'mmcv needs OpenCV, and cv2 cannot be found. Install it with: pip install opencv-python-headless',
            name='cv2',
        ) from error
    except ImportError as error:
        library = re.search(r'lib[\w.+-]*\.so[\w.]*', str(error))
        if library is None:
            raise
        raise ImportError(
            f'OpenCV is installed, but its system library {library[0]} is missing. Install the build without a window '
            'system: pip uninstall -y opencv-python opencv-python-headless && '
            'pip install --force-reinstall opencv-python-headless; or install the libraries: '
            'apt-get install libgl1 libglib2.0-0',
            name='cv2',
        ) from error


def _check_pkg_resources() -> None:
    """Upstream's mmengine calls pkg_resources, which setuptools 81 no longer has; the continuation does not."""
    try:
        version = metadata.version('mmengine')
    except metadata.PackageNotFoundError:
        return
    if not _installed('pkg_resources'):
        raise ImportError(
            f'mmengine {version} needs pkg_resources, which comes with setuptools before 81. '
            "Install it with: pip install 'setuptools<81'",
            name='pkg_resources',
        )

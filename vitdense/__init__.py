"""Vision transformers for dense prediction, as a plugin of the OpenMMLab stack.

Importing the package registers nothing heavy: it makes mmcv importable where it has no compiled ops, and that is all.
"""

from vitdense import compat
from vitdense.version import __version__

__all__ = ['__version__']

compat.install()

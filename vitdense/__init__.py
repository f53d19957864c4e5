"""Vision transformers for dense prediction, as a plugin of the OpenMMLab stack.

Importing the package checks that the stack is there, and prepares it for current PyTorch in the whole process:

- ``mmcv._ext`` can be imported where mmcv has no compiled operators;
- mmcv's multi-scale deformable attention is computed by our operator, on CPUs and wherever mmcv has no kernel for it;
- mmengine reads weights by our reader, converts those for our models, and refuses a file of which nothing fits;
- ``torch.load`` trusts the log history, plain numbers, that mmengine keeps in its checkpoints;
- ``mmseg::`` in configs finds onedl-mmsegmentation, and Python 3.14 has ``pkgutil.find_loader`` for mmcv.

The import takes a fraction of a second: it loads OpenCV, to see whether that works, and neither torch nor a package of
the stack. It registers nothing and builds nothing.
"""

from vitdense import compat
from vitdense.predict import Result, load
from vitdense.version import __version__

__all__ = ['Result', '__version__', 'load']

compat.install()

"""Vision transformers for dense prediction, as a plugin of the OpenMMLab stack.

Importing the package checks the stack, and prepares it for current PyTorch in the whole process:

- ``mmcv._ext`` can be imported where mmcv has no compiled operators;
- mmcv's multi-scale deformable attention is computed by our operator, on CPUs and wherever mmcv has no kernel for it;
- mmengine reads weights by our reader, converts those for our models, and refuses a file of which nothing fits;
- no file of data runs code: mmengine reads pickles, YAML and checkpoints as plain values, and builds classes alone;
- OpenCV refuses pictures of more than 2 ** 28 pixels, unless ``OPENCV_IO_MAX_IMAGE_PIXELS`` says otherwise;
- ``torch.load`` trusts the log history, plain numbers, that mmengine keeps in its checkpoints;
- ``mmseg::`` in configs finds onedl-mmsegmentation, and Python 3.14 has ``pkgutil.find_loader`` for mmcv.

The import takes a fraction of a second: it loads OpenCV, to see whether that works, and neither torch nor a package of
the stack. It registers nothing and builds nothing. Where nothing of the stack is installed, exported models can be used
nevertheless.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vitdense import compat
from vitdense.version import __version__

if TYPE_CHECKING:
    import torch

    from vitdense.predict import Predictor

__all__ = ['__version__', 'load']

compat.install()


def load(
    source: str | os.PathLike, checkpoint: str | os.PathLike | None = None, device: str | torch.device | None = None
) -> Predictor:
    """Load a trained model, see :func:`vitdense.predict.load`."""
    from vitdense import predict

    return predict.load(source, checkpoint, device)

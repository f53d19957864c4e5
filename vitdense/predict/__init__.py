"""What a trained model is for: from a picture to what is in it.

``sources.py`` and ``decoding.py`` say what can be a picture, ``predictor.py`` how they go through a model in batches,
``model.py`` is one in PyTorch, ``load.py`` finds it, ``results.py`` is what comes out, and ``tiles.py`` is for large
pictures. All but ``model.py`` do without PyTorch.
"""

from .decoding import ImageError
from .load import load
from .predictor import Predictor
from .results import Result

__all__ = ['ImageError', 'Predictor', 'Result', 'load']

"""An exported model in onnxruntime. Neither PyTorch nor the OpenMMLab packages are needed."""

import os

import numpy as np

from .exported import KEY, ExportedModel


class OnnxModel(ExportedModel):
    """An ONNX file of ``vitdense export``, see :func:`vitdense.load`.

    Attributes:
        names, palette, task, iou_threshold: see :class:`Predictor`.
        path: of the file.
        session: of onnxruntime.
    """

    def __init__(self, path: str | os.PathLike, device: str | None = None) -> None:
        """Load ``path``.

        Raises:
            ImportError: onnxruntime is not installed.
            ValueError: it is no ONNX file, or not one of vitdense.
        """
        try:
            import onnxruntime
        except ImportError:
            raise ImportError('ONNX files need onnxruntime: pip install onnxruntime') from None
        self.path = path
        wanted = ['CUDAExecutionProvider'] if str(device or '').startswith('cuda') else []
        try:
            self.session = onnxruntime.InferenceSession(os.fspath(path), providers=[*wanted, 'CPUExecutionProvider'])
        except Exception as error:  # onnxruntime has its own classes
            raise ValueError(f'{path} is no ONNX file that onnxruntime can run: {error}') from None
        facts = self.session.get_modelmeta().custom_metadata_map.get(KEY)
        if facts is None:
            raise ValueError(
                f'{path} is an ONNX file, but none of `vitdense export`: its metadata do not say what it is'
            )
        super().__init__(facts)

    def run(self, image: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
        """Outputs of the graph, see :class:`.exported.ExportedModel`."""
        feed = {'image': image}
        if self.task == 'semantic segmentation':
            feed['size'] = np.array(size, np.int64)
        return self.session.run(None, feed)

"""An exported model in onnxruntime. Neither PyTorch nor the OpenMMLab packages are needed."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from . import seal
from .exported import KEY, ExportedModel

Provider = str | tuple[str, dict[str, Any]]


class OnnxModel(ExportedModel):
    """An ONNX file of ``vitdense export``, see :func:`vitdense.load`.

    Attributes:
        names, palette, task, iou_threshold, device, engine: see :class:`Predictor`.
        path: of the file.
        session: of onnxruntime.
    """

    engine = 'onnxruntime'

    def __init__(self, path: str | os.PathLike, device: str | None = None) -> None:
        """Load ``path``.

        Raises:
            ImportError: onnxruntime is not installed.
            ValueError: it is no ONNX file, not one of vitdense, or damaged; or the device cannot be used.
        """
        try:
            import onnxruntime
        except ImportError:
            raise ImportError('ONNX files need onnxruntime: pip install onnxruntime') from None
        self.path = path
        self._options: Any = None
        self.device = device or 'cpu'
        providers = providers_of(self.device, onnxruntime.get_available_providers())
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = int(os.environ.get('OMP_NUM_THREADS') or 0)  # as PyTorch; 0 means all cores
        settings.add_session_config_entry('session.force_spinning_stop', '1')  # its threads wait without computing
        seal.check(path)
        try:
            self.session = onnxruntime.InferenceSession(os.fspath(path), settings, providers=providers)
        except Exception as error:  # onnxruntime has its own classes
            raise ValueError(f'{path} is no ONNX file that onnxruntime can run: {error}') from None
        facts = self.session.get_modelmeta().custom_metadata_map.get(KEY)
        if facts is None:
            raise ValueError(
                f'{path} is an ONNX file, but none of `vitdense export`: its metadata do not say what it is'
            )
        super().__init__(facts, path)

    @contextmanager
    def giving_back(self) -> Iterator[None]:
        """Within it, no memory is kept from one batch for the next."""
        import onnxruntime

        self._options = onnxruntime.RunOptions()
        self._options.add_run_config_entry('memory.enable_memory_arena_shrinkage', 'cpu:0')
        try:
            yield
        finally:
            self._options = None

    def run(self, image: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
        """Outputs of the graph, see :class:`.exported.ExportedModel`."""
        feed = {'image': image}
        if self.task == 'semantic segmentation':
            feed['size'] = np.array(size, np.int64)
        return self.session.run(None, feed, self._options)


def providers_of(device: str, there: Sequence[str]) -> list[Provider]:
    """What onnxruntime computes with on a device: 'cpu', 'cuda' or 'cuda:1'.

    Raises:
        ValueError: another device, or a GPU where ``there``, which is installed, has none.
    """
    kind, _, number = device.partition(':')
    if kind not in ('cpu', 'cuda') or not (number or '0').isdigit():
        raise ValueError(f'device {device!r}: expected cpu, cuda, cuda:1, ...')
    if kind == 'cpu':
        return ['CPUExecutionProvider']
    if 'CUDAExecutionProvider' not in there:
        raise ValueError(f'device {device!r} cannot be used: pip install onnxruntime-gpu brings it, found {there}')
    return [('CUDAExecutionProvider', {'device_id': int(number or 0)}), 'CPUExecutionProvider']

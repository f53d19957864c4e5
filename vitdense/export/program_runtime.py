"""An exported program in PyTorch. The OpenMMLab packages are not needed."""

import os
from pathlib import Path

import numpy as np
import torch
from torch.export.passes import move_to_device_pass

from vitdense.ops import ms_deform_attn  # noqa: F401  it registers an operator, as do the next

from . import nms, roi_align, soft_nms  # noqa: F401
from .archive import check
from .exported import KEY, ExportedModel


class ProgramModel(ExportedModel):
    """A ``.pt2`` file of ``vitdense export``, see :func:`vitdense.load`.

    Attributes:
        names, palette, task, iou_threshold: see :class:`Predictor`.
        path: of the file.
        device: where it computes.
    """

    def __init__(self, path: str | os.PathLike, device: torch.device | str | None = None) -> None:
        """Load ``path``.

        Raises:
            ValueError: it is no program of ``vitdense export``, or has something that could run other code.
        """
        self.path = path
        check(Path(path))
        extra = {KEY: ''}
        try:
            program = torch.export.load(path, extra_files=extra)
        except Exception as error:  # whatever it makes of a damaged file
            raise ValueError(f'{path} cannot be read: {type(error).__name__}: {error}') from None
        super().__init__(extra[KEY], path)
        self.device = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
        if self.device.type != 'cpu':
            program = move_to_device_pass(program, str(self.device))
        # The guards say which sizes were recorded, not which ones work.
        self.module = program.module(check_guards=False)

    def run(self, image: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
        """Outputs of the graph, see :class:`.exported.ExportedModel`."""
        inputs = [torch.from_numpy(image).to(self.device)]
        if self.task == 'semantic segmentation':
            inputs.append(torch.tensor(size))
        with torch.inference_mode():
            outputs = self.module(*inputs)
        return [one.cpu().numpy() for one in (outputs if isinstance(outputs, tuple | list) else [outputs])]

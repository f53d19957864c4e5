"""A trained model in PyTorch, of any config of mmdet, mmseg or vitdense."""

import threading
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope
from torch import nn

from vitdense.console import silent_imports
from vitdense.models.tasks import PANOPTIC, SEMANTIC, task_of
from vitdense.registry import bare_type, nearest_type_names
from vitdense.visualization.palette import class_colors, class_names

from .pipeline import test_steps
from .predictor import Predictor
from .results import IGNORED, Result
from .sources import Frame

OF_SIZE = ('Resize', 'Pad', 'Crop')
"""In the names of transforms that change the size of a picture."""


class Model(Predictor):
    """A trained detector or segmentor, see :func:`vitdense.load`.

    Attributes:
        names, palette, task, iou_threshold, device, engine: see :class:`Predictor`.
        cfg: its config.
        steps: of its test pipeline, after what loads the image.
        network: the model of mmdet or mmseg, in evaluation mode.
    """

    def __init__(self, cfg: Config, network: nn.Module, meta: Mapping[str, Any], device: torch.device) -> None:
        """Use a built model, whose weights are loaded; ``meta`` is that of its data set, with classes and palette.

        Raises:
            ValueError: the config has no pipeline of a test or of a validation.
        """
        self.cfg = cfg
        self.device = device
        self.network: Any = network.to(device).eval().requires_grad_(False)
        self.names, self.palette = tuple(class_names(meta)), tuple(class_colors(meta))
        self.task = task_of(network)
        self.iou_threshold = _nms_threshold(cfg.model)
        self.steps, self._loader = test_steps(cfg)
        self._build_pipeline()

    @property
    def scope(self) -> str:
        """Where types without a prefix are looked for."""
        return self.cfg.get('default_scope') or 'mmengine'

    def _build_pipeline(self) -> None:
        """Not in the threads that prepare pictures: all threads have one default scope."""
        with DefaultScope.overwrite_default_scope(self.scope), silent_imports(), nearest_type_names():
            self._pipeline = Compose(self.steps)
        self._pipelines = threading.local()

    def prepare(self, frame: Frame) -> dict[str, Any]:
        """What the pipeline of the test makes of a picture."""
        if not hasattr(self._pipelines, 'run'):  # transforms may remember what they did last: one set a thread
            self._pipelines.run = deepcopy(self._pipeline)
        image, hw = frame.image, frame.image.shape[:2]
        if self._loader.get('color_type') == 'grayscale':
            image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        if self._loader.get('to_float32'):
            image = image.astype(np.float32)
        return self._pipelines.run(
            dict(img=image, img_path=frame.path, img_id=0, img_shape=hw, ori_shape=hw, height=hw[0], width=hw[1])
        )

    def fix_size(self, hw: tuple[int, int]) -> None:
        """Put one resizing in the place of what changes the size in a test, see :class:`Predictor`."""
        resize = ConfigDict(type='Resize', scale=hw[::-1], keep_ratio=False)
        others = [step for step in self.steps if not any(word in bare_type(step) for word in OF_SIZE)]
        self.steps = [resize, *others]
        self._build_pipeline()

    def infer(self, frames: Sequence[Frame], inputs: Sequence[Any], threshold: float) -> list[Result]:
        """Predict a batch, see :class:`Predictor`."""
        samples = self._samples(inputs)
        return [self._result(frame, sample, threshold) for frame, sample in zip(frames, samples, strict=True)]

    def semantic_scores(self, frames: Sequence[Frame]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Label and score of each pixel, see :class:`Predictor`."""
        inputs = [self.prepare(frame) for frame in frames]
        found = []
        for sample in self._samples(inputs):
            scores = sample.seg_logits.data  # of one class they are shares already
            best = torch.maximum(scores, 1 - scores)[0] if len(scores) == 1 else scores.softmax(0).amax(0)
            found.append((sample.pred_sem_seg.data[0].cpu().numpy(), best.float().cpu().numpy()))
        return found

    def _samples(self, inputs: Sequence[Any]) -> list[Any]:
        """Predicted data samples of prepared pictures; one size after the other where the model pads none."""
        sizes = [one['inputs'].shape for one in inputs] if self.task == SEMANTIC else [()] * len(inputs)
        samples: list[Any] = [None] * len(inputs)
        with DefaultScope.overwrite_default_scope(self.scope), torch.inference_mode():
            for size in dict.fromkeys(sizes):
                places = [i for i, other in enumerate(sizes) if other == size]
                found = self.network.test_step(pseudo_collate([inputs[i] for i in places]))
                for i, sample in zip(places, found, strict=True):
                    samples[i] = sample
        return samples

    def _result(self, frame: Frame, sample: Any, threshold: float) -> Result:
        parts: dict[str, np.ndarray] = {}
        instances = sample.get('pred_instances')
        if self.task != PANOPTIC and instances is not None and 'labels' in instances:
            parts = _detections(instances, threshold)
        semantic = sample.get('pred_panoptic_seg') or sample.get('pred_sem_seg')
        if semantic is not None and not parts:
            values = semantic.get('sem_seg') if 'sem_seg' in semantic else semantic.data
            parts = self._map(values.squeeze(0).cpu().numpy(), frame.image.shape[:2])
        return Result(frame.image, frame.path, self.names, self.palette, number=frame.number, **parts)

    def _map(self, values: np.ndarray, hw: tuple[int, int]) -> dict[str, np.ndarray]:
        """A semantic map; of a panoptic one the classes, and the mask of each segment of a thing."""
        kind = self.map_type
        if self.task != PANOPTIC:
            return dict(semantic_map=values.astype(kind))
        from mmdet.evaluation.functional import INSTANCE_OFFSET

        labels = values % INSTANCE_OFFSET
        ignored = IGNORED if kind is np.uint8 else -1
        segments = [number for number in np.unique(values).tolist() if number >= INSTANCE_OFFSET]
        masks = np.stack([values == number for number in segments]) if segments else np.zeros((0, *hw), bool)
        return dict(
            semantic_map=np.where(labels < len(self.names), labels, ignored).astype(kind),
            labels=np.array([number % INSTANCE_OFFSET for number in segments], np.int64),
            masks=masks,
        )


def _detections(instances: Any, threshold: float) -> dict[str, np.ndarray]:
    """Those of at least a score, the highest first."""
    scores = instances.scores
    order = scores.argsort(descending=True, stable=True)
    order = order[scores[order] >= threshold]
    names = dict(bboxes='boxes', scores='scores', labels='labels', masks='masks')
    kinds = dict(bboxes=torch.float32, scores=torch.float32, labels=torch.int64, masks=torch.bool)
    return {
        name: getattr(instances[key], 'tensor', instances[key])[order].to('cpu', kinds[key]).numpy()
        for key, name in names.items()
        if key in instances
    }


def _nms_threshold(model: ConfigDict) -> float:
    """Overlap from which on the model takes two boxes of a class for one; 0.5 where it has no NMS."""
    settings = model.get('test_cfg') or {}
    nms = (settings.get('rcnn') or settings).get('nms') or {}
    return float(nms.get('iou_threshold', 0.5))

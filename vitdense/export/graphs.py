"""Which graph a model is exported as, and those of query heads."""

from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from vitdense.models.heads.query_head import QueryHead
from vitdense.models.set_prediction import select
from vitdense.models.tasks import DETECTION, INSTANCES, SEMANTIC

from .dense import DenseDetection, is_known, source_of
from .graph import Graph, corner_of
from .segmentation import Segmentation, SlidingSegmentation
from .two_stage import TwoStageDetection

SAMPLED = ('DCN', 'DeformConv', 'TaskDecomposition')
"""Parts of names of the modules with deformable convolutions, which onnxruntime does not have."""


def graph_of(model: Any, task: str) -> Graph:
    """What to record of a built model of a ``task``, one of :mod:`vitdense.models.tasks`.

    Raises:
        ValueError: it cannot be exported; the message says why.
    """
    kinds = {kind.__name__ for kind in type(model).__mro__}
    head = getattr(model, 'bbox_head', None)
    for module in model.modules():
        if any(part in type(module).__name__ for part in SAMPLED):
            raise ValueError(f'{type(model).__name__} cannot be exported: {type(module).__name__} is a part of it')
    if task == SEMANTIC and hasattr(model, 'decode_head') and 'CascadeEncoderDecoder' not in kinds:
        return (SlidingSegmentation if model.test_cfg.get('mode') == 'slide' else Segmentation)(model)
    if task == DETECTION and isinstance(head, QueryHead):
        return QueryDetection(model)
    if task == DETECTION and 'DetectionTransformer' in kinds and source_of(head) in TransformerDetection.heads:
        return TransformerDetection(model)
    if task == DETECTION and 'SingleStageDetector' in kinds and is_known(head):
        return DenseDetection(model)
    if task in (DETECTION, INSTANCES) and 'TwoStageDetector' in kinds:
        return TwoStageDetection(model, task)
    name = type(model).__name__ + (f' with {type(head).__name__}' if head else '')
    raise ValueError(
        f'{name} cannot be exported: known are the query heads of vitdense, DETR, RetinaNet and what predicts like it, '
        'GFL, YOLOX, Faster, Mask and Cascade R-CNN of mmdet, and segmentors of mmseg'
    )


class QueryDetection(Graph):
    """A detector with a query head: what it selects (B, D, ...), boxes in pixels of the picture."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        head = self.model.bbox_head
        logits, boxes = (x[-1] for x in head(self.model.extract_feat(self.padded(image))))
        found = select(logits, boxes, head.softmax, head.max_per_img)
        return found.boxes.clamp(0, 1) * corner_of(image), found.scores, found.labels


class TransformerDetection(Graph):
    """A DETR of mmdet, whose transformer is a part of the detector, see :class:`QueryDetection`.

    Raises:
        ValueError: its pictures are padded, for which it has masks in a batch.
    """

    heads = ('DETRHead', 'ConditionalDETRHead')

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        if self.divisor != 1:
            raise ValueError(
                f'{type(model).__name__} with padded pictures cannot be exported: '
                '--cfg-options model.data_preprocessor.pad_size_divisor=1'
            )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        head: Any = self.model.bbox_head
        hw = tuple(image.shape[2:])
        sample = SimpleNamespace(batch_input_shape=hw, img_shape=hw)
        inputs = self.model.forward_transformer(self.model.extract_feat(image), [sample])
        logits, boxes = (x[-1] for x in head(**inputs)[:2])
        softmax = not head.loss_cls.use_sigmoid
        found = select(logits, boxes, softmax, head.test_cfg.get('max_per_img', logits.shape[1]))
        return found.boxes.clamp(0, 1) * corner_of(image), found.scores, found.labels

"""Which graph a model is exported as, and those of query heads and segmentors."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitdense.models.heads.query_head import QueryHead
from vitdense.models.set_prediction import select
from vitdense.models.tasks import DETECTION, INSTANCES, SEMANTIC

from .anchors import AnchorDetection
from .graph import Graph, corner_of
from .two_stage import TwoStageDetection


def graph_of(model: nn.Module, task: str) -> Graph:
    """What to record of a built model of a ``task``, one of :mod:`vitdense.models.tasks`.

    Raises:
        ValueError: it cannot be exported; the message says why.
    """
    kinds = {kind.__name__ for kind in type(model).__mro__}
    head = getattr(model, 'bbox_head', None)
    if task == SEMANTIC and hasattr(model, 'decode_head') and 'CascadeEncoderDecoder' not in kinds:
        return Segmentation(model)
    if task == DETECTION and isinstance(head, QueryHead):
        return QueryDetection(model)
    if task == DETECTION and type(head).__name__ == 'RetinaHead':
        return AnchorDetection(model)
    if task in (DETECTION, INSTANCES) and 'TwoStageDetector' in kinds:
        return TwoStageDetection(model, task)
    name = type(model).__name__ + (f' with {type(head).__name__}' if head else '')
    raise ValueError(
        f'{name} cannot be exported: known are the query heads of vitdense, RetinaNet, Faster, Mask and Cascade R-CNN '
        'of mmdet, and segmentors of mmseg'
    )


class QueryDetection(Graph):
    """A detector with a query head: what it selects (B, D, ...), boxes in pixels of the picture."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        head = self.model.bbox_head
        logits, boxes = (x[-1] for x in head(self.model.extract_feat(self.padded(image))))
        found = select(logits, boxes, head.softmax, head.max_per_img)
        return found.boxes.clamp(0, 1) * corner_of(image), found.scores, found.labels


class Segmentation(Graph):
    """A segmentor that looks at pictures as a whole: the class of each pixel (B, H', W') at the ``size`` asked for."""

    inputs = ('image', 'size')
    outputs = ('labels',)

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        mode = self.model.test_cfg.get('mode')
        if mode != 'whole':
            raise ValueError(f'a test in the mode {mode!r} cannot be exported: --cfg-options model.test_cfg.mode=whole')
        padding = getattr(model.data_preprocessor, 'test_cfg', None) or {}
        self.divisor = int(padding.get('size_divisor', 1))

    def forward(self, image: Tensor, size: Tensor) -> Tensor:
        head = self.model.decode_head
        height, width = size.tolist()
        torch._check(height > 0)
        torch._check(width > 0)
        padded = self.padded(image)
        logits = head(self.model.extract_feat(padded))
        logits = F.interpolate(logits, size=padded.shape[2:], mode='bilinear', align_corners=head.align_corners)
        logits = logits[:, :, : image.shape[2], : image.shape[3]]
        logits = F.interpolate(logits, size=(height, width), mode='bilinear', align_corners=head.align_corners)
        if logits.shape[1] == 1:
            return (logits[:, 0].sigmoid() > head.threshold).to(torch.uint8)
        return logits.argmax(1).to(torch.uint8 if logits.shape[1] <= 255 else torch.int32)

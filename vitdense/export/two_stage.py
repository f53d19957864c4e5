"""Faster, Mask and Cascade R-CNN as graphs: proposals, regions, classes, boxes and masks of whole batches."""

from typing import Any

import torch
from torch import Tensor, nn

from vitdense.models.tasks import INSTANCES

from .dense import best_of_level, check_head, decode, source_of, within
from .graph import Graph, corner_of
from .roi_align import pyramid_roi_align
from .suppression import suppression_of


class TwoStageDetection(Graph):
    """A two-stage detector of mmdet: boxes (B, D, 4), scores and labels (B, D), and masks (B, D, h, w) within boxes.

    Raises:
        ValueError: it has parts that are not known here.
    """

    def __init__(self, model: nn.Module, task: str) -> None:
        super().__init__(model)
        roi_head, settings = self.model.roi_head, self.model.test_cfg
        if type(roi_head).__name__ not in ('StandardRoIHead', 'CascadeRoIHead'):
            raise ValueError(
                f'{type(roi_head).__name__} cannot be exported: known are StandardRoIHead and CascadeRoIHead'
            )
        self.cascade = type(roi_head).__name__ == 'CascadeRoIHead'
        self.heads = list(roi_head.bbox_head) if self.cascade else [roi_head.bbox_head]
        self.extractors = list(roi_head.bbox_roi_extractor) if self.cascade else [roi_head.bbox_roi_extractor]
        self.proposals = suppression_of(settings.rpn)
        self.candidates = int(settings.rpn.nms_pre)
        self.found = suppression_of(settings.rcnn)
        self.masks = task == INSTANCES
        for head, known in ((self.model.rpn_head, 'RPNHead'), *((head, 'BBoxHead') for head in self.heads)):
            if source_of(head) != known:
                raise ValueError(f'{type(head).__name__} cannot be exported: known is {known} of mmdet')
            check_head(head)
        for extractor in self.extractors:
            check_extractor(extractor)
        if self.masks:
            self.outputs = (*self.outputs, 'masks')

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        maps = self.model.extract_feat(self.padded(image))
        corner = corner_of(image)
        boxes, there = self._propose(maps, corner)
        batch, number = boxes.shape[0], boxes.shape[1]
        stages: list[tuple[Any, Tensor, Tensor]] = []
        for head, extractor in zip(self.heads, self.extractors, strict=True):
            if stages:
                boxes = within(stages[-1][0].bbox_coder, refined(stages[-1], boxes), corner)
            logits, deltas = head(pool(extractor, maps, boxes))
            stages.append((head, logits.view(batch, number, -1), deltas.view(batch, number, -1, 4)))
        head, _, deltas = stages[-1]
        scores = torch.stack([logits for _, logits, _ in stages]).mean(0).softmax(-1)[..., :-1]
        scores = torch.where(there[..., None], scores, -1.0)  # what fills up the proposals is no object
        classes = scores.shape[2]
        wide = boxes[:, :, None].expand(-1, -1, deltas.shape[2], -1)
        wide = within(head.bbox_coder, decode(head.bbox_coder, wide, deltas), corner).expand(-1, -1, classes, -1)
        labels = torch.arange(classes, device=scores.device).expand(batch, number, classes)
        found = self.found(wide.flatten(1, 2), scores.flatten(1), labels.flatten(1))
        return (*found, self._masks(maps, found[0], found[2])) if self.masks else found

    def _propose(self, maps: Any, corner: Tensor) -> tuple[Tensor, Tensor]:
        """Proposals (B, N, 4), and which of them are some (B, N)."""
        head = self.model.rpn_head
        boxes, scores, levels = [], [], []
        for level, of_level in enumerate(zip(*head(maps), strict=True)):
            best, _, found = best_of_level(head, level, of_level, self.candidates, -1.0)
            boxes.append(within(head.bbox_coder, found, corner))
            scores.append(best)
            levels.append(torch.full_like(best, level, dtype=torch.long))
        found, shares, _ = self.proposals(torch.cat(boxes, 1), torch.cat(scores, 1), torch.cat(levels, 1))
        return found, shares > 0

    def _masks(self, maps: Any, boxes: Tensor, labels: Tensor) -> Tensor:
        """Shares of each mask within its box (B, D, rows, columns)."""
        roi_head = self.model.roi_head
        heads = list(roi_head.mask_head) if self.cascade else [roi_head.mask_head]
        extractors = list(roi_head.mask_roi_extractor) if self.cascade else [roi_head.mask_roi_extractor]
        total: Any = 0
        for head, extractor in zip(heads, extractors, strict=True):
            total = total + head(pool(extractor, maps, boxes)).sigmoid()
        shares = total / len(heads)  # (B * D, K, rows, columns)
        label = labels.clamp(min=0).flatten()[:, None, None, None].expand(-1, 1, *shares.shape[2:])
        chosen = shares[:, :1] if shares.shape[1] == 1 else shares.gather(1, label)
        return chosen[:, 0].unflatten(0, boxes.shape[:2])


def refined(stage: tuple[Any, Tensor, Tensor], boxes: Tensor) -> Tensor:
    """Boxes (B, N, 4) as a stage of a cascade moves them, of each its best class."""
    head, logits, deltas = stage
    label = logits[..., :-1].argmax(-1)[..., None, None].expand(-1, -1, 1, 4)
    moves = deltas if head.reg_class_agnostic else deltas.gather(2, label)
    return decode(head.bbox_coder, boxes, moves[:, :, 0])


def pool(extractor: Any, maps: Any, boxes: Tensor) -> Tensor:
    """What the heads look at of boxes (B, N, 4): (B * N, C, rows, columns)."""
    layers = extractor.roi_layers
    images = torch.arange(boxes.shape[0], device=boxes.device)[:, None, None].expand(-1, boxes.shape[1], 1)
    regions = torch.cat([images.to(boxes.dtype), boxes], -1).flatten(0, 1)
    levels = extractor.map_roi_levels(regions, len(layers))
    scales = [float(layer.spatial_scale) for layer in layers]
    size = list(layers[0].output_size)
    return pyramid_roi_align(list(maps[: len(layers)]), regions, levels, scales, size, int(layers[0].sampling_ratio))


def check_extractor(extractor: Any) -> None:
    """Is it of a kind that is known here?

    Raises:
        ValueError: it is not.
    """
    layers = getattr(extractor, 'roi_layers', [])
    plain = type(extractor).__name__ == 'SingleRoIExtractor' and all(
        type(layer).__name__ == 'RoIAlign' and layer.aligned and layer.pool_mode == 'avg' for layer in layers
    )
    if not plain:
        raise ValueError(f'{type(extractor).__name__} cannot be exported: known is SingleRoIExtractor with RoIAlign')

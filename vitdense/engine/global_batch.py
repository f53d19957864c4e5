"""Several processes learn what one would learn from all their images.

The gradient of a training is the mean of its processes' gradients. It is the one of all images together where each
process divides its losses by counts (objects, sampled boxes, pixels) that are means over the processes. Some heads of
mmdet and mmseg divide by their own count. Here the heads of a built model get classes that differ in this alone; what
mmdet itself averages (``reduce_mean``: ATSS, FCOS, DETR, ...) is left alone.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from vitdense.models.layers.across_processes import SyncBatchNormOfCPUs, mean_over_processes


def count_all_images(model: nn.Module) -> None:
    """Let the losses of a model count the images of all processes."""
    for module in model.modules():
        kind = type(module)
        for base, method, ours in _kinds():
            if isinstance(module, base) and getattr(kind, method) is getattr(base, method):
                module.__class__ = type(kind.__name__, (ours, kind), {'__module__': kind.__module__})


def sync_norms_on_cpus(model: nn.Module) -> None:
    """Put norms that CPUs can compute in the place of ``nn.SyncBatchNorm``."""
    for module in model.modules():
        if isinstance(module, nn.SyncBatchNorm):
            module.__class__ = SyncBatchNormOfCPUs  # type: ignore[assignment]


def _kinds() -> Iterator[tuple[type, str, type]]:
    """Classes, the method of them that is replaced, and what has the other one."""
    if find_spec('mmdet'):
        from mmdet.models.dense_heads import AnchorHead
        from mmdet.models.roi_heads.bbox_heads import BBoxHead
        from mmdet.models.roi_heads.mask_heads import FCNMaskHead

        yield AnchorHead, 'get_targets', _SharedAnchors
        yield BBoxHead, 'loss', _SharedRoIs
        yield FCNMaskHead, 'loss_and_target', _SharedMasks
    if find_spec('mmseg'):
        from mmseg.models.losses import CrossEntropyLoss

        yield CrossEntropyLoss, 'forward', _SharedPixels


class _SharedAnchors:
    """Anchors of an image that are positive or sampled (RetinaNet, RPN)."""

    def get_targets(self, anchor_list: list, *args: Any, **kwargs: Any) -> tuple:
        targets = super().get_targets(anchor_list, *args, **kwargs)  # type: ignore[misc]
        count = mean_over_processes(torch.tensor(float(targets[4]), device=anchor_list[0][0].device))
        return (*targets[:4], count, *targets[5:])


class _SharedRoIs:
    """Boxes that are sampled for the second stage."""

    def loss(
        self,
        cls_score: Tensor | None,
        bbox_pred: Tensor | None,
        rois: Tensor,
        labels: Tensor,
        label_weights: Tensor,
        *args: Any,
        reduction_override: str | None = None,
    ) -> dict:
        losses = super().loss(  # type: ignore[misc]
            cls_score, bbox_pred, rois, labels, label_weights, *args, reduction_override=reduction_override
        )
        if reduction_override:  # of a sampler that looks at each image
            return losses
        weighed, boxes = _shares(torch.stack([(label_weights > 0).sum(), label_weights.new_tensor(len(labels))]))
        return {key: loss * (weighed if key.startswith('loss_cls') else boxes) for key, loss in losses.items()}


class _SharedMasks:
    """Masks of the boxes with an object."""

    def loss_and_target(self, mask_preds: Tensor, *args: Any, **kwargs: Any) -> dict:
        result = super().loss_and_target(mask_preds, *args, **kwargs)  # type: ignore[misc]
        [share] = _shares(torch.tensor([float(len(mask_preds))], device=mask_preds.device))
        return {**result, 'loss_mask': {key: loss * share for key, loss in result['loss_mask'].items()}}


class _SharedPixels:
    """Pixels with a class, or their weights, where the loss is a mean over these."""

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
        ignore_index: int = -100,
        **kwargs: Any,
    ) -> Tensor:
        loss = super().forward(  # type: ignore[misc]
            cls_score, label, weight, avg_factor, reduction_override, ignore_index, **kwargs
        )
        head: Any = self
        counted = head.avg_non_ignore or head.class_weight is not None
        if avg_factor is not None or (reduction_override or head.reduction) != 'mean' or not counted:
            return loss
        labels = label[label != ignore_index]
        own = cls_score.new_tensor(float(labels.numel()), dtype=torch.float32)
        if head.class_weight is not None:
            own = own.new_tensor(head.class_weight)[labels].sum()
        return loss * _shares(own[None])[0]


def _shares(counts: Tensor) -> Tensor:
    """By what means over ``counts`` have to be multiplied to become this process's part of a mean over all."""
    counts = counts.float()
    return counts / mean_over_processes(counts).clamp(min=torch.finfo(torch.float32).tiny)

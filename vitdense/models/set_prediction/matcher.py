"""Who detects what: bipartite matching of queries and ground truths (DETR, section 3.1)."""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from .boxes import generalized_iou
from .types import Matches, Predictions, Targets


class HungarianMatcher(nn.Module):
    """Gives every ground truth a query of its own, in each decoder layer, at the least total cost.

    The cost of a pair is the weighted sum of the L1 distance of the boxes, their negated generalised IoU, and of the
    class: the negated probability (``softmax``), or the focal loss of the class being right minus the loss of it being
    wrong (https://arxiv.org/abs/2010.04159, the released code). Costs are computed in float32, for all layers and
    images in one tensor that is copied to the host once.

    An image with more ground truths than queries keeps those that fit best.

    Args:
        cost_class: weight of the class.
        cost_l1: weight of the L1 distance.
        cost_giou: weight of the generalised IoU.
        softmax: whether the logits go through a softmax with no object as the last class, or through sigmoids.
    """

    ALPHA, GAMMA = 0.25, 2.0

    def __init__(self, cost_class: float, cost_l1: float, cost_giou: float, softmax: bool) -> None:
        super().__init__()
        self.cost_class, self.cost_l1, self.cost_giou = cost_class, cost_l1, cost_giou
        self.softmax = softmax

    @torch.no_grad()
    def forward(self, predictions: Predictions, targets: Targets) -> Matches:
        """Match ``predictions`` with ``targets``.

        Raises:
            ValueError: a label that is no class, or a cost that is not finite; the message has the decoder layer, the
                tensor and the images.
        """
        device = predictions.logits.device
        if not max(targets.counts, default=0):
            return Matches(*torch.empty(4, 0, dtype=torch.long, device=device))
        costs = self.costs(predictions, targets).cpu().numpy()
        self._check(costs, predictions, targets)
        matches = [
            np.stack([np.full_like(queries, layer), np.full_like(queries, image), queries, found])
            for layer, cost in enumerate(costs)
            for image, count in enumerate(targets.counts)
            for queries, found in [linear_sum_assignment(cost[image, :, :count])]
        ]
        return Matches(*torch.from_numpy(np.concatenate(matches, axis=1)).to(device, non_blocking=True))

    def costs(self, predictions: Predictions, targets: Targets) -> Tensor:
        """Costs (T, B, Q, G), NaN for labels that are no class."""
        logits, boxes = (x.float() for x in predictions)
        classes = logits.shape[-1] - self.softmax
        labels = targets.labels.clamp(0, classes - 1)
        labels = labels[None, :, None].expand(*logits.shape[:3], -1)  # (T, B, Q, G)
        cost = self.cost_class * self._class_costs(logits).gather(3, labels)
        cost = cost.masked_fill((targets.labels != targets.labels.clamp(0, classes - 1))[None, :, None], torch.nan)
        pairs = boxes[:, :, :, None], targets.boxes[None, :, None]
        cost += self.cost_l1 * sum((a - b).abs() for a, b in zip(*(x.unbind(-1) for x in pairs), strict=True))
        return cost - self.cost_giou * generalized_iou(*pairs)

    def _class_costs(self, logits: Tensor) -> Tensor:
        """Costs (..., K) of each class."""
        if self.softmax:
            return -logits.softmax(-1)
        right, wrong = (nn.functional.logsigmoid(sign * logits) for sign in (1, -1))  # log p and log (1 - p)
        focal = -self.ALPHA * (self.GAMMA * wrong).exp() * right
        return focal + (1 - self.ALPHA) * (self.GAMMA * right).exp() * wrong

    def _check(self, costs: np.ndarray, predictions: Predictions, targets: Targets) -> None:
        counts = np.array(targets.counts)
        real = np.arange(costs.shape[3]) < counts[:, None]  # (B, G)
        bad = ~np.isfinite(costs).all(2) & real  # (T, B, G)
        if not bad.any():
            return
        layer, image = (int(i) for i in np.argwhere(bad)[0][:2])
        names = ', '.join(targets.names[i] for i in np.flatnonzero(bad.any((0, 2))))
        classes = predictions.logits.shape[-1] - self.softmax
        labels = targets.labels[image, : counts[image]]
        if ((labels < 0) | (labels >= classes)).any():
            raise ValueError(f'labels {labels.tolist()} of {targets.names[image]} are not all from 0 to {classes - 1}')
        tensors = dict(zip(('class logits', 'boxes'), (x[layer] for x in predictions), strict=True))
        tensors['ground truth boxes'] = targets.boxes
        where = next((name for name, x in tensors.items() if not x[image].isfinite().all()), 'costs')
        raise ValueError(f'{where} of decoder layer {layer} are not finite, in {names}')

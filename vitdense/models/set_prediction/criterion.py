"""The loss of a set of predictions (DETR, section 3.1)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitdense.models.layers.across_processes import count_of_processes, mean_over_processes
from vitdense.models.layers.precision import widened

from .boxes import generalized_iou
from .matcher import HungarianMatcher
from .types import Matches, Predictions, Targets


class SetCriterion(nn.Module):
    """Class, L1 and generalised IoU losses of all decoder layers, in float32 or wider.

    Classes: cross entropy, in which a query without object weighs ``no_object_weight``, over the sum of these weights
    (``softmax``); or the focal loss (alpha 0.25, gamma 2) over the number of matches. Boxes: over the number of
    matches. Both divisors count the images of all processes and are at least 1, so that several processes learn what
    one learns from all their images. (DETR's release sums the weights of each process's own queries, and takes the
    number of matches to be at least that of processes.)

    Args:
        matcher: finds the query of each ground truth.
        loss_class: weight of the class loss.
        loss_l1: weight of the L1 loss.
        loss_giou: weight of the generalised IoU loss.
        no_object_weight: of queries without object, with a softmax.
    """

    def __init__(
        self,
        matcher: HungarianMatcher,
        loss_class: float,
        loss_l1: float,
        loss_giou: float,
        no_object_weight: float = 0.1,
    ) -> None:
        super().__init__()
        self.matcher = matcher
        self.loss_class, self.loss_l1, self.loss_giou = loss_class, loss_l1, loss_giou
        self.no_object_weight = no_object_weight

    def forward(self, predictions: Predictions, targets: Targets) -> dict[str, Tensor]:
        """``loss_cls``, ``loss_bbox`` and ``loss_iou`` of the last layer, and with a prefix ``d{t}.`` of those before.

        Raises:
            ValueError: a label that is no class, or predictions that are not finite (see :class:`HungarianMatcher`).
        """
        predictions = Predictions(*map(widened, predictions))
        matches = self.matcher(predictions, targets)
        layers, _, queries, _ = predictions.logits.shape
        count = sum(min(n, queries) for n in targets.counts)
        total, weights = self._divisors(count, predictions.logits)
        boxes = predictions.boxes[matches.layers, matches.images, matches.queries]
        wanted = targets.boxes[matches.images, matches.targets]
        losses = {
            'loss_cls': self.loss_class * self._class_losses(predictions.logits, matches, targets, weights),
            'loss_bbox': self.loss_l1 * (boxes - wanted).abs().view(layers, 4 * count).sum(1) / total,
            'loss_iou': self.loss_giou * (1 - generalized_iou(boxes, wanted)).view(layers, count).sum(1) / total,
        }
        prefixes = [f'd{layer}.' for layer in range(layers - 1)] + ['']
        return {prefix + name: loss[i] for i, prefix in enumerate(prefixes) for name, loss in losses.items()}

    def _class_losses(self, logits: Tensor, matches: Matches, targets: Targets, weights: Tensor) -> Tensor:
        """Class loss of each layer (T,)."""
        layers, images, queries, classes = logits.shape
        matched = matches.layers, matches.images, matches.queries
        labels = targets.labels[matches.images, matches.targets]
        if self.matcher.softmax:
            wanted = labels.new_full((layers, images, queries), classes - 1).index_put(matched, labels)
            weight = logits.new_ones(classes)
            weight[-1] = self.no_object_weight
            losses = F.cross_entropy(logits.flatten(0, 2), wanted.flatten(), weight, reduction='none')
            return losses.view(layers, -1).sum(1) / weights
        alpha, gamma = self.matcher.ALPHA, self.matcher.GAMMA
        wanted = torch.zeros_like(logits).index_put((*matched, labels), logits.new_ones(()))
        losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction='none')
        error = (logits.sigmoid() - wanted).abs()
        losses = losses * error**gamma * (alpha * wanted + (1 - alpha) * (1 - wanted))
        return losses.view(layers, -1).sum(1) / weights

    def _divisors(self, count: int, logits: Tensor) -> Tensor:
        """Divisors of the losses of boxes and of classes (2,)."""
        weights = float(count)
        if self.matcher.softmax:
            weights += self.no_object_weight * (logits[0, ..., 0].numel() - count)
        mean = mean_over_processes(torch.tensor([count, weights], device=logits.device))
        return mean.clamp(min=1 / count_of_processes())

"""What set prediction passes around: predictions, ground truths, and who belongs to whom."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


class Predictions(NamedTuple):
    """What a query head predicts, one row for each decoder layer.

    Attributes:
        logits: class logits (T, B, Q, K), in models with a softmax the last one for no object.
        boxes: cxcywh (T, B, Q, 4), relative to the image without padding.
    """

    logits: Tensor
    boxes: Tensor


class Targets(NamedTuple):
    """Ground truths of a batch, padded to the same number G.

    Attributes:
        labels: classes (B, G).
        boxes: cxcywh (B, G, 4) in float32, relative to the image without padding.
        counts: how many of each image are real.
        names: what to call each image in messages.
    """

    labels: Tensor
    boxes: Tensor
    counts: tuple[int, ...]
    names: tuple[str, ...]

    @classmethod
    def collate(cls, labels: Sequence[Tensor], boxes: Sequence[Tensor], names: Sequence[str]) -> 'Targets':
        """Labels (G,) and boxes (G, 4) of each image, G as it may be, to one object."""
        return cls(
            pad_sequence(list(labels), batch_first=True),
            pad_sequence(list(boxes), batch_first=True).float(),
            tuple(len(image) for image in labels),
            tuple(names),
        )


class Matches(NamedTuple):
    """P pairs of a query and a ground truth; ordered by layer, image and query.

    Attributes:
        layers: decoder layer (P,).
        images: image in the batch (P,).
        queries: query (P,).
        targets: ground truth (P,).
    """

    layers: Tensor
    images: Tensor
    queries: Tensor
    targets: Tensor

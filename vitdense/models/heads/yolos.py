"""The head of YOLOS (Fang et al., NeurIPS 2021, https://arxiv.org/abs/2106.00666)."""

from collections.abc import Sequence

from torch import Tensor

from vitdense.models.layers.mlp import PredictionMlp
from vitdense.models.layers.precision import widened
from vitdense.models.set_prediction import Predictions
from vitdense.registry import MODELS

from .query_head import QueryHead


@MODELS.register_module()
class YOLOSHead(QueryHead):
    """Class and box of each detection token of :class:`YOLOS`; parameters are named as in the official release.

    There are no predictions of earlier layers, so ``aux_loss`` changes nothing.

    Args:
        num_classes: number of classes K; the last of K + 1 logits is no object.
        in_channels: channels C of the detection tokens.
        kwargs: of :class:`QueryHead`.

    Raises:
        TypeError: an argument that does not exist.
    """

    def __init__(self, num_classes: int, in_channels: int, **kwargs) -> None:
        super().__init__(num_classes, softmax=True, **dict(cost_class=1.0, loss_class=1.0) | kwargs)
        self.class_embed = PredictionMlp(in_channels, self.num_logits)
        self.bbox_embed = PredictionMlp(in_channels, 4)

    def forward(self, feats: Sequence[Tensor], img_metas: Sequence[dict] | None = None) -> Predictions:
        """Detection tokens (B, Q, C), the only element of ``feats``, to predictions of a single layer."""
        tokens = feats[-1][None]
        return Predictions(self.class_embed(tokens), widened(self.bbox_embed(tokens)).sigmoid())

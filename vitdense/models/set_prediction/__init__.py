"""Set prediction apart from the networks: matching, losses, and the selection of detections."""

from .boxes import cxcywh_to_xyxy, generalized_iou, xyxy_to_cxcywh
from .criterion import SetCriterion
from .matcher import HungarianMatcher
from .select import Detections, select
from .types import Matches, Predictions, Targets

__all__ = [
    'Detections',
    'HungarianMatcher',
    'Matches',
    'Predictions',
    'SetCriterion',
    'Targets',
    'cxcywh_to_xyxy',
    'generalized_iou',
    'select',
    'xyxy_to_cxcywh',
]

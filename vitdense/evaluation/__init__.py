from importlib.util import find_spec

from .report import Curves, EvaluationReport

__all__ = ['Curves', 'EvaluationReport']

if find_spec('mmdet'):
    from .coco_metric import CocoMetric as CocoMetric

    __all__.append('CocoMetric')
if find_spec('mmseg'):
    from .iou_metric import IoUMetric as IoUMetric

    __all__.append('IoUMetric')

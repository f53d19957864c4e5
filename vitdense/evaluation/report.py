"""What an evaluation found beyond its few numbers: per class, as curves and as a confusion matrix."""

from dataclasses import dataclass

import numpy as np

BACKGROUND = 'background'


@dataclass
class Curves:
    """Precision over recall at one IoU threshold.

    Attributes:
        recall: (101,) 0 to 1.
        precision: (K, 101) highest precision at this recall or a larger one; NaN for classes without objects.
        score: (K, 101) score at which the recall is reached; 0 where it is not, NaN for classes without objects.
        iou: the threshold.
    """

    recall: np.ndarray
    precision: np.ndarray
    score: np.ndarray
    iou: float = 0.5


@dataclass
class EvaluationReport:
    """Result of one evaluation on one data set.

    Attributes:
        task: 'bbox', 'segm' or 'semantic'.
        classes: the K names in the order of the data set.
        per_class: class -> column -> value, the most important column first; NaN where the data set cannot tell.
            Fractions for detection, percent for segmentation, as the metrics of mmdet and mmseg have them.
        confusion: counts, rows are the truth, columns what was predicted. Detection: (K + 1, K + 1) objects, last is
            the background: a missed object is in the last column, a false detection in the last row; [K, K] is 0.
            Segmentation: (K, K) pixels.
        curves: precision over recall, for detection when an IoU of 0.5 was among the thresholds.
    """

    task: str
    classes: tuple[str, ...]
    per_class: dict[str, dict[str, float]]
    confusion: np.ndarray
    curves: Curves | None = None

    @property
    def columns(self) -> list[str]:
        """Columns of ``per_class``."""
        return list(next(iter(self.per_class.values()), {}))

    @property
    def confusion_names(self) -> tuple[str, ...]:
        """Names of the rows and columns of ``confusion``."""
        return self.classes if len(self.confusion) == len(self.classes) else (*self.classes, BACKGROUND)

    def column(self, name: str) -> np.ndarray:
        """(K,) values of a column of ``per_class``."""
        return np.array([row[name] for row in self.per_class.values()], float)

"""The category ids of COCO, which annotation files and official releases of detectors count by."""

HIGHEST_ID = 90

COCO_IDS = [i for i in range(1, HIGHEST_ID + 1) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
"""Those of its 80 categories."""

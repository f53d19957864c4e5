"""Whether a file is of the COCO release, whose few odd boxes nobody can be asked to mend."""

import re

from vitdense.coco_ids import COCO_IDS

RELEASES = ('COCO 2014 Dataset', 'COCO 2017 Dataset')
"""``info.description``; files of users have it as well, because they started from a copy."""


def is_official(content: dict) -> bool:
    """Whether the content is that of the release, or a part of it.

    The description says so, the categories have the release's names and ids, and the number in the name of each image
    (``COCO_val2014_000000000042.jpg``, ``000000000042.jpg``) is its id.
    """
    info = content.get('info')
    if not isinstance(info, dict) or info.get('description') not in RELEASES:
        return False
    from mmdet.datasets import CocoDataset

    names = dict(zip(COCO_IDS, CocoDataset.METAINFO['classes'], strict=True))
    if not all(names.get(category.get('id')) == category.get('name') for category in content['categories']):
        return False
    number = re.compile(r'(?:COCO_[a-z]+\d{4}_)?(\d{12})\.jpg').fullmatch
    found = ((number(str(image.get('file_name'))), image.get('id')) for image in content['images'])
    return all(match and int(match[1]) == identity for match, identity in found)

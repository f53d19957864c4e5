"""Annotation files and image folders that a config names and that are not there."""

from pathlib import Path

from mmengine.config import Config, ConfigDict

from vitdense.config.datasets import leaf_datasets, metrics
from vitdense.files import cache_folder
from vitdense.registry import bare_type

COCO_TREE = """  {root}/
    annotations/instances_train2017.json
    annotations/instances_val2017.json
    train2017/*.jpg
    val2017/*.jpg
COCO 2017: https://cocodataset.org/#download (train2017.zip, val2017.zip, annotations_trainval2017.zip)"""

ADE20K_TREE = """  {root}/
    images/training/*.jpg
    images/validation/*.jpg
    annotations/training/*.png
    annotations/validation/*.png
ADE20K: http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip"""

CITYSCAPES_TREE = """  {root}/
    leftImg8bit/{{train,val}}/CITY/*_leftImg8bit.png
    gtFine/{{train,val}}/CITY/*_gtFine_labelTrainIds.png
Cityscapes: https://www.cityscapes-dataset.com/downloads (leftImg8bit_trainvaltest.zip, gtFine_trainvaltest.zip);
csCreateTrainIdLabelImgs of the package cityscapesscripts makes the files labelTrainIds.png"""

PASCAL_CONTEXT_TREE = """  {root}/
    JPEGImages/*.jpg
    SegmentationClassContext/*.png
    ImageSets/SegmentationContext/train.txt
    ImageSets/SegmentationContext/val.txt
Pascal Context: VOC 2010 (http://host.robots.ox.ac.uk/pascal/VOC/voc2010), and the maps and lists that mmseg's
tools/dataset_converters/pascal_context.py makes of trainval_merged.json"""

TREES = {
    'CocoDataset': COCO_TREE,
    'CocoPanopticDataset': COCO_TREE,
    'ADE20KDataset': ADE20K_TREE,
    'CityscapesDataset': CITYSCAPES_TREE,
    'PascalContextDataset': PASCAL_CONTEXT_TREE,
}
OTHER_FILES = ('label_file', 'hierarchy_file', 'meta_file', 'image_level_ann_file')
"""Files that OpenImagesDataset reads beside its annotations."""

GENERATED = ('ShapesDataset', 'ShapesSegDataset')


def check_files(cfg: Config, splits: tuple[str, ...] = ('train', 'val')) -> None:
    """Look for the annotation files and image folders of ``cfg``'s data sets.

    Raises:
        FileNotFoundError: some are missing; the message lists them, the expected tree, where the data set comes from,
            and how to point the config at another place.
    """
    for split in splits:
        generated = False
        for key, dataset in leaf_datasets(cfg, split):
            missing = _missing(dataset)
            if missing:
                raise FileNotFoundError(_message(key, dataset, missing))
            generated = _is_generated(dataset)
        for key, metric in metrics(cfg, split):
            if _missing(metric) and not generated:
                raise FileNotFoundError(f'{key}.ann_file is not there: {metric["ann_file"]}')


def _is_generated(dataset: ConfigDict) -> bool:
    return bare_type(dataset) in GENERATED


def _missing(node: ConfigDict) -> list[Path]:
    """Local files and folders of a data set or evaluator that are not there."""
    root = node.get('data_root') or ''
    if _is_generated(node) or not isinstance(root, str):
        return []
    prefixes = node.get('data_prefix')
    named = [*map(node.get, ('ann_file', *OTHER_FILES)), *(prefixes.values() if isinstance(prefixes, dict) else [])]
    joined = [str(Path(root) / name) for name in named if isinstance(name, str) and name]
    return [Path(path) for path in joined if '://' not in root and ':/' not in path and not Path(path).exists()]


def _message(key: str, dataset: ConfigDict, missing: list[Path]) -> str:
    root = dataset.get('data_root') or '.'
    name = bare_type(dataset)
    cache = cache_folder('data').absolute()
    if any(path.is_relative_to(cache) for path in missing):
        return f'{key} ({name}) was written to {cache} for own data, and is gone: give --data {root} again'
    lines = [f'{key} ({name}) is not there: missing ' + ', '.join(map(str, missing))]
    if name in TREES:
        lines += ['Expected:', TREES[name].format(root=str(root).rstrip('/'))]
    also = (
        ''
        if 'seg_map_path' in (dataset.get('data_prefix') or {})
        else ' (and ann_file in val_evaluator for COCO metrics)'
    )
    lines.append(f'Another place: --cfg-options {key}.data_root=PATH{also}, for each split')
    return '\n'.join(lines)

"""Any config takes data of users: data sets, evaluators, classes of all heads."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from support import CONFIGS
from support.own_data import DISC, SLAB, write_tree, xml
from support.scan import load

from vitdense.config.building import BuildError
from vitdense.config.class_counts import miscounts
from vitdense.config.datasets import leaf_datasets
from vitdense.config.load import load_config
from vitdense.config.missing_files import check_files
from vitdense.config.own_data import describe, task_of, use_data
from vitdense.config.runtime import use_runtime
from vitdense.config.swap.measure import build_weightless, without_weights
from vitdense.datasets.formats import OwnData, Part, read_data

NAMES = ('disc', 'slab', 'star')


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))


def objects(root: Path, masks: bool = True) -> OwnData:
    """Data of three classes, which nobody opens."""
    parts = {part: Part(f'/cache/{part}.json', str(root), 7) for part in ('train', 'val')}
    return OwnData('coco', 'detection', root, NAMES, parts, masks)


def maps(root: Path) -> OwnData:
    parts = {part: Part(f'/cache/{part}.txt', str(root), 7) for part in ('train', 'val')}
    return OwnData('maps', 'segmentation', root, NAMES, parts, False, False)


def config(name: str) -> Config:
    cfg = load_config(name)
    use_runtime(cfg)
    return cfg


@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    [
        *('quickstart/retinanet_pvtv2-b0_fpn_shapes', 'detr/detr_r50_8xb2-150e_coco', 'yolos/yolos-s_8xb1-150e_coco'),
        *('deformable_detr/deformable-detr_refine_two-stage_r50_8xb4-50e_coco', 'pvt/mask-rcnn_pvt-t_fpn_1x_coco'),
        *('quickstart/sem-fpn_pvtv2-b0_shapes', 'setr/setr_pup_vit-l_8xb1-80k_cityscapes-768x768'),
        'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
        'mmdet::seesaw_loss/mask-rcnn_r50_fpn_seesaw-loss_sample1e-3-ms-2x_lvis-v1.py',
        'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
        'mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py',
        'mmdet::yolox/yolox_s_8xb8-300e_coco.py',
        'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
        'mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py',
        'mmseg::ocrnet/ocrnet_hr18_4xb2-40k_cityscapes-512x1024.py',
        'mmseg::knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py',
        'mmseg::unet/unet-s5-d16_fcn_4xb4-40k_chase-db1-128x128.py',
    ],
)
def test_every_head_and_loss_has_as_many_classes(name, tmp_path):
    path = name if '::' in name else str(CONFIGS / f'{name}.py')
    cfg = config(path)
    seg = cfg.default_scope == 'mmseg'
    data = maps(tmp_path) if seg else objects(tmp_path)
    changes = use_data(cfg, data, ('train', 'val'))
    init_default_scope(cfg.default_scope)
    model = build_weightless(without_weights({**cfg.model, 'data_preprocessor': None}))
    assert miscounts(model, 3, cfg.model) == ([], [])
    kind = 'vitdense.PairedMapsDataset' if seg else 'vitdense.CocoDataset'
    for split, part in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        [(_, leaf)] = leaf_datasets(cfg, split)
        assert (leaf.type, leaf.ann_file, leaf.data_root) == (kind, data.parts[part].ann_file, str(tmp_path))
        assert leaf.metainfo == dict(classes=NAMES)
        assert leaf.pipeline
    assert any(line.endswith('-> 3') for line in changes)
    if not seg:
        assert (cfg.val_evaluator.type, cfg.val_evaluator.ann_file) == ('vitdense.CocoMetric', '/cache/val.json')
    said = json.dumps(cfg.model.to_dict(), default=str)
    for weights in _class_weights(cfg.model):
        assert len(weights) in (3, 4), said


def _class_weights(node):
    if isinstance(node, dict):
        if isinstance(node.get('class_weight'), list | tuple):
            yield node['class_weight']
        node = node.values()
    for child in node if not isinstance(node, str) else ():
        if isinstance(child, dict | list | tuple):
            yield from _class_weights(child)


def test_what_changed_is_told_once(tmp_path):
    cfg = config(str(CONFIGS / 'quickstart/retinanet_pvtv2-b0_fpn_shapes.py'))
    changes = use_data(cfg, objects(tmp_path), ('train', 'val'))
    assert 'model.bbox_head.num_classes: 5 -> 3' in changes
    assert "{train,val,test}_dataloader.dataset.type: 'vitdense.ShapesDataset' -> 'vitdense.CocoDataset'" in changes
    assert "{val,test}_evaluator.ann_file: 'data/shapes/annotations/instances_val.json' -> '/cache/val.json'" in changes
    assert changes[-1] == 'batch: 7 images, 8 a step, 1 step an epoch (train_dataloader.batch_size)'
    assert use_data(cfg, objects(tmp_path), ('train', 'val')) == changes[-1:]
    assert use_data(cfg, objects(tmp_path), ('test',)) == []


def test_an_epoch_is_told_with_its_wrappers_and_processes(tmp_path, monkeypatch):
    cfg = config(str(CONFIGS / 'quickstart/retinanet_pvtv2-b0_fpn_shapes.py'))
    inner = dict(type='ConcatDataset', datasets=[dict(cfg.train_dataloader.dataset)])
    cfg.train_dataloader.batch_size = 2
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=3, dataset=inner)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=6)
    monkeypatch.setenv('WORLD_SIZE', '2')
    *_, told = use_data(cfg, objects(tmp_path), ('train',))
    assert told == 'batch: 21 images, 4 a step, 6 steps an epoch; 6 steps are 1.1 epochs (train_dataloader.batch_size)'


def test_wrappers_and_settings_of_the_data_set_stay(tmp_path):
    cfg = config(str(CONFIGS / 'quickstart/retinanet_pvtv2-b0_fpn_shapes.py'))
    leaf = dict(cfg.train_dataloader.dataset, filter_cfg=dict(min_size=32), indices=4, return_classes=True)
    several = dict(type='ConcatDataset', datasets=[leaf, leaf])
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=3, dataset=several)
    use_data(cfg, objects(tmp_path), ('train',))
    assert cfg.train_dataloader.dataset.type == 'RepeatDataset'
    [(key, found)] = leaf_datasets(cfg, 'train')
    assert key == 'train_dataloader.dataset.dataset.datasets.0'
    assert (found.filter_cfg, found.indices, found.return_classes) == (dict(min_size=32), 4, True)
    assert 'split' not in found


def test_metrics_of_releases_make_room_for_one_of_any_data(tmp_path):
    cfg = config('mmdet::cityscapes/mask-rcnn_r50_fpn_1x_cityscapes.py')
    use_data(cfg, objects(tmp_path), ('train', 'val'))
    [metric] = cfg.val_evaluator
    assert (metric.type, metric.metric, metric.ann_file) == (
        'vitdense.CocoMetric',
        ['bbox', 'segm'],
        '/cache/val.json',
    )
    assert len(cfg.test_evaluator) == 1
    voc = dict(type='VOCMetric', metric='mAP', eval_mode='11points')
    cfg.val_evaluator = dict(type='Evaluator', metrics=[voc, dict(voc, iou_thrs=[0.75])])
    use_data(cfg, objects(tmp_path), ('train', 'val'))
    assert cfg.val_evaluator.metrics == [dict(type='vitdense.CocoMetric', metric=['bbox'], ann_file='/cache/val.json')]
    several = [dict(type='CocoMetric', ann_file=f'{k}.json', metric='bbox') for k in 'ab']
    cfg.val_evaluator = dict(type='MultiDatasetsEvaluator', metrics=several, dataset_prefixes=['a', 'b'])
    use_data(cfg, objects(tmp_path), ('train', 'val'))
    assert cfg.val_evaluator == [dict(type='CocoMetric', ann_file='/cache/val.json', metric='bbox')]
    cfg = config('mmseg::fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024.py')
    cfg.val_evaluator = [dict(type='IoUMetric', iou_metrics=['mIoU']), dict(type='CityscapesMetric', output_dir='x')]
    use_data(cfg, maps(tmp_path), ('train', 'val'))
    assert cfg.val_evaluator == [dict(type='IoUMetric', iou_metrics=['mIoU'])]


def test_the_order_of_the_classes_in_the_config_counts(tmp_path):
    cfg = config(str(CONFIGS / 'bccd/retinanet_pvtv2-b0_fpn_bccd.py'))
    data = objects(tmp_path)
    data.classes = ('Platelets', 'RBC', 'WBC')
    use_data(cfg, data, ('train', 'val'))
    assert cfg.train_dataloader.dataset.metainfo.classes == ('RBC', 'WBC', 'Platelets')


def test_the_order_of_the_classes_in_the_checkpoint_counts_more(tmp_path):
    cfg = config(str(CONFIGS / 'quickstart/retinanet_pvtv2-b0_fpn_shapes.py'))
    learned = ('star', 'disc', 'slab')
    use_data(cfg, objects(tmp_path), ('test',), learned)
    assert cfg.test_dataloader.dataset.metainfo.classes == learned
    use_data(cfg, objects(tmp_path), ('test',), ('star', 'disc', 'moon'))
    assert cfg.test_dataloader.dataset.metainfo.classes == learned
    cfg = config(str(CONFIGS / 'quickstart/sem-fpn_pvtv2-b0_shapes.py'))
    with pytest.raises(ValueError, match='numbers its classes disc, slab, star, the checkpoint star, disc, slab'):
        use_data(cfg, maps(tmp_path), ('test',), learned)


@pytest.mark.parametrize(
    ('name', 'change', 'message'),
    [
        ('mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py', {}, 'wants boxes and maps'),
        ('mmdet::htc/htc_r50_fpn_1x_coco.py', {}, 'wants boxes and maps'),
        ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', dict(default_scope='mmpretrain'), "is 'mmpretrain'"),
        ('mmdet::fast_rcnn/fast-rcnn_r50_fpn_1x_coco.py', {}, r'train_dataloader\.dataset\.pipeline has LoadProposals'),
        ('mmdet::sort/sort_faster-rcnn_r50_fpn_8xb2-4e_mot17halftrain_test-mot17halfval.py', {}, 'through videos'),
        ('mmdet::reid/reid_r50_8xb32-6e_mot16train80_test-mot16val20.py', {}, 'whether objects are the same'),
        ('mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py', {}, 'MultiSourceSampler'),
    ],
)
def test_configs_for_something_else(name, change, message, tmp_path):
    cfg = config(name)
    cfg.merge_from_dict(change)

    def use() -> None:
        task_of(cfg)
        use_data(cfg, objects(tmp_path), ('train', 'val'))

    with pytest.raises(ValueError, match=message):
        use()


def test_what_the_data_lack(tmp_path):
    cfg = config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
    with pytest.raises(ValueError, match=r'train_dataloader\.dataset trains masks .* has boxes only'):
        use_data(cfg, objects(tmp_path, masks=False), ('train', 'val'))
    data = objects(tmp_path)
    del data.parts['train']
    with pytest.raises(ValueError, match=r'no images for train: found val \(7 images\)'):
        use_data(cfg, data, ('train', 'val'))
    use_data(cfg, data, ('test',))
    cfg = config('mmseg::unet/unet-s5-d16_fcn_4xb4-40k_chase-db1-128x128.py')
    data = maps(tmp_path)
    data.classes = ()
    with pytest.raises(ValueError, match=r'has no names of classes: write them to .*classes\.txt'):
        use_data(cfg, data, ('train', 'val'))


def test_a_data_set_is_built_of_it(tmp_path):
    files = {'a.jpg': '', 'b.jpg': '', 'a.xml': xml(DISC, SLAB), 'b.xml': xml(SLAB)}
    data = read_data(write_tree(tmp_path / 'data', files), 'detection', fraction=0.5)
    cfg = config(str(CONFIGS / 'quickstart/retinanet_pvtv2-b0_fpn_shapes.py'))
    use_data(cfg, data, ('train', 'val'))
    images = {}
    for split in ('train', 'val'):
        init_default_scope('mmdet')
        dataset = load(cfg[f'{split}_dataloader'].dataset)
        for info in map(dataset.get_data_info, range(len(dataset))):
            assert Path(info['img_path']).is_file()
            images[Path(info['img_path']).name] = [(one['bbox_label'], one['bbox']) for one in info['instances']]
    assert images == {'a.jpg': [(0, [8, 6, 48, 36]), (1, [40, 12, 72, 36])], 'b.jpg': [(1, [40, 12, 72, 36])]}
    assert describe(data)[0].endswith('voc; train 1 image, val 1 image; 2 classes: disc, slab')


def test_a_cache_that_was_emptied(tmp_path):
    cfg = config(str(CONFIGS / 'quickstart/retinanet_pvtv2-b0_fpn_shapes.py'))
    files = {'a.jpg': '', 'b.jpg': '', 'a.xml': xml(DISC), 'b.xml': xml(SLAB)}
    data = read_data(write_tree(tmp_path / 'data', files), 'detection')
    use_data(cfg, data, ('train', 'val'))
    check_files(cfg)
    Path(data.parts['val'].ann_file).unlink()
    with pytest.raises(FileNotFoundError, match=rf'val_dataloader.* is gone: give --data {tmp_path}/data again'):
        check_files(cfg)


def test_norms_of_several_processes_are_no_obstacle(tmp_path):
    cfg = config('mmdet::strong_baselines/mask-rcnn_r50_fpn_rpn-2conv_4conv1fc_syncbn-all_lsj-100e_coco.py')
    use_data(cfg, objects(tmp_path), ('train', 'val'))
    assert cfg.model.roi_head.mask_head.num_classes == 3
    assert cfg.model.roi_head.mask_head.norm_cfg.type == 'MMSyncBN'


def test_a_model_that_cannot_be_built_says_where(tmp_path):
    cfg = config(str(CONFIGS / 'quickstart/retinanet_pvtv2-b0_fpn_shapes.py'))
    cfg.model.neck.in_chanels = 8
    with pytest.raises(BuildError, match=r"^model\.neck \(FPN\): .*'in_chanels'"):
        use_data(cfg, objects(tmp_path), ('train', 'val'))

"""A trained model finds what those of mmdet and mmseg find through their own functions."""

import logging
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import supervision
import torch
from mmdet.apis import DetInferencer, inference_detector
from mmdet.apis import init_detector as init_of_mmdet
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS
from mmengine.structures import InstanceData, PixelData
from mmseg.apis import MMSegInferencer, inference_model
from mmseg.apis import init_model as init_of_mmseg
from PIL import Image
from pycocotools import mask as rle
from support.small import CLASSES
from support.trained import work_dir

import vitdense
from vitdense.compat import noise
from vitdense.config.building import BuildError
from vitdense.models.tasks import PANOPTIC
from vitdense.predict import ImageError, Predictor, Result
from vitdense.predict.load import find_model
from vitdense.predict.sources import Frame

TASKS = {'detector': 'detection', 'instances': 'instance segmentation', 'maps': 'semantic segmentation'}


@pytest.fixture(scope='module')
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp('trained')


@pytest.fixture(scope='module', params=TASKS)
def trained(request, home) -> tuple[str, Path, Predictor]:
    folder = work_dir(request.param, home)
    return request.param, folder, vitdense.load(folder, device='cpu')


@pytest.fixture
def images(home) -> list[Path]:
    return sorted((home / 'data/images').rglob('*.jpg'))


@pytest.mark.slow
def test_equals_mmdet_and_mmseg(trained, images):
    kind, folder, model = trained
    assert (model.task, model.names, model.palette) == (TASKS[kind], CLASSES, ((200, 0, 0), (0, 0, 200)))
    init, infer = (init_of_mmseg, inference_model) if kind == 'maps' else (init_of_mmdet, inference_detector)
    cfg = Config.fromfile(next(folder.glob('*.py')))
    cfg.test_pipeline = cfg.test_dataloader.dataset.pipeline  # where mmseg looks for it
    peer = init(cfg, str(folder / 'best.pth'), device='cpu')
    expected = [infer(peer, str(image)) for image in images]
    results = model.predict(images, threshold=0.0)
    assert [result.path for result in results] == [str(image) for image in images]
    for result, sample in zip(results, expected, strict=True):
        if kind == 'maps':
            np.testing.assert_array_equal(result.semantic_map, sample.pred_sem_seg.data[0].numpy())
            assert result.boxes is None
            continue
        found = sample.pred_instances
        assert len(result) == len(found) > 0
        order = found.scores.argsort(descending=True, stable=True)
        np.testing.assert_allclose(result.scores, found.scores[order], atol=1e-6)
        np.testing.assert_allclose(result.boxes, found.bboxes[order], atol=1e-4)
        np.testing.assert_array_equal(result.labels, found.labels[order])
        if kind == 'instances':
            np.testing.assert_array_equal(result.masks, found.masks[order])


def test_inferencers_find_the_same_and_warn_of_nothing(trained, images):
    kind, folder, model = trained
    files = dict(model=str(next(folder.glob('*.py'))), weights=str(folder / 'best.pth'), device='cpu')
    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        noise.install()  # pytest has taken its filters away
        if kind == 'maps':
            peer = MMSegInferencer(**files, show_progress=False)
            found = peer([str(image) for image in images])['predictions']
        else:
            peer = DetInferencer(**files, show_progress=False)
            options = dict(pred_score_thr=0.0, no_save_vis=True, return_datasamples=True)
            found = peer([str(image) for image in images], **options)['predictions']
    logger.removeHandler(handler)
    assert [str(warning.message) for warning in told] == []
    assert [record.getMessage() for record in records] == []
    for result, sample in zip(model.predict(images, threshold=0.0), found, strict=True):
        if kind == 'maps':
            np.testing.assert_array_equal(result.semantic_map, sample)
            continue
        order = sample.pred_instances.scores.argsort(descending=True, stable=True)
        np.testing.assert_allclose(result.scores, sample.pred_instances.scores[order], atol=1e-6)
        np.testing.assert_allclose(result.boxes, sample.pred_instances.bboxes[order], atol=1e-4)


def test_sahi_finds_the_same(trained, images):
    pytest.importorskip('sahi', reason='it brings OpenCV with windows in the place of the one without')
    from sahi import AutoDetectionModel
    from sahi.predict import get_prediction

    kind, folder, model = trained
    if kind == 'maps':
        return
    files = dict(config_path=str(next(folder.glob('*.py'))), model_path=str(folder / 'best.pth'))
    peer = AutoDetectionModel.from_pretrained('mmdet', **files, confidence_threshold=0.2, device='cpu')
    found = get_prediction(str(images[0]), peer).object_prediction_list
    found = sorted(found, key=lambda one: -one.score.value)
    [result] = model.predict(images[0], threshold=0.2)
    np.testing.assert_allclose([one.score.value for one in found], result.scores, atol=1e-6)
    assert [one.category.name for one in found] == [result.name_of(k) for k in result.labels]
    if kind == 'detector':  # of masks it makes boxes of its own
        np.testing.assert_allclose([one.bbox.to_xyxy() for one in found], result.boxes, atol=1e-4)


def test_all_sources_of_one_picture_are_one(trained, images):
    _, _, model = trained
    array = cv2.imread(str(images[0]))
    tensor = torch.from_numpy(array[..., ::-1].copy()).permute(2, 0, 1)
    sources = [str(images[0]), array, Image.fromarray(array[..., ::-1]), tensor, [images[0]], tensor[None]]
    first, *others = [model.predict(source, threshold=0.0)[0] for source in sources]
    for other in others:
        for key in ('image', 'boxes', 'scores', 'labels', 'masks', 'semantic_map'):
            np.testing.assert_array_equal(getattr(other, key), getattr(first, key))


def test_batches_and_streams(trained, images):
    _, _, model = trained
    one = model.predict(images, threshold=0.0)
    stream = model.predict(images, threshold=0.0, batch_size=3, stream=True)
    assert not isinstance(stream, list)
    for single, batched in zip(one, stream, strict=True):
        assert single.path == batched.path
        for key in ('boxes', 'scores', 'semantic_map'):
            if getattr(single, key) is not None:
                np.testing.assert_allclose(getattr(single, key), getattr(batched, key), atol=1e-3)


def test_segments_of_a_panoptic_model(trained, images):
    """It may find instances as well, which are others than its segments."""
    kind, folder, _ = trained
    if kind != 'instances':
        return
    model = vitdense.load(folder, device='cpu')
    model.task, model.names, model.palette = PANOPTIC, ('disc', 'slab', 'sky'), ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    values = torch.full((1, 60, 80), 2)  # sky
    values[:, :10, :10], values[:, 20:30, 20:30], values[:, 40:] = 1000, 2001, 3  # a disc, a slab, nothing
    instances = InstanceData(
        bboxes=torch.rand(5, 4), scores=torch.rand(5), labels=torch.ones(5).long(), masks=torch.ones(5, 60, 80)
    )
    sample = DetDataSample(pred_instances=instances, pred_panoptic_seg=PixelData(sem_seg=values))
    model.network = SimpleNamespace(test_step=lambda batch: [sample])
    [result] = model.predict(images[0])
    assert (result.boxes, result.scores, result.labels.tolist()) == (None, None, [0, 1])
    assert [mask.nonzero()[0].min() for mask in result.masks] == [0, 20]
    assert result.masks.sum((1, 2)).tolist() == [100, 100]
    assert [result.semantic_map[y, x] for y, x in ((0, 0), (25, 25), (15, 40), (50, 50))] == [0, 1, 2, 255]
    assert [one['category_id'] for one in result.to_coco()] == [1, 2]
    assert [one['bbox'] for one in result.to_coco()] == [[0, 0, 10, 10], [20, 20, 10, 10]]
    np.testing.assert_array_equal(result.to_supervision().mask, result.masks)
    assert len(result.to_data_sample().pred_instances) == 2


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('glip/glip_atss_swin-t_a_fpn_dyhead_pretrain_obj365', 'wants a text with each picture'),
        ('grounding_dino/grounding_dino_swin-t_finetune_16xb2_1x_coco', 'wants a text with each picture'),
        ('bytetrack/bytetrack_yolox_x_8xb4-80e_crowdhuman-mot17halftrain_test-mot17halfval', 'follows objects through'),
        ('masktrack_rcnn/masktrack-rcnn_mask-rcnn_r50_fpn_8xb1-12e_youtubevis2019', 'has PackTrackInputs'),
        ('fast_rcnn/fast-rcnn_r50_fpn_1x_coco', 'has LoadProposals, expected LoadImageFromFile; predict'),
        ('reid/reid_r50_8xb32-6e_mot16train80_test-mot16val20', 'tells whether objects are the same'),
    ],
)
def test_models_that_want_more_than_pictures_say_so_before_they_are_built(name, message, tmp_path, monkeypatch):
    monkeypatch.setattr(MODELS, 'build', None)
    torch.save(dict(state_dict={}), tmp_path / 'best.pth')
    with pytest.raises(ValueError, match=message):
        vitdense.load(f'mmdet::{name}.py', tmp_path / 'best.pth')


def test_threads_leave_the_default_scope_alone(trained, images, monkeypatch):
    """It is one for the whole process, so that a thread that sets it takes it from the others."""
    _, _, model = trained
    array, setting = cv2.imread(str(images[0])), []
    monkeypatch.setattr(
        'mmengine.registry.DefaultScope.overwrite_default_scope',
        lambda name: setting.append(threading.current_thread().name) or nullcontext(),
    )
    model.prepare(Frame(array, 'a'))
    with ThreadPoolExecutor(1) as pool:
        first, again = (pool.submit(model.prepare, Frame(array, 'a')).result() for _ in range(2))
    assert setting == []
    assert torch.equal(first['inputs'], again['inputs'])


def test_pictures_of_several_sizes_in_a_batch(trained, images):
    _, _, model = trained
    array = cv2.imread(str(images[0]))
    results = model.predict([array, array[:40], array[:, :50]], batch_size=3)
    assert [result.image.shape[:2] for result in results] == [(60, 80), (40, 80), (60, 50)]
    if results[0].semantic_map is not None:
        assert [result.semantic_map.shape for result in results] == [(60, 80), (40, 80), (60, 50)]


def test_threshold_and_classes(trained, images):
    kind, _, model = trained
    if kind == 'maps':
        return
    [everything] = model.predict(images[0], threshold=0.0)
    middle = float(np.median(everything.scores))
    [some] = model.predict(images[0], threshold=middle, classes='slab')
    chosen = (everything.scores >= middle) & (everything.labels == 1)
    assert 0 < chosen.sum() < len(everything)
    np.testing.assert_array_equal(some.boxes, everything.boxes[chosen])
    with pytest.raises(ValueError, match=r"unknown class 'slap': did you mean 'slab'\?"):
        model.predict(images[0], classes=['slap'])


def test_a_result_as_others_have_it(trained, images, tmp_path):
    kind, _, model = trained
    [result] = model.predict(images[0], threshold=0.0)
    coco = result.to_coco(7)
    detections, sample = result.to_supervision(), result.to_data_sample()
    assert {one['image_id'] for one in coco} == {7}
    assert result.save(tmp_path / 'drawn.png').is_file()
    assert Image.open(tmp_path / 'drawn.png').size == (80, 60)
    if kind == 'maps':
        for one in coco:
            np.testing.assert_array_equal(
                rle.decode(one['segmentation']), result.semantic_map == one['category_id'] - 1
            )
        assert sum(one['area'] for one in coco) == 60 * 80
        np.testing.assert_array_equal(sample.pred_sem_seg.data[0], result.semantic_map)
        np.testing.assert_array_equal(detections.class_id, np.unique(result.semantic_map))
        return
    np.testing.assert_allclose([one['score'] for one in coco], result.scores)
    x, y, w, h = np.array([one['bbox'] for one in coco]).T
    np.testing.assert_allclose(np.stack([x, y, x + w, y + h], 1), result.boxes, atol=1e-5)
    assert [one['category_id'] for one in coco] == (result.labels + 1).tolist()
    np.testing.assert_array_equal(detections.xyxy, result.boxes)
    assert detections.data['class_name'].tolist() == [CLASSES[k] for k in result.labels]
    np.testing.assert_array_equal(sample.pred_instances.bboxes, result.boxes)
    of_sample = supervision.Detections.from_mmdetection(sample)
    for key in ('xyxy', 'confidence', 'class_id', 'mask'):
        np.testing.assert_array_equal(getattr(of_sample, key), getattr(detections, key))
    if kind == 'instances':
        np.testing.assert_array_equal(detections.mask, result.masks)
        np.testing.assert_array_equal([rle.decode(one['segmentation']) for one in coco], result.masks)


def test_tiles_find_what_the_picture_has(trained, images):
    """A picture of four copies, in tiles of the size of one, has four times what one has, less what overlaps."""
    kind, _, model = trained
    array = cv2.imread(str(images[0]))
    large = np.tile(array, (2, 2, 1))
    [one] = model.predict(array, threshold=0.0)
    [result] = model.predict(large, threshold=0.0, tile=(60, 80), overlap=0.0, batch_size=2)
    if kind == 'maps':
        np.testing.assert_array_equal(result.semantic_map, np.tile(one.semantic_map, (2, 2)))
        return
    assert set(np.round(result.scores, 4)) <= set(np.round(one.scores, 4))
    corners = np.array([[x, y, x, y] for y in (0, 60) for x in (0, 80)])
    best = one.boxes[0] + corners
    assert all(np.abs(result.boxes - box).sum(1).min() < 1e-2 for box in best)
    if kind == 'instances':
        assert result.masks.shape == (len(result), 120, 160)


@pytest.mark.slow
def test_the_config_and_a_checkpoint(trained, images, tmp_path):
    _, folder, model = trained
    config = next(folder.glob('*.py'))
    [result] = vitdense.load(config, folder / 'best.pth', 'cpu').predict(images[0])
    assert repr(result) == repr(model.predict(images[0])[0])
    cfg = Config.fromfile(config)
    cfg.load_from = str(folder / 'best.pth')
    cfg.dump(tmp_path / 'c.json')
    assert repr(vitdense.load(tmp_path / 'c.json').predict(images[0])[0]) == repr(result)


def test_an_unread_picture_names_itself(trained, images, tmp_path):
    _, _, model = trained
    (tmp_path / 'text.jpg').write_text('text')
    with pytest.raises(ImageError, match=r'text\.jpg cannot be read: it is no image file'):
        model.predict([images[0], tmp_path / 'text.jpg'])


@pytest.mark.parametrize('argument', [dict(batch_size=0), dict(overlap=1.0), dict(tile=0)])
def test_arguments_out_of_range(trained, images, argument):
    _, _, model = trained
    with pytest.raises(ValueError, match=next(iter(argument))):
        model.predict(images[0], **argument)


def test_an_empty_result_says_so():
    result = Result(np.zeros((4, 5, 3), np.uint8), 'x.jpg', ('a',), ((1, 2, 3),), labels=np.zeros(0, np.int64))
    assert repr(result) == 'Result(x.jpg, 5 x 4: nothing)'
    assert result
    assert len(result) == 0


@pytest.mark.parametrize(
    ('files', 'error', 'message'),
    [
        (['best.pth'], FileNotFoundError, 'is not the work dir of a run: it has no config, but best.pth'),
        (
            ['c.py', 'epoch_3.pth'],
            FileNotFoundError,
            r'has neither best\.pth nor last\.pth; checkpoints in .*epoch_3\.pth',
        ),
        ([], FileNotFoundError, 'it has no config, but nothing'),
    ],
)
def test_work_dirs_that_lack_something(files, error, message, tmp_path):
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(error, match=message):
        vitdense.load(tmp_path)


def test_other_files_in_a_work_dir(tmp_path):
    for name in ('best.pth', 'old.py', 'run.py', 'metrics.json'):
        (tmp_path / name).touch()
    os.utime(tmp_path / 'old.py', (0, 0))
    assert find_model(str(tmp_path)) == (str(tmp_path / 'run.py'), str(tmp_path / 'best.pth'))
    for name in ('old.py', 'run.py'):
        (tmp_path / name).unlink()
    assert find_model(str(tmp_path))[0] == str(tmp_path / 'metrics.json')


def test_what_is_no_model(trained, home, tmp_path):
    _, folder, _ = trained
    config = next(folder.glob('*.py'))
    with pytest.raises(ValueError, match='is a checkpoint: name its work dir or its config'):
        vitdense.load(folder / 'best.pth')
    with pytest.raises(FileNotFoundError, match='has no load_from: name a checkpoint'):
        vitdense.load(config)
    other = dict(state_dict={'backbone.conv1.weight': torch.zeros(64, 3, 7, 7)}, meta={})
    torch.save(other, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match=r'checkpoint: .*other\.pth'):
        vitdense.load(config, tmp_path / 'other.pth')
    cfg = Config.fromfile(config)
    cfg.model.neck.in_chanels = 8
    cfg.dump(tmp_path / 'wrong.py')
    with pytest.raises(BuildError, match=r"^model\.neck \(FPN\): .*'in_chanels'"):
        vitdense.load(tmp_path / 'wrong.py', folder / 'best.pth')

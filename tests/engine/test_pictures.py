"""Pictures that a run draws: the right images with the right labels, few files, and no harm to the run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from support.toy_run import VAL, Spy, toy_runner

from vitdense.engine.hooks import pictures
from vitdense.engine.hooks.output import Occasional
from vitdense.engine.hooks.pictures import PicturesHook, thin_out
from vitdense.visualization.loading import is_bgr

EPOCHS = dict(by_epoch=True, max_epochs=4, val_interval=1)


@pytest.fixture(scope='module')
def data_root(tmp_path_factory):
    return tmp_path_factory.mktemp('data') / 'shapes'


class Sheets:
    """Stands between the hook and its files and keeps the cells, the heading and the legend of each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made, self.drawn = [], []
        sheet, draw = pictures.sheet, pictures.draw

        def keep_sheet(cells, heading, legend):
            self.made.append((cells, heading, legend))
            return sheet(cells, heading, legend)

        def keep_drawn(image, labels, *args):
            self.drawn.append((image, labels))
            return draw(image, labels, *args)

        monkeypatch.setattr(pictures, 'sheet', keep_sheet)
        monkeypatch.setattr(pictures, 'draw', keep_drawn)


@pytest.fixture
def sheets(monkeypatch):
    monkeypatch.setattr(Occasional, 'SHARE', 1.0)
    return Sheets(monkeypatch)


@pytest.fixture
def failures(monkeypatch):
    """Warnings that a hook gave for an action that failed."""
    found = []
    monkeypatch.setattr('mmengine.logging.MMLogger.warning', lambda self, message, *_, **__: found.append(str(message)))
    return lambda: [message for message in found if 'failed' in message]


@pytest.mark.slow
def test_detection_run(data_root, tmp_path, sheets, failures):
    work_dir, spy, hook = tmp_path / 'run', Spy(), PicturesHook(num_train_batches=3, num_val_images=4)
    runner = toy_runner(work_dir, data_root, [hook, spy], [{}] * 4, EPOCHS)
    runner.train()
    assert failures() == []
    names = [f'train_batch_{i}.jpg' for i in range(3)] + [f'val_epoch_{i}.jpg' for i in range(1, 5)]
    assert sorted(path.name for path in work_dir.glob('*.jpg')) == names

    drawn = iter(sheets.drawn)
    validations = [made for made in sheets.made if made[1].startswith('Validation')]
    batches = [made for made in sheets.made if made[1].startswith('Training')]
    assert [heading for _, heading, _ in batches] == [
        f'Training batch of iteration {i}, after augmentation' for i in (1, 2, 3)
    ]
    for batch in spy.batches[:2]:
        for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
            shown, labels = next(drawn)
            assert torch.equal(shown, image.flip(0))
            assert torch.equal(labels.boxes, sample.gt_instances.bboxes.tensor)
            assert torch.equal(labels.classes, sample.gt_instances.labels)

    assert len(validations) == 4
    dataset = runner.val_dataloader.dataset
    expected = [dataset.get_data_info(i) for i in (0, 3, 6, 9)]
    for cells, _, _ in validations:
        titles = [cell[0][0] for cell in cells]
        assert [title.split(' · ')[0] for title in titles] == [Path(info['img_path']).name for info in expected]
        assert {cell[1][0] for cell in cells} == {'1 predicted'}
    assert validations[2][1] == (
        'Validation at epoch 3: labels on the left, predictions on the right, with a score of at least 0.3'
    )
    legend = dict(validations[0][2])
    count = [instance['bbox_label'] for info in expected for instance in info['instances']].count(0)
    assert f'circle: {count} labels, 4 predicted' in legend
    for info, (left, right) in zip(expected, zip(sheets.drawn[-8::2], sheets.drawn[-7::2], strict=True), strict=True):
        original = torch.from_numpy(np.array(Image.open(info['img_path']).convert('RGB'))).permute(2, 0, 1)
        assert torch.equal(left[0], original)
        assert left[1].boxes.tolist() == [instance['bbox'] for instance in info['instances']]
        h, w = original.shape[1:]
        assert right[1].boxes.tolist() == torch.tensor([[w / 100, h / 100, w * 0.99, h * 0.99]]).tolist()


@pytest.mark.slow
def test_segmentation_run(data_root, tmp_path, sheets, failures):
    work_dir = tmp_path / 'run'
    cfg = dict(by_epoch=False, max_iters=4, val_interval=2)
    hook = PicturesHook(num_train_batches=1, num_val_images=VAL + 5, max_images_per_batch=2)
    runner = toy_runner(work_dir, data_root, [hook], [{}] * 2, cfg, seg=True)
    runner.train()
    assert failures() == []
    assert sorted(path.name for path in work_dir.glob('*.jpg')) == [
        'train_batch_0.jpg',
        'val_iter_2.jpg',
        'val_iter_4.jpg',
    ]
    assert sheets.made[0][1].endswith(': the first 2 of 4 images')
    cells, heading, legend = sheets.made[-1]
    assert heading == 'Validation at iteration 4: labels on the left, predictions on the right'
    assert len(cells) == VAL
    for i, cell in enumerate(cells):
        truth = np.array(Image.open(runner.val_dataloader.dataset.get_data_info(i)['seg_map_path']))
        assert cell[1][0] == f'{(truth == 1).mean():.0%} of the pixels right'
    palette = runner.val_dataloader.dataset.metainfo['palette']
    assert ('background', tuple(palette[0])) in legend
    left = np.asarray(cells[0][0][1]).astype(int)
    right = np.asarray(cells[0][1][1]).astype(int)
    assert left.shape == right.shape
    assert max(left.shape) == 400


@pytest.mark.slow
def test_training_batches_of_the_first_start_stay(data_root, tmp_path, sheets, failures):
    work_dir = tmp_path / 'run'
    cfg = dict(EPOCHS, max_epochs=1)
    toy_runner(work_dir, data_root, [PicturesHook(2)], [{}], cfg).train()
    first = {path.name: path.read_bytes() for path in work_dir.glob('train_*.jpg')}
    (work_dir / 'train_batch_1.jpg').unlink()
    kwargs = dict(load_from=str(work_dir / 'epoch_1.pth'), resume=True)
    toy_runner(work_dir, data_root, [PicturesHook(2)], [{}] * 3, EPOCHS, **kwargs).train()
    assert failures() == []
    assert (work_dir / 'train_batch_0.jpg').read_bytes() == first['train_batch_0.jpg']
    assert (work_dir / 'train_batch_1.jpg').exists()
    assert sheets.made[-4][1] == 'Training batch of iteration 3, after augmentation'
    marked = work_dir / 'train_batch_0.jpg'
    marked.write_text('of another run')
    toy_runner(work_dir, data_root, [PicturesHook(1)], [{}], cfg).train()
    assert marked.read_bytes() == first['train_batch_0.jpg']


@pytest.mark.slow
def test_the_last_validation_is_drawn_though_others_are_skipped(data_root, tmp_path, monkeypatch, failures):
    monkeypatch.setattr(Occasional, 'SHARE', 1e-9)
    work_dir = tmp_path / 'run'
    toy_runner(work_dir, data_root, [PicturesHook(0, 2)], [{}] * 4, EPOCHS).train()
    assert failures() == []
    assert sorted(path.name for path in work_dir.glob('*.jpg')) == ['val_epoch_1.jpg', 'val_epoch_4.jpg']


def test_testing_draws_too(data_root, tmp_path, sheets, failures):
    runner = toy_runner(tmp_path / 'run', data_root, [PicturesHook(0, 3)], [], EPOCHS)
    runner._test_dataloader, runner._test_evaluator = runner._val_dataloader, runner._val_evaluator
    runner._test_evaluator[0].values = [{}]
    runner._test_cfg = runner._test_loop = dict()
    runner.test()
    assert failures() == []
    assert sheets.made[0][1].startswith('Test: labels on the left')
    assert (tmp_path / 'run' / 'test.jpg').exists()


@pytest.mark.slow
def test_a_failure_is_logged_and_stops_nothing(data_root, tmp_path, monkeypatch, failures):
    def fail(*_) -> None:
        raise RuntimeError('no room')

    monkeypatch.setattr(Occasional, 'SHARE', 1.0)
    monkeypatch.setattr(pictures, '_save', fail)
    runner = toy_runner(tmp_path / 'run', data_root, [PicturesHook()], [{}] * 4, EPOCHS)
    runner.train()
    assert runner.iter == 8
    assert failures() == [
        f"{action} failed, the run goes on: RuntimeError('no room')"
        for action in ('Drawing a training batch', 'Drawing predictions')
    ]


@pytest.mark.slow
def test_only_the_main_process_draws(data_root, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, 'is_main_process', lambda: False)
    toy_runner(tmp_path / 'run', data_root, [PicturesHook()], [{}] * 4, EPOCHS).train()
    assert not list((tmp_path / 'run').glob('*.jpg'))


@pytest.mark.slow
def test_images_of_the_first_of_several_processes(data_root, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, 'get_world_size', lambda: 3)
    hook = PicturesHook(num_val_images=3)
    runner = toy_runner(tmp_path / 'run', data_root, [hook], [{}], EPOCHS)
    hook.before_val_epoch(runner)
    assert sorted(hook._chosen.values()) == [0, 3, 9]


def test_few_pictures_of_validations_are_kept_evenly(tmp_path):
    others = ('val_epoch_x.jpg', 'val_epoch_1.png', 'my_val_epoch_3.jpg', 'val_iter_10.jpg')
    for name in others:
        (tmp_path / name).write_text('')
    for epoch in range(1, 101):
        (tmp_path / f'val_epoch_{epoch}.jpg').write_text('')
        thin_out(tmp_path)
    kept = sorted(int(path.stem.rpartition('_')[2]) for path in tmp_path.glob('val_epoch_[0-9]*.jpg'))
    assert len(kept) == 6
    assert (kept[0], kept[-1]) == (1, 100)
    assert max(np.diff(kept)) <= 2.5 * 100 / 5
    assert all((tmp_path / name).exists() for name in others)


def test_channel_order_comes_from_the_config():
    detector = dict(data_preprocessor=dict(type='DetDataPreprocessor', bgr_to_rgb=True))
    assert is_bgr(Config(dict(model=detector)))
    assert is_bgr(Config(dict()))
    detector['data_preprocessor'] = dict(bgr_to_rgb=False, rgb_to_bgr=True)
    assert not is_bgr(Config(dict(model=detector)))
    wrapped = dict(
        data_preprocessor=dict(type='MultiBranchDataPreprocessor', data_preprocessor=detector['data_preprocessor'])
    )
    assert not is_bgr(Config(dict(model=wrapped)))


def test_negative_numbers_are_refused():
    with pytest.raises(ValueError, match='num_val_images must not be negative, got -1'):
        PicturesHook(num_val_images=-1)

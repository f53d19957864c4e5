"""What ends a training in its midst is explained: memory, processes that load data, images that became unreadable."""

import errno
import multiprocessing
import os
import re
import shutil
import signal
import time
from collections import namedtuple
from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import MODELS, TRANSFORMS, DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from support.scan import LOAD, CocoFolder, write_picture
from torch import nn
from torch._utils import ExceptionWrapper

from vitdense.commands import train
from vitdense.commands.errors import is_for_users
from vitdense.datasets.named_errors import TransformError, leave_out
from vitdense.engine.failures import LabelError, LoadingError, OutOfMemory, _checkpointing
from vitdense.engine.hooks import CheckpointHook, InvalidLossHook, RecentBatchesHook
from vitdense.engine.runner import TIMEOUT, Runner

PACK = dict(type='mmdet.PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape'))


class Toy(BaseModel):
    """A mean of the image; its third call does something else first."""

    def __init__(self, third=lambda: None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.calls, self.third = 0, third

    def forward(self, inputs, data_samples=None, mode='tensor'):
        self.calls += 1
        if self.calls == 3:
            self.third()
        loss = torch.stack([one.float().mean() for one in inputs]).mean() * self.weight
        return dict(loss=loss) if mode == 'loss' else data_samples


@TRANSFORMS.register_module()
class Trouble:
    """Dies or sleeps at the image ``4.jpg``, where it is loaded by another process."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, data: dict) -> dict:
        if data['img_path'].endswith('train/4.jpg') and multiprocessing.parent_process():
            if self.kind == 'dies':
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        return data


class Seen(BaseMetric):
    """Images that were evaluated."""

    def process(self, data_batch, data_samples) -> None:
        self.results += [sample['img_id'] for sample in data_samples]

    def compute_metrics(self, results) -> dict:
        return dict(seen=sum(results))


def runner(folder, coco, model=None, steps=(), workers=0, batch_size=2, **overrides) -> Runner:
    cfg = coco.config(pipeline=[*LOAD, *steps, PACK])
    loaders = {
        split: ConfigDict(
            dataset=dict(cfg[f'{split}_dataloader'].dataset, test_mode=split == 'val'),
            batch_size=batch_size,
            num_workers=workers,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='pseudo_collate'),
        )
        for split in ('train', 'val')
    }
    loaders['train'].update(overrides)
    with DefaultScope.overwrite_default_scope('mmdet'):
        return Runner(
            model=model or Toy(),
            work_dir=str(folder),
            train_dataloader=loaders['train'],
            val_dataloader=loaders['val'],
            val_evaluator=[Seen()],
            test_dataloader=deepcopy(loaders['val']),
            test_evaluator=[Seen()],
            test_cfg=dict(),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            val_cfg=dict(),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
            default_hooks=dict(
                checkpoint=CheckpointHook(interval=1, by_epoch=False),
                invalid_loss=InvalidLossHook(),
                recent_batches=RecentBatchesHook(),
            ),
            default_scope='mmdet',
            experiment_name=f'{folder.name}{id(coco)}',
        )


@pytest.fixture(scope='module')
def coco(tmp_path_factory) -> CocoFolder:
    return CocoFolder(tmp_path_factory.mktemp('coco'))


@pytest.mark.parametrize(
    'error',
    [
        torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 3 GiB'),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes."),
        MemoryError('Unable to allocate 64.0 GiB'),
    ],
)
def test_out_of_memory_says_what_to_set(error, coco, tmp_path):
    def fail():
        raise error

    with pytest.raises(OutOfMemory) as raised:
        runner(tmp_path, coco, Toy(fail)).train()
    said = str(raised.value)
    assert said.startswith(f'out of memory in iteration 3: {str(error).split(". GPU")[0]}')
    assert 'the batch at hand is that of iteration 3, 2 x 3 x 60 x 80 with 6 objects (5 (' in said
    assert '--cfg-options train_dataloader.batch_size=1 optim_wrapper.accumulative_counts=2, --amp, smaller' in said
    assert said.endswith(f'{tmp_path}/last.pth is there: --resume goes on from it')


SWIN = dict(type='vitdense.Swin', arch='tiny', embed_dims=6, num_heads=(1, 1, 1, 1), depths=(1, 1, 1, 1))
DETR = dict(type='vitdense.DETRHead', num_classes=2, in_channels=48, channels=8, num_heads=1, feedforward_channels=8)


@pytest.mark.parametrize(
    ('backbone', 'head', 'said'),
    [
        (SWIN, DETR, 'model.backbone.with_cp=light model.bbox_head.with_cp=light, then with_cp=True'),
        (dict(SWIN, with_cp='light'), dict(DETR, with_cp=True), 'model.backbone.with_cp=True'),
        (dict(SWIN, with_cp=True), dict(DETR, with_cp='light'), 'model.bbox_head.with_cp=True'),
        (dict(type='mmdet.ResNet', depth=18), dict(DETR, with_cp=True), 'model.backbone.with_cp=True'),
        (dict(SWIN, with_cp=True), dict(DETR, with_cp=True), ''),
    ],
)
@pytest.mark.parametrize('inside', [None, 'detector'])
def test_the_next_amount_of_checkpointing_is_told_by_its_keys(backbone, head, said, inside):
    parts = dict(backbone=backbone, bbox_head=head)
    model = nn.ModuleDict({name: MODELS.build(dict(part)) for name, part in parts.items()})
    if inside:
        model, parts = nn.ModuleDict({inside: model}), {inside: parts}
        said = said.replace('model.', f'model.{inside}.')
    assert _checkpointing(SimpleNamespace(model=model, cfg=Config(dict(model=parts)))) == said


def test_the_largest_batch_is_told(coco, tmp_path):
    def fail():
        raise MemoryError

    resize = dict(type='mmdet.Resize', scale=(1000, 60), keep_ratio=True)
    large = tmp_path / 'data'
    shutil.copytree(coco.root, large)
    other = CocoFolder(large)
    other.content['train']['images'][2]['width'] = 160
    write_picture(large / 'train/3.jpg', 3, (160, 60))
    other.write()
    said = 'the largest of the last 3 is that of iteration 2, 2 x 3 x 60 x 160 with 6 objects'
    with pytest.raises(OutOfMemory, match=said):
        runner(tmp_path / 'run', other, Toy(fail), [resize]).train()


@pytest.mark.slow
@pytest.mark.parametrize(
    ('kind', 'expected'),
    [
        ('dies', r'^a process that loads data ended( \(signal: Killed\))? at \S+/train/4\.jpg; the system kills'),
        ('hangs', r'^no batch within 1\.5 seconds: .* hangs; at hand: \S+/train/4\.jpg \(for \d+ s\)'),
    ],
)
def test_a_process_that_dies_or_hangs_is_named_with_its_image(kind, expected, coco, tmp_path):
    one = runner(tmp_path, coco, steps=[dict(type='Trouble', kind=kind)], workers=1, timeout=1.5, batch_size=1)
    with pytest.raises(LoadingError, match=expected) as raised:
        one.train()
    assert '--resume goes on' in str(raised.value)


@pytest.mark.parametrize('split', ['train', 'test'])
def test_an_error_in_a_process_that_loads_data_is_told_as_any_other(split, coco, tmp_path):
    said = 'folder/4.jpg: Resize failed: error: TransformError\nof two lines'

    def hand_over():
        try:
            raise TransformError(said)
        except TransformError:  # as the other process does, and this one then
            ExceptionWrapper(where='in DataLoader worker process 0').reraise()

    one = runner(tmp_path, coco, Toy(hand_over))
    one.model.calls = 2
    with pytest.raises(TransformError) as raised:
        getattr(one, split)()
    assert str(raised.value) == said
    assert is_for_users(raised.value)


def test_a_full_disk_anywhere_says_where_the_run_goes_on(coco, tmp_path):
    """What vitdense writes says more by itself; this is of the files of mmengine and of others."""

    def fail():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=rf'disk full: a file in {tmp_path} was not written\n.*goes on from it$'):
        runner(tmp_path, coco, Toy(fail)).train()


@pytest.mark.parametrize('said', ['Target 9 is out of bounds.', 'CUDA error: device-side assert triggered'])
def test_labels_without_a_class_are_named_with_their_map(said, coco, tmp_path):
    def fail():
        raise IndexError(said)

    one = runner(tmp_path, coco, Toy(fail))
    [hook] = [hook for hook in one.hooks if isinstance(hook, RecentBatchesHook)]
    labels = [torch.tensor([0, 1, 255]), torch.tensor([1, 9, 3])]  # the data set has three classes
    note = hook._note

    def with_maps(*args):
        note(*args)
        hook.samples = [
            SegDataSample(gt_sem_seg=PixelData(data=one[None, None]), metainfo=dict(seg_map_path=f'maps/{i}.png'))
            for i, one in enumerate(labels)
        ]

    hook._note = with_maps
    with pytest.raises(LabelError, match=r'^iteration 3: maps/1\.png has the labels 3, 9, expected 0 to 2 or 255') as e:
        one.train()
    assert is_for_users(e.value)
    labels.pop()
    with pytest.raises(IndexError, match=said):
        runner(tmp_path / said[:6], coco, Toy(fail)).train()


def test_an_evaluation_is_told_by_its_own_options(coco, tmp_path):
    def gone():
        raise RuntimeError('DataLoader worker (pid 12) is killed by signal: Killed. ')

    def full():
        raise MemoryError

    for fail, kind, said in (
        (gone, LoadingError, r'fewer test_dataloader\.num_workers need less$'),
        (
            full,
            OutOfMemory,
            r'of the test set: MemoryError\n.*\n  what takes less: --cfg-options test_dataloader\.batch_',
        ),
    ):
        one = runner(tmp_path / kind.__name__, coco, Toy(fail))
        one.model.calls = 2
        with pytest.raises(kind, match=said) as raised:
            one.test()
        assert '--resume' not in str(raised.value)
    one = runner(tmp_path / 'val', coco, Toy(full))
    one.model.calls = -1  # three steps, then the validation
    with pytest.raises(OutOfMemory, match=r'of the val set: MemoryError\n.*\n.*val_dataloader\.batch_size=1') as raised:
        one.train()
    assert str(raised.value).endswith('last.pth is there: --resume goes on from it')


def test_a_process_that_dies_while_something_else_is_done(coco, tmp_path):
    """PyTorch raises where the process that trains is at that moment; a writer of files, say, then raises as well."""

    def fail():
        try:
            raise RuntimeError('DataLoader worker (pid 12) is killed by signal: Killed. ')
        finally:
            raise RuntimeError('unexpected pos 64 vs 0')

    with pytest.raises(LoadingError, match=r'^a process that loads data ended \(signal: Killed\); the system kills'):
        runner(tmp_path, coco, Toy(fail)).train()


def test_no_loader_waits_for_ever(coco, tmp_path):
    assert runner(tmp_path / 'a', coco, workers=1).train_dataloader.timeout == TIMEOUT
    assert runner(tmp_path / 'b', coco, workers=1, timeout=7).train_dataloader.timeout == 7
    assert runner(tmp_path / 'c', coco).train_dataloader.timeout == 0


@pytest.mark.parametrize('damage', ['empty', 'gone', 'cut', 'text'])
def test_images_that_became_unreadable(damage, tmp_path, capsys):
    """After the runner was built; at the end of the training the checkpoints of the steps before are there."""

    def spoil(root, name):
        path = root / name
        content = path.read_bytes()
        path.unlink()
        if damage != 'gone':
            path.write_bytes({'empty': b'', 'cut': content[:100], 'text': b'no image'}[damage])

    for lenient in (False, True):
        coco = CocoFolder(tmp_path / f'data{lenient}')
        model = Toy()
        one = runner(tmp_path / f'run{lenient}', coco, model)
        for loader in (one.train_dataloader, one.val_dataloader) if lenient else ():
            leave_out(loader)
        for name in ('train/4.jpg', 'val/1.jpg'):
            spoil(coco.root, name)
        if not lenient:
            with pytest.raises(ValueError, match=r'train/4\.jpg: LoadImageFromFile failed: '):
                one.train()
            assert (tmp_path / 'runFalse/last.pth').is_file()
            continue
        one.train()
        assert model.calls == 3 + 1
        out = capsys.readouterr().out
        assert re.search(r'left out: \S+/train/4\.jpg: LoadImageFromFile failed: ', out)
        assert re.search(r'left out: \S+/val/1\.jpg: LoadImageFromFile failed: ', out)
        assert one.message_hub.get_scalar('val/seen').current() == 2


@pytest.mark.parametrize('batch_size', [1, 2])
@pytest.mark.parametrize('workers', [0, pytest.param(1, marks=pytest.mark.slow)])
def test_an_evaluation_goes_on_without_an_image(workers, batch_size, tmp_path):
    coco = CocoFolder(tmp_path / 'data')
    one = runner(tmp_path / 'run', coco, workers=workers)
    cfg = dict(coco.config(pipeline=[*LOAD, PACK]).val_dataloader.dataset, test_mode=True)
    loader = dict(
        dataset=cfg, batch_size=batch_size, num_workers=workers, sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='pseudo_collate'),
    )  # fmt: skip
    with DefaultScope.overwrite_default_scope('mmdet'):
        loader = one.build_dataloader(loader)
    leave_out(loader)
    (coco.root / 'val/1.jpg').write_bytes(b'')
    seen = [sample.img_id for batch in loader for sample in batch['data_samples']]
    assert seen == [2]


def test_shared_memory_that_is_too_small(coco, tmp_path, monkeypatch):
    usage = namedtuple('usage', 'total used free')
    one = runner(tmp_path, coco, workers=2)
    needed = 2 * 2 * 3 * 60 * 80
    monkeypatch.setattr(train.shutil, 'disk_usage', lambda path: usage(0, 0, needed))
    train.check_shared_memory(one)
    monkeypatch.setattr(train.shutil, 'disk_usage', lambda path: usage(0, 0, needed - 1))
    train.check_shared_memory(runner(tmp_path / 'no workers', coco))
    with pytest.raises(
        OSError, match=r'^/dev/shm has 0\.1 MB free, and 2 processes with batches of 2 images need about'
    ):
        train.check_shared_memory(one)

"""The checkpoints of a run: two generations, whole or not there, and nothing outside of its folder is touched."""

import errno
import os
import re
import resource
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner as BareRunner
from support.line import Toy, make, validation

from vitdense.checkpoint.seal import is_intact, seal
from vitdense.engine.generations import newest
from vitdense.engine.hooks import CheckpointHook
from vitdense.engine.runner import Runner


def train(folder: Path, epochs: int = 3, hook: dict | None = None, **overrides) -> Runner:
    loop = dict(by_epoch=True, max_epochs=epochs)
    hooks = dict(checkpoint=CheckpointHook(**(hook or dict(interval=1, max_keep_ckpts=1))))
    runner = make(Runner, folder, Toy(), hooks, **{'train_cfg': loop, **overrides})
    runner.train()
    return runner


def names(folder: Path, pattern: str = '*.pth*') -> set[str]:
    return {path.name for path in folder.glob(pattern)}


def epoch(path: Path) -> int:
    return torch.load(path, weights_only=True)['meta']['epoch']


@pytest.fixture(scope='module')
def three(tmp_path_factory) -> Path:
    """A folder after three epochs."""
    folder = tmp_path_factory.mktemp('run') / 'exp'
    train(folder)
    return folder


@pytest.fixture
def run(three, tmp_path) -> Path:
    """A copy of it; ``cp`` makes files of links."""
    return Path(shutil.copytree(three, tmp_path / 'exp'))


def test_two_generations_and_no_more(three):
    assert names(three) == {'epoch_3.pth', 'last.pth', 'previous.pth'}
    assert (epoch(three / 'last.pth'), epoch(three / 'previous.pth')) == (3, 2)
    assert (three / 'last.pth').samefile(three / 'epoch_3.pth')
    assert not (three / 'last.pth').samefile(three / 'previous.pth')
    assert all(is_intact(path) for path in three.glob('*.pth'))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.write_bytes(content)


FAULTS = {
    'truncated': (cut, 'last.pth is truncated'),
    'empty': (lambda path: path.write_bytes(b''), r'last.pth is empty \(0 bytes\)'),
    'flipped': (flip, 'last.pth is damaged: its content is not that of its check sum'),
    'missing': (Path.unlink, 'last.pth is missing'),
    'weights': (lambda path: torch.save(dict(state_dict=dict(a=torch.ones(1))), path), 'last.pth holds weights and no'),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_the_newest_whole_checkpoint_is_found(fault, run):
    spoil, said = FAULTS[fault]
    assert newest(run).path.name == 'last.pth'
    spoil(run / 'last.pth')
    found = newest(run)  # a copy of the folder has the last epoch twice
    assert (found.path.name, found.iteration) == ('epoch_3.pth', 9)
    (run / 'epoch_3.pth').unlink()
    found = newest(run)
    assert (found.path.name, found.iteration) == ('previous.pth', 6)
    [reason] = found.passed
    assert re.match(said, reason)
    cut(run / 'previous.pth')
    with pytest.raises(ValueError, match=f'no whole checkpoint in .*{said}') as raised:
        newest(run)
    assert 'previous.pth is truncated' in str(raised.value)


def test_a_link_is_not_read_twice(three, tmp_path):
    for name in ('last.pth', 'epoch_3.pth', 'previous.pth'):
        shutil.copyfile(three / name, tmp_path / name)
    (tmp_path / 'epoch_3.pth').unlink()
    os.link(tmp_path / 'last.pth', tmp_path / 'epoch_3.pth')
    flip(tmp_path / 'last.pth')
    assert newest(tmp_path).path.name == 'previous.pth'
    assert len(newest(tmp_path).passed) == 1


def test_a_run_that_went_back_goes_on_where_it_went(run):
    """The newest is what was saved last, not what has the most iterations."""
    content = torch.load(run / 'previous.pth', weights_only=True)
    content['meta'].update(time='20990101_000000')
    torch.save(content, run / 'last.pth')
    seal(run / 'last.pth')
    assert newest(run).iteration == 6


def test_checkpoints_of_other_runs_are_passed_over(run):
    for name, own in (('last.pth', 'other'), ('epoch_3.pth', None), ('previous.pth', 'mine')):
        content = torch.load(run / name, weights_only=True)
        content['meta']['run'] = own
        torch.save(content, run / name)
    assert newest(run, 'mine').path.name == 'epoch_3.pth'  # of a version that did not write it
    (run / 'epoch_3.pth').unlink()
    assert newest(run, 'mine').path.name == 'previous.pth'
    assert newest(run, 'mine').passed == ('last.pth is of another run',)


@pytest.mark.parametrize(
    ('number', 'said'),
    [
        (errno.ENOSPC, 'disk full'),
        (errno.EDQUOT, 'disk quota used up'),
        (errno.EIO, 'the disk failed'),
        (errno.EFBIG, r'larger than a file may be \(ulimit -f\)'),
        (errno.EROFS, 'the file system is read-only'),
        (errno.EACCES, 'Permission denied'),
    ],
)
@pytest.mark.parametrize('where', ['write', 'sync'])
def test_a_disk_that_fails_leaves_the_earlier_ones(where, number, said, tmp_path, monkeypatch):
    save, fsync, written = BareRunner.save_checkpoint, os.fsync, []

    def fail(self, out_dir, filename, *args, **kwargs):
        written.append(filename)
        if 'epoch_3' in filename and where == 'write':
            Path(out_dir, filename).write_bytes(b'half')
            raise OSError(number, os.strerror(number))
        save(self, out_dir, filename, *args, **kwargs)

    def fail_late(handle):
        if 'epoch_3' in written[-1] and where == 'sync':
            raise OSError(number, os.strerror(number))
        fsync(handle)

    monkeypatch.setattr(BareRunner, 'save_checkpoint', fail)
    monkeypatch.setattr(os, 'fsync', fail_late)
    with pytest.raises(OSError, match=rf'{said}: checkpoint .*epoch_3\.pth was not saved, \d+ MB .*--resume') as raised:
        train(tmp_path)
    assert raised.value.errno == number
    assert '\n' not in str(raised.value)
    assert names(tmp_path) == {'epoch_2.pth', 'last.pth', 'previous.pth'}
    assert epoch(tmp_path / 'last.pth') == 2


def test_a_limit_of_the_size_of_files(tmp_path, monkeypatch):
    before, save = resource.getrlimit(resource.RLIMIT_FSIZE), BareRunner.save_checkpoint

    def limited(self, out_dir, filename, *args, **kwargs):
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000 if 'epoch_2' in filename else before[0], before[1]))
        try:
            save(self, out_dir, filename, *args, **kwargs)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    monkeypatch.setattr(BareRunner, 'save_checkpoint', limited)
    with pytest.raises(OSError, match=r'larger than a file may be \(ulimit -f\): checkpoint .*epoch_2\.pth was not'):
        train(tmp_path)
    assert names(tmp_path) == {'epoch_1.pth', 'last.pth'}


def test_files_and_folder_are_on_the_disk(tmp_path, monkeypatch):
    """A loss of power leaves the old file or the new one: both are written before they are renamed."""
    events = []
    fsync, replace = os.fsync, os.replace

    def synced(handle):
        events.append(('sync', Path(os.readlink(f'/proc/self/fd/{handle}')).name))
        fsync(handle)

    def replaced(old, new):
        events.append(('rename', Path(new).name))
        replace(old, new)

    monkeypatch.setattr(os, 'fsync', synced)
    monkeypatch.setattr(os, 'replace', replaced)
    train(tmp_path / 'exp', epochs=1)
    files = [event for event in events if event[1].endswith(('.pth', 'exp'))]
    part = f'.epoch_1.{os.getpid()}.part.pth'
    assert files == [
        ('sync', part),
        ('rename', 'epoch_1.pth'),
        ('sync', 'exp'),
        ('rename', 'last.pth'),
        ('sync', 'exp'),
    ]


def test_where_there_are_no_links_files_are_copied(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.EPERM, 'Operation not permitted')

    monkeypatch.setattr(os, 'link', refuse)
    train(tmp_path)
    assert (epoch(tmp_path / 'last.pth'), epoch(tmp_path / 'previous.pth')) == (3, 2)
    assert not (tmp_path / 'last.pth').samefile(tmp_path / 'epoch_3.pth')


def best_of(folder: Path, scores: list[float], **overrides) -> None:
    """Train an epoch for each score; ``best.pth`` goes by it."""
    known = iter(scores)
    settings = validation()
    settings['val_evaluator'].evaluate = lambda size: dict(score=next(known))
    settings['train_cfg']['max_epochs'] = overrides.pop('epochs', len(scores))
    hook = dict(interval=1, save_best='score', rule='greater', max_keep_ckpts=1)
    hook |= overrides.pop('hook', {})
    make(Runner, folder, Toy(), dict(checkpoint=CheckpointHook(**hook)), **settings, **overrides).train()


def test_a_copied_folder_has_its_own_best_checkpoint(tmp_path):
    best_of(tmp_path / 'exp', [0.1])
    shutil.copytree(tmp_path / 'exp', tmp_path / 'copy')
    before = {path.name: path.read_bytes() for path in (tmp_path / 'exp').glob('*.pth')}
    last = torch.load(tmp_path / 'exp/last.pth', weights_only=True)
    assert last['message_hub']['runtime_info']['best_ckpt'] == 'best_score_epoch_1.pth'
    best_of(tmp_path / 'copy', [0.2], epochs=2, resume=True, load_from=str(tmp_path / 'copy/last.pth'))
    assert names(tmp_path / 'copy', 'best*') == {'best.pth', 'best_score_epoch_2.pth'}
    assert {path.name: path.read_bytes() for path in (tmp_path / 'exp').glob('*.pth')} == before


@pytest.mark.slow
@pytest.mark.parametrize('key', ['best_ckpt', 'best_ckpt_score', 'last_ckpt'])
def test_a_checkpoint_that_names_something_to_delete(key, tmp_path):
    """mmengine removes what is called the best one, a folder with all that is in it."""
    victim = tmp_path / 'victim'
    (victim / 'best_x.pth').mkdir(parents=True)
    (victim / 'best_x.pth/thesis.tex').write_text('x')
    (victim / 'best_score_epoch_1.pth').write_text('x')
    several = dict(hook=dict(save_best=['score', 'other'], rule='greater')) if key == 'best_ckpt_score' else {}
    best_of(tmp_path / 'exp', [0.1], **several)
    (tmp_path / 'exp/best_folder.pth').mkdir()
    (tmp_path / 'exp/notes.txt').write_text('x')
    (tmp_path / 'exp/best_link.pth').symlink_to(victim / 'best_x.pth')
    start = (tmp_path / 'exp/last.pth').read_bytes()
    for target in (
        victim,
        victim / 'best_x.pth',
        victim / 'best_score_epoch_1.pth',
        tmp_path / 'exp',
        'best_folder.pth',
        'notes.txt',
        'best_link.pth',
        '../victim/best_x.pth',
        7,
        None,
    ):
        (tmp_path / 'exp/last.pth').write_bytes(start)
        content = torch.load(tmp_path / 'exp/last.pth', weights_only=True)
        hostile = target if target is None or isinstance(target, int) else str(target)
        content['message_hub']['runtime_info'] |= {key: hostile, 'keep_ckpt_ids': ['../../victim', hostile, -1]}
        content['message_hub']['resumed_keys'] |= {key: True, 'keep_ckpt_ids': True}
        torch.save(content, tmp_path / 'exp/last.pth')
        resumed = dict(epochs=2, resume=True, load_from=str(tmp_path / 'exp/last.pth'))
        best_of(tmp_path / 'exp', [0.2], **several, **resumed)
        assert (victim / 'best_x.pth/thesis.tex').is_file()
        assert (victim / 'best_score_epoch_1.pth').is_file()
        assert (tmp_path / 'exp/best_folder.pth').is_dir()
        assert (tmp_path / 'exp/notes.txt').is_file()


@pytest.mark.parametrize(
    ('hook', 'expected'),
    [
        (dict(interval=-1), {'last.pth', 'epoch_3.pth'}),
        (dict(interval=-1, save_last=False), set()),
        (dict(interval=1, max_keep_ckpts=2), {'last.pth', 'previous.pth', 'epoch_2.pth', 'epoch_3.pth'}),
        (dict(interval=2), {'last.pth', 'previous.pth', 'epoch_2.pth', 'epoch_3.pth'}),
        (dict(interval=1, filename_tmpl='e{}.pth'), {'last.pth', 'previous.pth', 'e1.pth', 'e2.pth', 'e3.pth'}),
    ],
)
def test_settings_of_a_config_are_kept(hook, expected, tmp_path):
    train(tmp_path, hook=hook)
    assert names(tmp_path) == expected


def test_checkpoints_in_another_folder(tmp_path):
    train(tmp_path / 'exp', hook=dict(interval=1, max_keep_ckpts=1, out_dir=str(tmp_path / 'disk')))
    assert names(tmp_path / 'exp') == {'last.pth', 'previous.pth'}
    assert names(tmp_path / 'disk/exp') == {'epoch_3.pth'}
    assert (tmp_path / 'exp/last_checkpoint').read_text() == str(tmp_path / 'disk/exp/epoch_3.pth')

"""Folders of runs: nothing of an earlier run is lost, and no two runs share one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vitdense.engine.run_folder import ABOUT, LOCK, RunFolder

HOLD = """
import sys
from pathlib import Path
from vitdense.engine.run_folder import RunFolder
folder = RunFolder(Path(sys.argv[1]))
print('held', flush=True)
sys.stdin.read()
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_each_run_gets_a_folder_of_its_own(tmp_path):
    wanted = tmp_path / 'runs' / 'exp'
    for name in ('exp', 'exp_run2', 'exp_run3'):
        folder = RunFolder.fresh(str(wanted))
        assert folder.path == wanted.with_name(name)
        (folder.path / 'results.csv').write_text(name)
        folder.lock.release()
    assert (wanted / 'results.csv').read_text() == 'exp'


def test_an_empty_folder_and_a_folder_of_other_files(tmp_path):
    (tmp_path / 'empty').mkdir()
    assert RunFolder.fresh(str(tmp_path / 'empty')).path == tmp_path / 'empty'
    (tmp_path / 'thesis').mkdir()
    (tmp_path / 'thesis/chapter.tex').write_text('no run')
    assert RunFolder.fresh(str(tmp_path / 'thesis')).path == tmp_path / 'thesis_run2'
    with pytest.raises(FileExistsError, match='holds files but no run'):
        RunFolder.fresh(str(tmp_path / 'thesis'), overwrite=True)
    assert contents(tmp_path / 'thesis') == {'chapter.tex': b'no run'}


def test_overwrite_clears_an_earlier_run_and_follows_no_links(tmp_path):
    outside = tmp_path / 'data'
    outside.mkdir()
    (outside / 'a.jpg').write_text('keep')
    first = RunFolder.fresh(str(tmp_path / 'exp'))
    (first.path / 'vis_data').mkdir()
    (first.path / 'vis_data/scalars.json').write_text('{}')
    (first.path / 'data').symlink_to(outside)
    (first.path / 'results.csv').symlink_to(outside / 'a.jpg')
    first.lock.release()
    second = RunFolder.fresh(str(tmp_path / 'exp'), overwrite=True)
    assert second.path == first.path
    assert {path.name for path in second.path.iterdir()} == {LOCK, ABOUT, 'data'}
    assert (outside / 'a.jpg').read_text() == 'keep'


WRITTEN = (
    'last.pth', 'previous.pth', 'best.pth', 'best_coco_bbox_mAP_epoch_2.pth', 'epoch_2.pth', 'iter_8.pth',
    'epoch_2-0a1b2c3d.pth', 'unused.pth', '.next.pth', 'results.csv', 'results_1.csv', 'results.png',
    'per_class_segm.csv', 'train_batch_0.jpg', 'val_epoch_2.jpg', 'labels.png', 'confusion_matrix.png', 'exp.py',
    'environment.txt', 'last_checkpoint', 'clean/train_dataloader_dataset.json', '20260101_120000/20260101_120000.log',
    '20260101_120000/vis_data/scalars.json', '20260101_120000/vis_data/vis_image/a.png',
)  # fmt: skip
OTHERS = ('notes.txt', 'model.onnx', 'mine.py', 'photo.jpg', 'clean/mine.txt', 'predictions/a.jpg', 'weights.pth')


def test_overwrite_removes_what_a_run_wrote(tmp_path):
    RunFolder.fresh(str(tmp_path / 'exp'), config='exp').lock.release()
    fill(tmp_path / 'exp', *WRITTEN, *OTHERS)
    RunFolder.fresh(str(tmp_path / 'exp'), True, 'exp').lock.release()
    assert set(contents(tmp_path / 'exp')) == {LOCK, ABOUT, *OTHERS}
    assert {path.name for path in (tmp_path / 'exp').iterdir() if path.is_dir()} == {'clean', 'predictions'}


@pytest.mark.parametrize('path', ['.', '..', '{home}'])
def test_the_folder_of_the_process_is_no_folder_of_a_run(path, tmp_path, monkeypatch):
    (tmp_path / 'below').mkdir()
    monkeypatch.chdir(tmp_path / 'below' if path == '..' else tmp_path)
    given = path.format(home=tmp_path)
    with pytest.raises(FileExistsError, match=r'--work-dir .*not empty; name one for the run'):
        RunFolder.fresh(given)
    with pytest.raises(FileExistsError, match='holds files but no run'):
        RunFolder.fresh(given, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ['below']


def test_a_name_that_is_no_text_is_refused(tmp_path):
    """PyTorch would write checkpoints there, and could not read them."""
    above = tmp_path / os.fsdecode(b'a\xffb')
    for name in (above, above / 'run'):
        for begin in (RunFolder.fresh, RunFolder.latest):
            with pytest.raises(ValueError, match=r'a\\xffb.*is not in UTF-8'):
                begin(str(name))
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_of_the_process_and_that_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    assert RunFolder.fresh('.').path == tmp_path / 'here'
    assert RunFolder.fresh('~/my runs/a b').path == tmp_path / 'my runs/a b'
    assert set(os.listdir(tmp_path / 'here')) == {LOCK, ABOUT}


@pytest.mark.slow
def test_two_processes_cannot_share_a_folder(tmp_path):
    held = tmp_path / 'exp'
    process = subprocess.Popen(
        [sys.executable, '-c', HOLD, held], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == 'held\n'
    (held / 'last.pth').write_text('')
    with pytest.raises(BlockingIOError, match=r"'.*exp' is in use by another run"):
        RunFolder.latest(str(held))
    with pytest.raises(BlockingIOError, match='in use'):
        RunFolder.fresh(str(held), overwrite=True)
    assert (held / 'last.pth').is_file()
    process.communicate('')
    assert RunFolder.latest(str(held)).path == held


def run(folder: Path, config: str, wanted: str | None = None, checkpoint: str = 'last.pth') -> None:
    """A run of a config; one of before it said so if ``wanted`` is none."""
    fill(folder, checkpoint, f'{config}.py')
    if wanted is not None:
        (folder / ABOUT).write_text(json.dumps(dict(config=config, folder=wanted, run='x')))


@pytest.mark.parametrize('name', ['exp', 'exp [x] #1 *?'])
def test_latest_run_that_has_a_checkpoint(name, tmp_path):
    for end in ('', '_run2', '_run10', '_run3'):
        run(tmp_path / f'{name}{end}', name, name)
    run(tmp_path / f'{name}_run11', name, name, 'notes.pth')
    for end in ('_run12', '_running13', '14', '_run-15'):
        run(tmp_path / f'{name}{end}', f'{name}{end}', f'{name}{end}')
    assert RunFolder.latest(str(tmp_path / name), name, name).path == tmp_path / f'{name}_run10'
    with pytest.raises(FileNotFoundError, match=r'no checkpoint in .*other'):
        RunFolder.latest(str(tmp_path / 'other'))


@pytest.mark.parametrize('checkpoint', ['last.pth', 'previous.pth', 'epoch_3.pth', 'iter_200.pth'])
def test_any_checkpoint_makes_a_run_that_can_go_on(checkpoint, tmp_path):
    run(tmp_path / 'exp', 'exp', 'exp', checkpoint)
    assert RunFolder.latest(str(tmp_path / 'exp')).path == tmp_path / 'exp'


@pytest.mark.parametrize('said', [True, False])
def test_the_run_of_another_config_is_left_alone(said, tmp_path):
    """exp2 of exp2.py, which was once also the name of the second run of exp.py; and of lr12 beside lr1."""
    run(tmp_path / 'exp', 'exp', 'exp' if said else None)
    run(tmp_path / 'exp2', 'exp2', 'exp2' if said else None)
    assert RunFolder.latest(str(tmp_path / 'exp'), 'exp', 'exp').path == tmp_path / 'exp'
    run(tmp_path / 'lr1', 'exp', 'lr1' if said else None)
    run(tmp_path / 'lr12', 'exp', 'lr12' if said else None)
    assert RunFolder.latest(str(tmp_path / 'lr1'), 'exp', 'exp').path == tmp_path / 'lr1'


def test_runs_of_the_former_naming_go_on(tmp_path):
    for end in ('', '2', '3'):
        run(tmp_path / f'exp{end}', 'exp')
    run(tmp_path / 'exp4', 'exp4')
    assert RunFolder.latest(str(tmp_path / 'exp'), 'exp', 'exp').path == tmp_path / 'exp3'
    for end in ('', '5'):
        run(tmp_path / f'exp_swin_tiny{end}', 'exp')
    swapped = str(tmp_path / 'exp_swin_tiny')
    assert RunFolder.latest(swapped, 'exp', 'exp_swin_tiny').path == tmp_path / 'exp_swin_tiny5'
    run(tmp_path / 'exp_run2', 'exp', 'exp')
    assert RunFolder.latest(str(tmp_path / 'exp'), 'exp', 'exp').path == tmp_path / 'exp_run2'


@pytest.mark.parametrize('content', [b'', b'[]', b'{"folder": 3}', b'x', b'\xff', b'[' * 100_000, 'pipe', '/dev/zero'])
def test_a_damaged_description_is_none(content, tmp_path):
    run(tmp_path / 'exp', 'exp')
    path = tmp_path / 'exp' / ABOUT
    path.unlink(missing_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        os.mkfifo(path) if content == 'pipe' else path.symlink_to(content)
    assert RunFolder.latest(str(tmp_path / 'exp'), 'exp', 'exp').about == {}


@pytest.mark.parametrize('name', ['file', 'file/below'])
def test_a_folder_that_cannot_be_written_is_named(name, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError, match=r'file.* cannot be written to'):
        RunFolder(tmp_path / name)


STARTED = ['run.lock', 'config.py', 'environment.txt', '20260101_120000/20260101_120000.log', 'clean/val.json']


def test_a_failed_start_leaves_nothing(tmp_path):
    folder = RunFolder.fresh(str(tmp_path / 'work_dirs/runs/exp'))
    fill(folder.path, *STARTED, '20260101_120000/vis_data/config.py')
    folder.leave(failed=True)
    assert list(tmp_path.iterdir()) == []
    assert RunFolder.fresh(str(tmp_path / 'work_dirs/runs/exp')).path.name == 'exp'


def test_folders_that_others_use_stay(tmp_path):
    folder = RunFolder.fresh(str(tmp_path / 'work_dirs/one'))
    other = RunFolder.fresh(str(tmp_path / 'work_dirs/two'))
    folder.leave(failed=True)
    assert [path.name for path in (tmp_path / 'work_dirs').iterdir()] == ['two']
    other.leave()
    assert other.path.is_dir()


@pytest.mark.parametrize('name', ['labels.png', 'epoch_1.pth', 'results.csv', 'notes.txt', 'a/b.log', 'test.jpg'])
def test_anything_of_a_run_is_kept(name, tmp_path):
    folder = RunFolder.fresh(str(tmp_path / 'exp'))
    fill(folder.path, *STARTED, name)
    folder.leave(failed=True)
    assert (tmp_path / 'exp' / name).is_file()


def test_a_folder_that_was_there_is_kept(tmp_path):
    (tmp_path / 'exp').mkdir()
    RunFolder.fresh(str(tmp_path / 'exp')).leave(failed=True)
    assert (tmp_path / 'exp').is_dir()

"""Folders of runs: nothing of an earlier run is lost, and no two runs share one."""

import subprocess
import sys
from pathlib import Path

import pytest

from vitdense.engine.run_folder import LOCK, RunFolder

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


def test_each_run_gets_a_folder_of_its_own(tmp_path):
    wanted = tmp_path / 'runs' / 'exp'
    for name in ('exp', 'exp2', 'exp3'):
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
    assert RunFolder.fresh(str(tmp_path / 'thesis')).path == tmp_path / 'thesis2'
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
    first.lock.release()
    second = RunFolder.fresh(str(tmp_path / 'exp'), overwrite=True)
    assert second.path == first.path
    assert set(contents(second.path)) == {LOCK}
    assert (outside / 'a.jpg').read_text() == 'keep'


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


@pytest.mark.parametrize('name', ['exp', 'exp [x] #1 *?'])
def test_latest_run_that_has_a_checkpoint(name, tmp_path):
    for end in ('', '2', '10', '11', 'eriment12', '-3'):
        (tmp_path / f'{name}{end}').mkdir()
        if end != '11':
            (tmp_path / f'{name}{end}' / 'last.pth').write_text('')
    assert RunFolder.latest(str(tmp_path / name)).path == tmp_path / f'{name}10'
    with pytest.raises(FileNotFoundError, match=r'no last\.pth in .*other'):
        RunFolder.latest(str(tmp_path / 'other'))


@pytest.mark.parametrize('name', ['file', 'file/below'])
def test_a_folder_that_cannot_be_written_is_named(name, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError, match=r'file.* cannot be written to'):
        RunFolder(tmp_path / name)


STARTED = ['run.lock', 'config.py', 'environment.txt', '20260101_120000/20260101_120000.log', 'clean/val.json']


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


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

"""``vitdense predict``: what it writes, how it goes on, and what it says."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from support import ROOT
from support.trained import work_dir

import vitdense
from vitdense import commands
from vitdense.commands import parser_of

NAMES = ['a/0.jpg', 'a/1.jpg', 'b/0.jpg', 'b/1.jpg']


@pytest.fixture(scope='module')
def home(tmp_path_factory) -> Path:
    """Work dirs of a detector and of a segmentor."""
    home = tmp_path_factory.mktemp('trained')
    for kind in ('detector', 'maps'):
        work_dir(kind, home)
    return home


@pytest.fixture
def predict(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*sources, kind: str = 'detector', code: int = 0, **options) -> Path:
        line = [*map(str, sources), '--model', str(home / kind), '--threshold', '0.5', '--device', 'cpu']
        for name, value in options.items():
            line += [f'--{name.replace("_", "-")}', *([] if value is True else [str(value)])]
        assert commands.run('predict', parser_of('predict').parse_args(line)) == code
        return Path(options.get('out', 'predictions'))

    return run


def files(folder: Path, pattern: str = '*') -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob(pattern) if path.is_file())


def test_what_is_written_of_a_folder(predict, home, capsys):
    out = predict(home / 'data/images', batch_size=3)
    assert files(out / 'pictures') == NAMES
    assert all(Image.open(out / 'pictures' / name).size == (80, 60) for name in NAMES)
    coco = COCO(str(out / 'predictions.json'))
    assert [image['file_name'] for image in coco.loadImgs(coco.getImgIds())] == NAMES
    assert [one['name'] for one in coco.loadCats(coco.getCatIds())] == ['disc', 'slab']
    results = vitdense.load(home / 'detector', device='cpu').predict(home / 'data/images', threshold=0.5, batch_size=3)
    for image_id, result in enumerate(results, 1):
        found = coco.loadAnns(coco.getAnnIds(image_id))
        assert len(found) == len(result) > 0
        np.testing.assert_allclose([one['score'] for one in found], result.scores)
        np.testing.assert_allclose([one['area'] for one in found], [one['area'] for one in result.to_coco()])
    assert '4 sources in predictions; results: predictions/predictions.json' in capsys.readouterr().out


def test_maps_have_the_palette(predict, home):
    out = predict(home / 'data/images', kind='maps')
    assert files(out / 'maps') == [f'{name}.png' for name in NAMES]
    [result] = vitdense.load(home / 'maps', device='cpu').predict(home / 'data/images/a/0.jpg')
    with Image.open(out / 'maps/a/0.jpg.png') as picture:
        assert picture.mode == 'P'
        np.testing.assert_array_equal(np.asarray(picture), result.semantic_map)
        assert picture.getpalette()[:6] == [200, 0, 0, 0, 0, 200]
    content = json.loads((out / 'predictions.json').read_text())
    assert content['images'][0]['map'] == 'maps/a/0.jpg.png'
    assert sum(one['area'] for one in content['annotations']) == 4 * 60 * 80


def test_names_of_all_kinds(predict, home, tmp_path):
    folder = tmp_path / 'my (photos), [1] = ü'
    folder.mkdir()
    for name in ('x y.png', 'x.tif', '100%.webp', '#1.gif'):
        Image.new('RGB', (64, 48), (90, 20, 30)).save(folder / name)
    out = predict(folder, folder / 'x.tif', no_pictures=True)
    assert not (out / 'pictures').exists()
    assert len(json.loads((out / 'predictions.json').read_text())['images']) == 4
    out = predict(folder, folder / 'x.tif', out='drawn')
    assert files(out / 'pictures') == ['#1.gif.png', '100%.webp', 'x y.png', 'x.tif.png']


def test_equal_names_of_several_folders(predict, home, tmp_path):
    for place in ('one/deep', 'two'):
        (tmp_path / place).mkdir(parents=True)
        Image.new('RGB', (64, 48)).save(tmp_path / place / 'same.png')
    out = predict('one', 'two/same.png')
    assert files(out / 'pictures') == ['one/deep/same.png', 'two/same.png']


def test_a_file_that_cannot_be_read_is_named_at_the_end(predict, home, tmp_path, capsys):
    (tmp_path / 'text.jpg').write_text('text')
    out = predict('text.jpg', home / 'data/images/a', code=1)
    assert files(out / 'pictures') == ['0.jpg', '1.jpg'] or len(files(out / 'pictures')) == 2
    captured = capsys.readouterr()
    assert captured.err == 'error: text.jpg cannot be read: it is no image file\n'
    assert '2 sources in predictions' in captured.out


def test_a_second_start_goes_on(predict, home, capsys):
    whole = predict(home / 'data/images', out='whole')
    out = predict(home / 'data/images')
    lines = (out / 'progress_0.jsonl').read_text().splitlines(keepends=True)
    (out / 'progress_0.jsonl').write_text(''.join(lines[:3]) + lines[3][:20])  # killed while it wrote
    (out / 'predictions.json').unlink()
    before = (out / 'pictures' / NAMES[0]).stat().st_mtime_ns
    capsys.readouterr()
    predict(home / 'data/images')
    assert '4 sources in predictions, 2 of them by an earlier start' in capsys.readouterr().out
    assert (out / 'pictures' / NAMES[0]).stat().st_mtime_ns == before
    assert (out / 'predictions.json').read_text() == (whole / 'predictions.json').read_text()


def test_what_an_earlier_start_noted_may_be_damaged(predict, home, capsys):
    out = predict(home / 'data/images')
    note = out / 'progress_0.jsonl'
    whole = note.read_bytes()
    for damage, left in ((b'\xff\xfe\x00\n', 4), (b'[' * 100_000 + b'\n', 4), (b'[1]\n5\n{}\n{"path": 1}\n', 4)):
        note.write_bytes(whole.replace(b'\n', b'\n' + damage, 1))
        predict(home / 'data/images')
        assert f'4 sources in predictions, {left} of them by an earlier start' in capsys.readouterr().out
    note.unlink()
    os.mkfifo(note)
    with pytest.raises(OSError, match=r'progress_0\.jsonl is a pipe, expected a regular file'):
        predict(home / 'data/images')


def test_nothing_is_overwritten(predict, home, tmp_path):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/notes.txt').write_text('mine')
    for options in ({}, dict(overwrite=True)):
        with pytest.raises(FileExistsError, match='mine holds other files'):
            predict(home / 'data/images', out='mine', **options)
    assert files(tmp_path / 'mine') == ['notes.txt']
    out = predict(home / 'data/images')
    with pytest.raises(FileExistsError, match='holds predictions of other settings; --overwrite removes them'):
        predict(home / 'data/images', batch_size=2, classes='disc')
    predict(home / 'data/images/a', classes='disc', overwrite=True)
    assert len(files(out / 'pictures')) == 2
    assert {one['category_id'] for one in json.loads((out / 'predictions.json').read_text())['annotations']} == {1}


def test_where_nothing_can_be_read_nothing_is_written(predict, home, tmp_path, capfd):
    for name in ('text.jpg', 'text.mp4'):
        (tmp_path / name).write_text('text')
        predict(name, code=1)
        assert not (tmp_path / 'predictions').exists()
        assert capfd.readouterr().err.splitlines()[-1].startswith(f'error: {name} cannot be ')
    predict(home / 'data/images/a/0.jpg')


def test_what_cannot_start_removes_nothing(predict, home, tmp_path):
    out = predict(home / 'data/images')
    before = files(out)
    for wrong in (dict(kind='lost'), dict(classes='disk'), dict(checkpoint=home / 'maps/best.pth')):
        with pytest.raises((ValueError, FileNotFoundError)):
            predict(home / 'data/images', overwrite=True, **wrong)
        assert files(out) == before


def test_a_video_becomes_a_video(predict, home, tmp_path):
    images = [cv2.imread(str(path)) for path in sorted((home / 'data/images').rglob('*.jpg'))]
    writer = cv2.VideoWriter(str(tmp_path / 'clip.avi'), cv2.VideoWriter.fourcc(*'MJPG'), 12, (80, 60))
    for image in images:
        writer.write(image)
    writer.release()
    out = predict('clip.avi', home / 'data/images/a/0.jpg', batch_size=2)
    [name] = files(out / 'videos')
    assert name.endswith('clip.mp4')
    video = cv2.VideoCapture(str(out / 'videos' / name))
    assert (video.get(cv2.CAP_PROP_FPS), video.get(cv2.CAP_PROP_FRAME_COUNT)) == (12, 4)
    video.release()
    content = json.loads((out / 'predictions.json').read_text())
    assert [image.get('frame') for image in content['images']] == [0, 1, 2, 3, None]
    assert content['annotations']


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        (['none.jpg', '--model', 'run'], "there is no image, video or folder 'none.jpg'"),
        (['x.png', '--model', 'none.py'], "no config 'none.py'"),
        (['x.png', '--model', 'none'], "there is no work dir or config 'none'"),
        (['x.png', '--model', 'empty'], "model 'empty' is not the work dir of a run: it has no config, but nothing"),
        (['x.png', '--model', 'unfinished'], "work dir 'unfinished' has neither best.pth nor last.pth"),
        (['empty', '--model', 'run'], "the folder 'empty' has no images: there is nothing"),
        (['0', '--model', 'run'], '0 is a camera, which has no end'),
        (['x.png', '--model', 'run', '--checkpoint', 'none.pth'], "no checkpoint file 'none.pth'"),
        (['x.png', '--model', 'run', '--threshold', '30'], '--threshold: expected a number from 0 to 1, found 30'),
        (['x.png', '--model', 'run', '--classes', 'disk'], "unknown class 'disk': did you mean 'disc'?"),
        (['x.png'], 'the following arguments are required: --model'),
        (['x.png', '--model', 'run', '--device', 'gpu'], "device 'gpu' cannot be used, there is cpu"),
        (['x.png', '--model', 'run', '--out', 'x.png/found'], 'x.png is a file, expected a folder'),
    ],
)
def test_bad_input(line, message, home, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'unfinished').mkdir()
    (tmp_path / 'unfinished/c.py').touch()
    (tmp_path / 'run').symlink_to(home / 'detector')
    Image.new('RGB', (64, 48)).save('x.png')
    with pytest.raises(SystemExit) as end:
        commands.cli(['predict', *line])
    assert end.value.code == 2
    text = capsys.readouterr().err
    assert message in text
    assert 'Traceback' not in text
    assert len(text.splitlines()) <= 2
    assert not (tmp_path / 'predictions').exists()


@pytest.mark.slow
def test_two_processes_write_one_file(predict, home, tmp_path):
    shutil.copytree(home / 'data/images', tmp_path / 'images')
    alone = predict(tmp_path / 'images')
    (tmp_path / 'images/text.jpg').write_text('text')
    command = [
        sys.executable,
        '-m',
        'torch.distributed.run',
        '--nproc-per-node=2',
        '--master-port=29631',
        '-m',
        'vitdense',
    ]
    options = ['--model', home / 'detector', '--threshold', '0.5', '--device', 'cpu', '--out', 'two']
    environment = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')
    ran = subprocess.run([*command, 'predict', 'images', *options], env=environment, capture_output=True, text=True)
    assert ran.returncode == 1
    assert 'text.jpg cannot be read: it is no image file' in ran.stderr
    assert '4 sources in two' in ran.stdout
    assert files(tmp_path / 'two', '*.jsonl') == ['progress_0.jsonl', 'progress_1.jsonl']
    one, two = (json.loads((folder / 'predictions.json').read_text()) for folder in (alone, tmp_path / 'two'))
    assert one.keys() == two.keys()
    assert one['images'] == two['images']
    for mine, other in zip(one['annotations'], two['annotations'], strict=True):
        assert mine['bbox'] == pytest.approx(other['bbox'], abs=1e-2)
        assert (mine['image_id'], mine['category_id']) == (other['image_id'], other['category_id'])
        assert mine['score'] == pytest.approx(other['score'], abs=1e-4)

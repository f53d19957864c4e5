"""Own data that would run code, hang, or take memory without end."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image
from support.bounded import bounded, refusal

from vitdense.datasets.formats import read_data
from vitdense.datasets.formats.class_names import read_names
from vitdense.untrusted.pictures import LIMIT

LAUGHS = ''.join(f'<!ENTITY a{k} "{f"&a{k - 1};" * 10}">' for k in range(1, 10))


@pytest.fixture
def yolo(tmp_path) -> Path:
    """Two images with labels."""
    for name in 'ab':
        for folder in ('images', 'labels'):
            (tmp_path / folder).mkdir(exist_ok=True)
        Image.new('L', (40, 30)).save(tmp_path / f'images/{name}.png')
        (tmp_path / f'labels/{name}.txt').write_text('0 0.5 0.5 0.2 0.2\n')
    (tmp_path / 'data.yaml').write_text('names: [cat]\ntrain: images\nval: images\n')
    return tmp_path


def read(path: Path):
    return read_data(path, 'detection')


def test_yaml_of_yolo_runs_no_code(yolo):
    for text in (f'names: !!python/object/apply:os.mkdir ["{yolo}/harm"]', '!!python/module:os'):
        (yolo / 'data.yaml').write_text(f'{text}\ntrain: images\n')
        with pytest.raises(ValueError, match=r'data\.yaml'):
            read(yolo / 'data.yaml')
    lines = ['a0: &a0 [x, y]'] + [f'a{k}: &a{k} [{", ".join([f"*a{k - 1}"] * 10)}]' for k in range(1, 12)]
    (yolo / 'data.yaml').write_text('\n'.join([*lines, 'names: *a11', 'train: images']))
    assert 'data.yaml' in refusal(lambda: read(yolo / 'data.yaml'))
    assert 'holds more than' in refusal(lambda: read_names(yolo / 'data.yaml'))
    assert not (yolo / 'harm').exists()


def test_lists_and_labels_that_are_no_files(yolo):
    os.mkfifo(yolo / 'images/c.png')
    os.mkfifo(yolo / 'images/c.txt')
    (yolo / 'images/d.png').symlink_to('/dev/zero')
    assert [part.images for part in read(yolo / 'data.yaml').parts.values()] == [2, 2]
    os.mkfifo(yolo / 'list.txt')
    for name in ('list.txt', '/dev/zero'):
        (yolo / 'data.yaml').write_text(f'names: [cat]\ntrain: {name}\nval: images\n')
        assert 'expected a regular file' in refusal(lambda: read(yolo / 'data.yaml'), OSError)
    (yolo / 'list.txt').unlink()
    (yolo / 'list.txt').write_text('images/a.png\nimages/c.png\n/dev/zero\n')
    (yolo / 'data.yaml').write_text('names: [cat]\ntrain: list.txt\nval: images\n')
    found = read(yolo / 'data.yaml')
    assert [one.found.rpartition(' is ')[2] for one in found.findings] == [
        'a pipe, expected a regular file',
        'a device, expected a regular file',
    ]


def test_files_of_one_image_are_bounded(yolo, monkeypatch):
    monkeypatch.setattr('vitdense.datasets.formats.yolo.MOST_LABELS', 60)
    (yolo / 'labels/b.txt').write_text('0 0.5 0.5 0.2 0.2\n' * 4)
    found = {one.found for one in read(yolo / 'data.yaml').findings}
    assert found == {f'{yolo}/labels/b.txt has 72 bytes, expected at most 60'}


def test_images_of_too_many_pixels(yolo, monkeypatch):
    monkeypatch.setenv(LIMIT, '1199')
    data = read(yolo / 'data.yaml')
    assert not any(part.images for part in data.parts.values())
    assert {one.found for one in data.findings if 'pixels' in one.found} == {
        f'TooLargeError: has 40 x 30 pixels, expected at most 1199; {LIMIT}=N allows N'
    }


@pytest.mark.parametrize('entities', [LAUGHS, '<!ENTITY a9 SYSTEM "file:///etc/passwd">'])
def test_entities_of_xml(yolo, entities):
    (yolo / 'data.yaml').unlink()
    for name, inner in (('a', '&a9;'), ('b', 'cat')):
        box = ''.join(f'<{key}>{value}</{key}>' for key, value in dict(xmin=2, ymin=2, xmax=9, ymax=9).items())
        thing = f'<object><name>{inner}</name><bndbox>{box}</bndbox></object>'
        head = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a0 "ha">{entities}]>'
        (yolo / f'images/{name}.xml').write_text(f'{head}<annotation>{thing}</annotation>')
    data = read(yolo)
    [finding] = [one for one in data.findings if 'a.xml' in one.where]
    assert 'amplification' in finding.found or 'undefined entity' in finding.found
    assert data.classes == ('cat',)


def test_json_that_is_too_deep(tmp_path):
    Image.new('L', (40, 30)).save(tmp_path / 'a.png')
    deep = '[' * 200_000 + ']' * 200_000
    (tmp_path / 'a.json').write_text(f'{{"shapes": {deep}}}')
    (tmp_path / 'classes.json').write_text(json.dumps(['cat']))
    [finding] = bounded(lambda: read(tmp_path).findings)
    assert 'too deep' in finding.found
    (tmp_path / 'a.json').write_text(f'{{"images": {deep}, "annotations": [], "categories": []}}')
    assert 'too deep' in refusal(lambda: read(tmp_path))
    (tmp_path / 'classes.json').write_text(deep)
    assert 'too deep' in refusal(lambda: read_names(tmp_path / 'classes.json'))

"""Pre-annotations of Label Studio, by its documented format and by a decoder of its masks as their source has it."""

import json
from pathlib import Path
from urllib.parse import parse_qs, urlparse
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from support.trained import work_dir

import vitdense
from vitdense.commands import parser_of, run
from vitdense.predict import Result
from vitdense.predict.label_studio import LONGEST, pack


def unpack(packed: list[int]) -> np.ndarray:
    """The decoder of ``@thi.ng/rle-pack``, in the words of its README: a bit stream with a head and runs."""
    bits = ''.join(f'{byte:08b}' for byte in packed)
    place = 0

    def read(size: int) -> int:
        nonlocal place
        place += size
        return int(bits[place - size : place], 2)

    number, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < number:
        is_run = read(1)
        count = read(sizes[read(2)]) + 1
        values += [read(word)] * count if is_run else [read(word) for _ in range(count)]
    assert len(values) == number
    assert len(bits) - place < 8
    return np.array(values, np.uint8)


@pytest.mark.parametrize(
    'mask',
    [
        np.random.default_rng(0).random((60, 80)) > 0.5,
        np.zeros((3, 5), bool),
        np.ones((1, 1), bool),
        np.ones((130, 3 * LONGEST // 400), bool),
        np.eye(40, 30, dtype=bool),
    ],
)
def test_masks_are_packed_as_the_frontend_reads_them(mask):
    values = unpack(pack(mask)).reshape(*mask.shape, 4)
    np.testing.assert_array_equal(values, np.repeat(255 * mask[..., None], 4, axis=2))


@pytest.fixture
def result() -> Result:
    mask = np.zeros((1, 40, 80), bool)
    mask[0, 10:20, 20:60] = True
    boxes = np.array([[20, 10, 60, 20]], np.float32)
    found = dict(boxes=boxes, scores=np.array([0.75], np.float32), labels=np.array([1]))
    return Result(np.zeros((40, 80, 3), np.uint8), 'my cells/a#1.jpg', ('a', 'b'), ((1, 2, 3), (4, 5, 255)), **found)


def test_a_box_is_in_percent(result):
    task = result.to_label_studio()
    assert task['data'] == {'image': '/data/local-files/?d=my%20cells/a%231.jpg'}
    [prediction] = task['predictions']
    assert prediction['model_version'] == f'vitdense {vitdense.__version__}'
    assert prediction['score'] == 0.75
    assert prediction['result'] == [
        dict(
            id='000001',
            from_name='boxes',
            to_name='image',
            type='rectanglelabels',
            value=dict(x=25.0, y=25.0, width=50.0, height=25.0, rotation=0, rectanglelabels=['b']),
            original_width=80,
            original_height=40,
            image_rotation=0,
            score=0.75,
        )
    ]
    assert result.to_label_studio('s3://bucket/a.jpg')['data'] == {'image': 's3://bucket/a.jpg'}
    assert result.keep(classes=['a']).to_label_studio()['predictions'][0]['result'] == []


@pytest.fixture(scope='module')
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp('trained')
    for kind in ('detector', 'instances', 'maps'):
        work_dir(kind, home)
    Image.open(home / 'data/images/a/0.jpg').save(home / 'data/images/größe #1 50%.jpg')
    return home


@pytest.mark.parametrize('kind', ['detector', 'instances', 'maps'])
def test_tasks_of_a_folder(kind, home, tmp_path):
    line = [str(home / 'data/images'), '--model', str(home / kind), '--device', 'cpu', '--out', str(tmp_path / 'out')]
    line += ['--no-pictures', '--threshold', '0.2']
    assert run('predict', parser_of('predict').parse_args(line)) == 0
    assert not (tmp_path / 'out/label_studio.json').exists()
    assert run('predict', parser_of('predict').parse_args([*line, '--label-studio'])) == 0
    tasks = json.loads((tmp_path / 'out/label_studio.json').read_text())
    expected = vitdense.load(home / kind, device='cpu').predict(home / 'data/images', threshold=0.2)
    view = ElementTree.parse(tmp_path / 'out/label_studio.xml').getroot()
    tags = {node.get('name'): node for node in view if node.tag != 'Image'}
    for task, result in zip(tasks, expected, strict=True):
        place = parse_qs(urlparse(task['data']['image']).query)['d'][0]
        assert (home / 'data/images' / place).samefile(result.path)
        [prediction] = task['predictions']
        wanted = len(result) if kind != 'maps' else len(result.present())
        assert len(prediction['result']) == wanted > 0
        for number, region in enumerate(prediction['result']):
            tag = tags[region['from_name']]
            assert tag.tag.lower() == region['type']
            assert tag.get('toName') == region['to_name'] == view.find('Image').get('name')
            label = result.present()[number] if kind == 'maps' else result.labels[number]
            [name] = region['value'][region['type']]
            assert name == result.name_of(int(label))
            assert name in {node.get('value') for node in tag}
            if kind == 'detector':
                sides = [region['value'][key] for key in ('x', 'y', 'width', 'height')]
                x, y, w, h = np.array(sides) / 100 * [80, 60, 80, 60]
                np.testing.assert_allclose([x, y, x + w, y + h], result.boxes[number], atol=1e-4)
                continue
            mask = result.semantic_map == label if kind == 'maps' else result.masks[number]
            values = unpack(region['value']['rle']).reshape(60, 80, 4)
            np.testing.assert_array_equal(values[..., 3] > 0, mask)


def test_images_elsewhere(home, tmp_path):
    line = [str(home / 'data/images/a'), '--model', str(home / 'detector'), '--device', 'cpu', '--no-pictures']
    line += ['--out', str(tmp_path / 'out'), '--label-studio', 'https://example.org/cells/']
    run('predict', parser_of('predict').parse_args(line))
    tasks = json.loads((tmp_path / 'out/label_studio.json').read_text())
    assert [task['data']['image'] for task in tasks] == [f'https://example.org/cells/{i}.jpg' for i in range(2)]

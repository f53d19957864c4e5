"""Which images validate: by their names, whatever else there is."""

import pytest
from support.own_data import DISC, SLAB, coco, content, write_tree, xml

from vitdense.config.load import load_config
from vitdense.config.own_data import use_data
from vitdense.datasets.formats import read_data
from vitdense.datasets.formats.listing import WHOLE
from vitdense.datasets.formats.parts import divide, part_of, part_of_folder, validates
from vitdense.datasets.scan import scan_data

NAMES = [f'images/{number}.jpg' for number in range(1000)]


@pytest.mark.parametrize('fraction', [0.1, 0.2, 0.5])
def test_about_the_fraction_validates(fraction):
    assert sum(validates(NAMES, fraction)) == pytest.approx(1000 * fraction, abs=4 * (1000 * fraction) ** 0.5)


def test_more_images_move_no_other():
    few = dict(zip(NAMES[:500], validates(NAMES[:500], 0.2), strict=True))
    many = dict(zip(reversed(NAMES), validates(NAMES[::-1], 0.2), strict=True))
    assert all(many[name] == is_val for name, is_val in few.items())
    more = dict(zip(NAMES, validates(NAMES, 0.3), strict=True))
    assert all(more[name] for name, is_val in many.items() if is_val)


def test_copies_that_roboflow_made_of_a_picture_stay_together():
    copies = [[f'{number}_jpg.rf.{copy}.jpg' for copy in ('0ab', '1cd', '2ef')] for number in range(50)]
    chosen = validates([name for names in copies for name in names], 0.3)
    assert all(len(set(chosen[3 * number : 3 * number + 3])) == 1 for number in range(50))
    assert 0 < sum(chosen) < len(chosen)


def test_few_images_are_in_both_parts():
    for number in (2, 3, 5):
        for start in range(40):
            chosen = validates(NAMES[start : start + number], 0.01)
            assert sum(chosen) == 1
            assert sum(validates(NAMES[start : start + number], 0.99)) < number
    assert validates(NAMES[:1], 0.2) in ([True], [False])
    assert all(validates(NAMES[:5], 1.0))


def test_what_there_is_stays():
    parts = {'train': NAMES[:6], 'test': NAMES[6:8]}
    divided, note = divide(parts, parts, 0.5)
    assert sorted(divided['train'] + divided['val']) == NAMES[:6]
    assert divided['test'] == NAMES[6:8]
    assert note == f'{len(divided["val"])} of 6 images validate, chosen by their names (--val-fraction 0.5)'
    parts = {'train': NAMES[:4], 'val': NAMES[4:5], 'test': []}
    assert divide(parts, parts, 0.5) == ({'train': NAMES[:4], 'val': NAMES[4:5]}, '')
    assert divide({WHOLE: NAMES[:4]}, {WHOLE: NAMES[:4]}, 1.0)[0] == {'val': NAMES[:4]}


@pytest.mark.parametrize(
    ('name', 'part', 'folder'),
    [
        ('instances_train2017', 'train', ''),
        ('train2017', 'train', 'train'),
        ('Validation', 'val', 'val'),
        ('VALID', 'val', 'val'),
        ('_annotations.coco', '', ''),
        ('Train station', 'train', ''),
        ('trainings', '', ''),
        ('train_val', '', ''),
        ('test-2', 'test', 'test'),
        ('dev', 'val', 'val'),
    ],
)
def test_names_of_parts(name, part, folder):
    assert (part_of(name), part_of_folder(name)) == (part, folder)


def test_a_coco_file_is_divided_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))
    names = [f'{number} ä.jpg' for number in range(8)]
    root = write_tree(tmp_path / 'data', {'all.json': coco(*names), **dict.fromkeys(names, '')})
    data = read_data(root, 'detection', fraction=0.4)
    found = content(data)
    assert sorted([*found['train'], *found['val']]) == names
    assert all(things == [DISC, SLAB] for part in found.values() for things in part.values())
    one_file = read_data(root / 'all.json', 'detection', fraction=0.4)
    assert one_file == data


def test_the_scan_names_the_line(tmp_path, monkeypatch):
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))
    beyond = ('slab', (70.0, 12.0, 32.0, 24.0))
    root = write_tree(tmp_path / 'data', {'a.jpg': '', 'a.xml': xml(DISC, beyond), 'b.jpg': '', 'b.xml': xml(beyond)})
    cfg = load_config('vitdense::quickstart/retinanet_pvtv2-b0_fpn_shapes.py')
    use_data(cfg, read_data(root, 'detection', fraction=0.5), ('train', 'val'))
    found = [finding.where for report in scan_data(cfg) for finding in report.findings if finding.fatal]
    assert sorted(found) == [f'{root}/a.xml:3', f'{root}/b.xml:2']

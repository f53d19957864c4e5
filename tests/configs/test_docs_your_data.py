"""docs/your-data.md: each tree that it shows is read, and each of its commands finds a config and data."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from support import CONFIGS, ROOT
from support.own_data import DISC, SLAB, YOLO_LINES, coco, shapes, write_tree, xml
from support.scan import write_picture

from vitdense.commands import parser_of
from vitdense.commands.early import check_arguments, read_early
from vitdense.config.datasets import leaf_datasets

PAGE = (ROOT / 'docs/your-data.md').read_text()
COMMANDS = [line for block in re.findall(r'```sh\n(.*?)```', PAGE, re.DOTALL) for line in block.splitlines()]
TWO = "names: ['disc', 'slab']\n"


def trees(root: Path) -> None:
    """Data of each name on the page, in its format."""
    write_tree(
        root / 'data/cells',
        {
            'data.yaml': f'path: .\ntrain: images/train\nval: images/val\n{TWO}',
            **{f'images/{part}/{name}.jpg': '' for part, name in (('train', 'a'), ('val', 'b'))},
            **{f'labels/{part}/{name}.txt': YOLO_LINES for part, name in (('train', 'a'), ('val', 'b'))},
        },
    )
    write_tree(
        root / 'data/signs',
        {
            **{f'JPEGImages/{name}.jpg': '' for name in 'ab'},
            **{f'Annotations/{name}.xml': xml(DISC, SLAB) for name in 'ab'},
            'ImageSets/Main/train.txt': 'a\n',
            'ImageSets/Main/val.txt': 'b\n',
        },
    )
    files = {f'annotations/instances_{part}.json': coco(f'{name}.jpg') for part, name in (('train', 'a'), ('val', 'b'))}
    write_tree(root / 'data/boats', files | {'train/a.jpg': '', 'val/b.jpg': ''})
    files = {f'{name}.json': shapes(f'{name}.jpg', DISC, SLAB) for name in 'abc'}
    write_tree(root / 'data/leaves', files | {f'{name}.jpg': '' for name in 'abc'})
    write_tree(root / 'data/streets', {'images/train/a.jpg': '', 'images/val/b.jpg': '', 'classes.txt': 'road\ncar\n'})
    for place in ('train/a', 'val/b'):
        write_picture(root / f'data/streets/masks/{place}.png', 1)


@pytest.mark.parametrize('line', COMMANDS)
def test_commands(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))
    (tmp_path / 'configs').symlink_to(CONFIGS)
    trees(tmp_path)
    program, command, *arguments = shlex.split(line)
    assert program == 'vitdense'
    args = parser_of(command).parse_args(arguments)
    if command == 'predict':
        return
    if command == 'test':  # what a training would have left
        args.config = f'configs/bccd/{Path(args.config).name}'
        args.checkpoint = 'best.pth'
        torch.save(dict(weight=torch.zeros(1)), 'best.pth')
    check_arguments(args)
    cfg = read_early(args)
    assert f'{tmp_path / args.data}: ' in capsys.readouterr().out
    for split in ('train', 'val', 'test'):
        [(_, leaf)] = leaf_datasets(cfg, split)
        assert Path(leaf.data_root).is_relative_to(tmp_path / args.data)
        assert len(leaf.metainfo.classes) == 2


def test_the_trees_on_the_page_are_those_of_the_test(tmp_path):
    trees(tmp_path)
    for path in re.findall(r'^(data/\S+?\.\w+)', PAGE, re.MULTILINE):
        assert (tmp_path / path).is_file(), path

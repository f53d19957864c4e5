"""The published files in the metafiles: their links, and that docs/checkpoints.md tells of the same ones."""

import itertools
import re
from fnmatch import fnmatch

import pytest
import yaml
from support import CONFIGS

MODELS = {
    model['Name']: model
    for path in sorted(CONFIGS.glob('*/metafile.yml'))
    for model in yaml.safe_load(path.read_text())['Models']
}
WEIGHTS = {name: [file['Weights'] for file in model.get('Converted From', ())] for name, model in MODELS.items()}
LINKS = [link for links in WEIGHTS.values() for link in links]
STARTS = [model['Metadata']['Starts From'] for model in MODELS.values() if 'Starts From' in model['Metadata']]
CODE = [file['Code'] for model in MODELS.values() for file in model.get('Converted From', ())]
DRIVE = r'https://drive\.google\.com/(file/d/[\w-]{33}/view|drive/folders/[\w-]{33})'
HUB = r'https://huggingface\.co/[\w-]+/[\w.-]+'
FILE = r'https://(?!drive\.google\.com|huggingface\.co)[\w.-]+/\S+/[\w.-]+\.(pth|pth\.tar|pkl)'


def braces(text: str) -> list[str]:
    """``a{b,c}`` to ab and ac, as a shell does."""
    parts = [part.split(',') for part in re.split(r'[{}]', text)]
    return [''.join(choice) for choice in itertools.product(*parts)]


def table_rows() -> list[tuple[str, str]]:
    """Pattern of configs and cell of files, of each row of docs/checkpoints.md that names a config."""
    rows, config = [], ''
    lines = (CONFIGS.parent / 'docs' / 'checkpoints.md').read_text().splitlines()
    for line in itertools.dropwhile(lambda line: not line.startswith('| config |'), lines):
        cells = [cell.strip() for cell in line.strip('|').split('|')]
        if line.startswith('|') and cells[0] != 'config' and '---' not in cells[0]:
            config = cells[0].strip('`') or config
            rows.append((config, cells[1]))
    return rows


ROWS = table_rows()


def test_links_to_weights_have_the_shape_of_their_place():
    assert len(LINKS) > 100
    assert [link for link in LINKS + STARTS if not re.fullmatch(f'{DRIVE}|{HUB}|{FILE}', link)] == []


def test_weights_name_their_code():
    assert len(CODE) == len(LINKS)
    assert all(re.fullmatch(r'https://github\.com/[\w-]+/[\w.-]+(/tree/[\w./-]+)?', code) for code in CODE)


def test_two_models_share_a_link_only_where_the_publisher_does():
    shared = {link for link in LINKS if LINKS.count(link) > 1}
    names = {name for name, links in WEIGHTS.items() if shared & set(links)}
    assert names == {'retinanet_pvt-l_fpn_1x_coco', 'mask-rcnn_pvt-l_fpn_1x_coco'}


def test_docs_list_all_models_that_have_files():
    listed = {name for pattern, _ in ROWS for name in braces(pattern)}
    assert listed == {name for name, links in WEIGHTS.items() if links}


@pytest.mark.parametrize(('pattern', 'cell'), ROWS)
def test_files_of_the_docs_are_linked(pattern, cell):
    links = [link for name in braces(pattern) for link in WEIGHTS[name]]
    files = braces(re.search('`(.+?)`', cell)[1]) if '`' in cell else [cell]
    found = [any(fnmatch(name_of(link), file) for link in links) for file in files]
    drive = [link for link in links if re.fullmatch(DRIVE, link)]  # its links do not tell the name of a file
    assert all(found) or (not any(found) and "'s `" not in cell and len(drive) >= len(files))


def test_linked_files_are_in_the_docs():
    files = {name: [] for name in WEIGHTS}
    for pattern, cell in ROWS:
        for name in braces(pattern):
            files[name] += braces(re.search('`(.+?)`', cell)[1]) if '`' in cell else []
    pairs = [(name, name_of(link)) for name, links in WEIGHTS.items() for link in links if re.fullmatch(FILE, link)]
    assert [pair for pair in pairs if not any(fnmatch(pair[1], file) for file in files[pair[0]])] == []


def name_of(link: str) -> str:
    return link.rsplit('/', 1)[1]

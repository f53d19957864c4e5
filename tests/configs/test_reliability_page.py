"""Each row of docs/reliability.md names a test that is there."""

import re

import pytest
from support import ROOT

PAGE = ROOT / 'docs/reliability.md'
ROWS = [
    line for line in PAGE.read_text().splitlines() if line.startswith('|') and not re.match(r'\| (fault|---) \|', line)
]


def test_every_row_has_four_cells_and_a_test():
    assert len(ROWS) >= 40
    for before, row in zip(['', *ROWS], ROWS, strict=False):
        cells = row.strip('| ').split(' | ')
        assert len(cells) == 4, row
        assert cells[3] == 'the same' or '.py' in cells[3], row
        assert cells[3] != 'the same' or before, row


@pytest.mark.parametrize(('file', 'name'), re.findall(r'\]\(\.\./(tests/\S+\.py)\): `(\w+)`', PAGE.read_text()))
def test_the_test_is_there(file, name):
    assert re.search(rf'^def {name}\(', (ROOT / file).read_text(), re.MULTILINE)

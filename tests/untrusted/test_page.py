"""What docs/security.md prints works, and says what the code does."""

import re
import shlex

import pytest
from support import ROOT
from support.trained import work_dir

from vitdense import commands
from vitdense.checkpoint import read
from vitdense.datasets.scan import bounds
from vitdense.predict import sources
from vitdense.untrusted import configs, files, pictures, values, yaml_text

PAGE = (ROOT / 'docs/security.md').read_text()


@pytest.mark.slow
def test_the_commands_of_the_page(tmp_path, monkeypatch, capsys):
    folder = work_dir('detector', tmp_path)
    (tmp_path / 'work_dirs').mkdir()
    folder = folder.rename(tmp_path / 'work_dirs/cells')
    (folder / 'detector.py').rename(folder / 'cells.py')
    (tmp_path / 'data/images/a').rename(tmp_path / 'photos')
    (tmp_path / 'data/images/a').symlink_to(tmp_path / 'photos')
    monkeypatch.chdir(tmp_path)
    for kind, block in re.findall(r'```(sh|python)\n(.*?)```', PAGE, re.DOTALL):
        if kind == 'python':
            exec(compile(block, 'security.md', 'exec'), {})
            (folder / 'cells.py').unlink()  # which nothing needs from now on
        for line in block.splitlines() if kind == 'sh' else ():
            name, *arguments = shlex.split(line)
            assert name == 'vitdense'
            with pytest.raises(SystemExit) as end:
                commands.cli(arguments)
            assert end.value.code in (0, None), capsys.readouterr()
    one, other = (tmp_path / name / 'predictions.json' for name in ('found', 'found_too'))
    assert one.read_text() == other.read_text()
    assert '"disc"' in one.read_text()


def test_bounds_of_the_page():
    for number in (
        f'{files.TIMES} times its size, or {files.SLACK >> 20} MB',
        f'{files.TIMES} times its size, or {read.VIEWS >> 30} GB',
        f'{values.MOST // 10**6} million, {values.DEEPEST} deep',
        f'{yaml_text.MOST // 10**6} million, {values.DEEPEST} deep',
        f'| {files.MOST_LABELS >> 20} MB |',
        f'| {bounds.MOST_OBJECTS:,} |'.replace(',', ' '),
        f'| {pictures.PIXELS // 10**6} million |',
        f'{sources.LARGEST >> 20} MB, {sources.LONGEST // 60} minutes',
    ):
        assert number in PAGE
    assert f'build classes of {", ".join(configs.STACK[:-1])} and {configs.STACK[-1]};' in PAGE

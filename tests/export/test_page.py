"""What docs/export.md prints works."""

import re
import shlex

import pytest
from support import ROOT
from support.trained import work_dir

from vitdense import commands

PAGE = (ROOT / 'docs/export.md').read_text()


@pytest.mark.sweep
def test_the_commands_of_the_page(tmp_path, monkeypatch, capsys):
    folder = work_dir('maps', tmp_path)
    (tmp_path / 'work_dirs').mkdir()
    folder.rename(tmp_path / 'work_dirs/cells')
    (tmp_path / 'data/images/a').rename(tmp_path / 'photos')
    (tmp_path / 'data/images/a').symlink_to(tmp_path / 'photos')
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r'```sh\n(.*?)```', PAGE, re.DOTALL)
    for line in ''.join(blocks).splitlines():
        name, *arguments = shlex.split(line)
        assert name == 'vitdense'
        with pytest.raises(SystemExit) as end:
            commands.cli(arguments)
        assert end.value.code == 0, capsys.readouterr()
    written = {path.suffix for path in (tmp_path / 'work_dirs/cells').iterdir()}
    assert {'.pt2', '.safetensors'} < written
    whole, half = (path.stat().st_size for path in (tmp_path / 'cells.onnx', tmp_path / 'cells_half.onnx'))
    assert half < 0.6 * whole
    assert list((tmp_path / 'found').rglob('*.png'))
    capsys.readouterr()
    code = '\n'.join(re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL))
    exec(compile(code, 'export.md', 'exec'), {})
    assert len(re.findall(r'^photos/\d\.jpg None None None$', capsys.readouterr().out, re.MULTILINE)) == 2

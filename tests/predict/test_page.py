"""What docs/predict.md prints works."""

import re
import shlex

import cv2
import numpy as np
import pytest
from support import ROOT
from support.trained import work_dir

from vitdense import commands

PAGE = (ROOT / 'docs/predict.md').read_text()


@pytest.mark.slow
def test_the_commands_of_the_page(tmp_path, monkeypatch, capsys):
    folder = work_dir('detector', tmp_path)
    (tmp_path / 'work_dirs').mkdir()
    (folder / 'detector.py').rename(folder / 'cells.py')
    folder.rename(tmp_path / 'work_dirs/cells')
    (tmp_path / 'data/images/a').rename(tmp_path / 'photos')
    (tmp_path / 'photos/0.jpg').rename(tmp_path / 'photos/one.jpg')
    monkeypatch.chdir(tmp_path)
    writer = cv2.VideoWriter('clip.avi', cv2.VideoWriter.fourcc(*'MJPG'), 12, (80, 60))
    writer.write(np.zeros((60, 80, 3), np.uint8))
    writer.release()
    code = '\n'.join(re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL))
    exec(compile(code, 'predict.md', 'exec'), {})
    said = capsys.readouterr().out
    assert re.search(r'^photos/1\.jpg \d+$', said, re.MULTILINE)
    assert 'Detections(xyxy=array([[' in said
    assert (tmp_path / 'drawn.jpg').is_file()
    [block] = re.findall(r'```sh\n(.*?)```', PAGE, re.DOTALL)
    for line in block.replace('RBC', 'disc').splitlines():
        name, *arguments = shlex.split(line)
        assert name == 'vitdense'
        with pytest.raises(SystemExit) as end:
            commands.cli(arguments)
        assert end.value.code == 0
    assert sorted(path.name for path in (tmp_path / 'found').iterdir()) == [
        'pictures',
        'predictions.json',
        'progress_0.jsonl',
    ]
    assert (tmp_path / 'again/videos').is_dir()
    assert (tmp_path / 'labels/label_studio.json').is_file()

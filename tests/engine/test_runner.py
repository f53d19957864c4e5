"""What the runner writes besides a training."""

import sysconfig
from types import SimpleNamespace

from vitdense.engine import Runner


def test_a_compiler_that_is_not_there_says_nothing_on_the_console(tmp_path, monkeypatch, capfd):
    """mmengine asks a shell for the version of the compiler that Python was built with."""
    real = sysconfig.get_config_var
    monkeypatch.setattr(sysconfig, 'get_config_var', lambda name: 'no-such-gcc' if name == 'CC' else real(name))
    runner = SimpleNamespace(work_dir=str(tmp_path), _randomness_cfg={}, _seed=3, _launcher='none')
    Runner._log_env(runner, dict(cudnn_benchmark=False))
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ('', '')
    lines = (tmp_path / 'environment.txt').read_text().splitlines()
    assert {'GCC: n/a', 'seed: 3', 'launcher: none', 'cudnn_benchmark: False'} <= set(lines)

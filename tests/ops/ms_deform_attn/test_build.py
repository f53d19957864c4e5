"""The compiled libraries of multi-scale deformable attention: lazy compilation, its cache, and the wheel."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from support import ROOT

from vitdense.ops.ms_deform_attn import build, library
from vitdense.version import __version__

STARTUP = ROOT / 'vitdense_startup.pth'
needs_compiler = pytest.mark.skipif(bool(build.obstacle('cpu')), reason=str(build.obstacle('cpu')))


@pytest.fixture
def cache_dir(tmp_path, monkeypatch):
    """An empty cache and no library beside the package."""
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))
    monkeypatch.delenv(library.SWITCH, raising=False)
    monkeypatch.setattr(build, 'FOLDER', shutil.copytree(build.FOLDER / 'csrc', tmp_path / 'package/csrc').parent)
    build.file_name.cache_clear()
    library.load.cache_clear()
    yield tmp_path / 'cache/ops'
    build.file_name.cache_clear()
    library.load.cache_clear()


def script_as_compiler(folder: Path, lines: str) -> str:
    script = folder / 'compiler'
    script.write_text(f'#!/bin/sh\n{lines}\n')
    script.chmod(0o755)
    return str(script)


@pytest.fixture(scope='module')
def compiled(tmp_path_factory):
    """The CPU library, compiled once for this file."""
    path = tmp_path_factory.mktemp('ops') / 'libvitdense_cpu.so'
    assert build.make('cpu', path) is None
    return path


@pytest.mark.slow
@needs_compiler
def test_it_needs_nothing_of_pytorch_beyond_the_stable_abi(compiled):
    """Symbols with C++ names of PyTorch would tie it to the version of its headers."""
    symbols = subprocess.run(['nm', '-D', '-u', compiled], capture_output=True, text=True, check=True).stdout
    assert 'aoti_torch' in symbols or 'torch_' in symbols
    assert not [line for line in symbols.splitlines() if any(s in line for s in ('N2at', 'N3c10', '_ZN5torch'))]


@pytest.mark.slow
@needs_compiler
def test_first_call_compiles_and_later_processes_load(cache_dir, monkeypatch):
    count = cache_dir.parent.parent / 'count'
    monkeypatch.setenv('CXX', script_as_compiler(cache_dir.parent.parent, f'echo x >> {count}; exec g++ "$@"'))
    program = f"""
import pathlib, torch
from vitdense.ops.ms_deform_attn import build, cpu
build.FOLDER = pathlib.Path({str(build.FOLDER)!r})
assert cpu.unavailable(torch.device("cpu")) is None
assert torch.ops.vitdense_cpu.widest() in (4, 8, 16)
"""
    command = [sys.executable, '-c', program]
    first, second = (subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2))
    outputs = [process.communicate()[1].decode() for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    assert count.read_text() == 'x\n', 'the second process waits for the first'
    assert sum('compiling its CPU library' in output for output in outputs) == 1
    assert [path.suffix for path in cache_dir.iterdir() if path.suffix != '.lock'] == ['.so']
    monkeypatch.setenv('CXX', 'nowhere')
    later = subprocess.run(command, stderr=subprocess.PIPE, check=True)
    assert b'compiling' not in later.stderr


@pytest.mark.slow
def test_importing_compiles_nothing(tmp_path):
    env = {
        **os.environ,
        'CXX': script_as_compiler(tmp_path, f'touch {tmp_path}/called'),
        'VITDENSE_CACHE': str(tmp_path),
    }
    program = 'import vitdense, mmcv.ops, mmdet.models, vitdense.ops.ms_deform_attn'
    subprocess.run([sys.executable, '-c', program], env=env, check=True, capture_output=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['compiler']


def test_sources_and_names_change_together(cache_dir):
    before = {name: build.file_name(name) for name in ('cpu', 'cuda')}
    with (build.FOLDER / 'csrc/cpu.cpp').open('a') as file:
        file.write('// changed')
    build.file_name.cache_clear()
    assert build.file_name('cpu') != before['cpu']
    assert build.file_name('cuda') == before['cuda']


def test_it_can_be_switched_off(cache_dir, monkeypatch):
    monkeypatch.setenv(library.SWITCH, '0')
    assert library.load('cpu') == 'VITDENSE_BUILD=0 forbids to compile it'
    assert not cache_dir.exists()


def test_no_compiler(cache_dir, monkeypatch):
    monkeypatch.setenv('CXX', 'sh -c g++')
    assert build.compiler('cpu') == ['sh', '-c', 'g++']
    monkeypatch.setenv('CXX', 'g++-of-another-machine -Wall')
    assert 'there is no C++ compiler, neither $CXX nor c++' in library.load('cpu')
    monkeypatch.delenv('CXX')
    monkeypatch.setenv('PATH', '')
    library.load.cache_clear()
    assert 'apt install g++' in library.load('cpu')
    assert 'no nvcc' in build.obstacle('cuda') or 'without CUDA' in build.obstacle('cuda')


def test_a_compiler_that_fails_says_so(cache_dir, monkeypatch):
    monkeypatch.setenv('CXX', script_as_compiler(cache_dir.parent.parent, 'echo "cpu.cpp: no such header" >&2; exit 1'))
    reason = library.load('cpu')
    assert reason.startswith('it does not compile:')
    assert reason.endswith('cpu.cpp: no such header')
    assert not list(cache_dir.glob('*.so*[!k]'))


def test_a_library_that_cannot_be_loaded_says_so(cache_dir, monkeypatch):
    path = build.FOLDER / build.file_name('cpu')
    path.write_text('no library')
    assert f'{path} cannot be loaded' in library.load('cpu')


def test_a_cache_that_cannot_be_written(cache_dir, monkeypatch):
    monkeypatch.setenv('CXX', script_as_compiler(cache_dir.parent.parent, 'exit 1'))
    cache_dir.parent.write_text('a file')
    assert 'cannot be written to' in library.load('cpu')
    assert 'set VITDENSE_CACHE to a folder that can' in library.load('cpu')


def test_pytorch_that_is_too_old(cache_dir, monkeypatch):
    monkeypatch.setattr(torch, '__version__', '2.9.1+cpu')
    assert library.load('cpu') == 'it needs PyTorch 2.10 or newer, found 2.9.1+cpu'


def test_cuda_is_not_compiled_at_the_first_call(cache_dir):
    assert 'installed without its CUDA library; with nvcc, pip install' in library.load('cuda')
    assert not cache_dir.exists()


def project(tmp_path) -> Path:
    """A copy of the project, without its tests and docs."""
    names = subprocess.run(['git', 'ls-files', '-co', '--exclude-standard'], cwd=ROOT, capture_output=True, text=True)
    for name in names.stdout.splitlines():
        if not name.startswith(('tests/', 'docs/')) and (ROOT / name).is_file():
            target = tmp_path / 'project' / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
    return tmp_path / 'project'


def wheel(tmp_path, folder: Path | None = None, **environment):
    """Name and contents of the wheel that pip makes of ``folder``, default a copy of the project."""
    command = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-build-isolation', '--no-deps', '-w', tmp_path, '.']
    env = {**os.environ, **environment}
    result = subprocess.run(command, cwd=folder or project(tmp_path), env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (path,) = tmp_path.glob('*.whl')
    return path.name, zipfile.ZipFile(path).namelist()


@pytest.mark.slow
@needs_compiler
def test_wheel_with_libraries_serves_any_python_3(tmp_path):
    (tmp_path / 'bin').mkdir()  # a PATH without nvcc, whose compilation has a test of its own
    for tool in ('g++', 'as', 'ld'):
        (tmp_path / 'bin' / tool).symlink_to(shutil.which(tool))
    name, files = wheel(tmp_path, PATH=str(tmp_path / 'bin'), CUDA_HOME='', CXX='g++')
    assert '-py3-none-linux_' in name
    libraries = [file for file in files if file.endswith('.so')]
    assert libraries == [f'vitdense/ops/ms_deform_attn/{build.file_name("cpu")}']
    assert {'vitdense/ops/ms_deform_attn/csrc/common.h', 'vitdense/.mim/tools/train.py'} <= set(files)


def test_wheel_without_libraries_is_pure(tmp_path):
    name, files = wheel(tmp_path, VITDENSE_BUILD='0')
    assert name.endswith('-py3-none-any.whl')
    assert not [file for file in files if file.endswith('.so')]
    assert {'vitdense/ops/ms_deform_attn/csrc/cpu.cpp', 'vitdense_startup.py', 'vitdense_startup.pth'} <= set(files)


def backend(folder: Path, hook: str, target: Path, **environment) -> Path:
    """What a hook of setuptools (PEP 517, PEP 660) makes of the project in ``folder``, in ``target``."""
    program = f'from setuptools import build_meta; print(build_meta.{hook}({str(target)!r}))'
    env = {**os.environ, 'VITDENSE_BUILD': '0', **environment}
    result = subprocess.run([sys.executable, '-c', program], cwd=folder, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return target / result.stdout.splitlines()[-1]


@pytest.mark.slow
def test_the_wheel_of_the_source_distribution_is_that_of_the_project(tmp_path):
    source = backend(project(tmp_path / 'a'), 'build_sdist', tmp_path)
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path / 'b', filter='data')
    (folder,) = (tmp_path / 'b').iterdir()
    _, files = wheel(tmp_path / 'b', folder, VITDENSE_BUILD='0')
    assert set(files) == set(wheel(tmp_path / 'a', tmp_path / 'a/project', VITDENSE_BUILD='0')[1])


@pytest.mark.slow
def test_an_editable_installation_finds_the_operators_of_mmcv_at_the_start_of_python(tmp_path):
    path = backend(project(tmp_path), 'build_editable', tmp_path)
    with zipfile.ZipFile(path) as archive:
        assert archive.read('vitdense_startup.pth') == STARTUP.read_bytes()
        assert 'vitdense_startup.pth,sha256=' in archive.read(f'vitdense-{__version__}.dist-info/RECORD').decode()

"""How the compiled libraries are made: by ``setup.py``, which loads this file alone, or at the first call on a CPU."""

import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
SOURCES = {'cpu': 'cpu.cpp', 'cuda': 'cuda.cu'}
"""By library; they include ``common.h`` and the files whose names begin like theirs."""

STABLE_ABI = ('-std=c++17', '-O3', '-DTORCH_TARGET_VERSION=0x020a000000000000')  # PyTorch 2.10 and newer
FLAGS = {
    'cpu': (*STABLE_ABI, '-shared', '-fPIC', '-fvisibility=hidden'),
    'cuda': (
        *STABLE_ABI,
        '-DUSE_CUDA',
        '-shared',
        '-Xcompiler=-fPIC,-fvisibility=hidden',
        '-gencode=arch=compute_80,code=sm_80',
        '-gencode=arch=compute_90,code=sm_90',
        '-gencode=arch=compute_90,code=compute_90',  # PTX, for newer ones
        '--threads=0',
    ),
}
LINKED = {'cpu': ('-ltorch_cpu',), 'cuda': ('-ltorch_cpu', '-ltorch_cuda')}


@cache
def file_name(name: str) -> str:
    """Of the library made of the sources as they are now: one made of others is never loaded."""
    digest = hashlib.sha256(repr((FLAGS[name], platform.machine())).encode())
    for path in sorted((FOLDER / 'csrc').iterdir()):
        if path.name.startswith((name, 'common')):
            digest.update(path.read_bytes())
    return f'libvitdense_{name}-{digest.hexdigest()[:16]}.so'


def torch_folder() -> Path | None:
    """Where PyTorch is installed, without importing it."""
    spec = importlib.util.find_spec('torch')
    return Path(spec.origin).parent if spec and spec.origin else None


def obstacle(name: str) -> str | None:
    """Why the library cannot be made here and what would help, or None."""
    if sys.platform != 'linux':
        return f'it is made on Linux, not on {sys.platform}'
    folder = torch_folder()
    if folder is None or not (folder / 'include/torch/csrc/stable/library.h').is_file():
        return 'there are no headers of PyTorch 2.10 or newer: pip install "torch>=2.10"'
    if name == 'cuda' and not (folder / 'lib/libtorch_cuda.so').is_file():
        return 'the installed PyTorch is built without CUDA'
    if not compiler(name):
        if name == 'cuda':
            return 'there is no nvcc on the PATH or in $CUDA_HOME/bin: install the CUDA toolkit'
        return 'there is no C++ compiler, neither $CXX nor c++, g++ or clang++: apt install g++, or conda install gxx'
    return None


def compiler(name: str) -> list[str]:
    """Command of the compiler, empty where there is none; ``$CXX`` may hold several words."""
    if name == 'cuda':
        home = os.environ.get('CUDA_HOME')
        found = shutil.which('nvcc') or (home and shutil.which(f'{home}/bin/nvcc'))
        return [found] if found else []
    asked = shlex.split(os.environ.get('CXX', ''))
    if asked:
        return asked if shutil.which(asked[0]) else []
    return list(filter(None, map(shutil.which, ('c++', 'g++', 'clang++'))))[:1]


def make(name: str, path: Path) -> str | None:
    """Compile a library to ``path``, which appears only when it is whole; if that fails, the compiler's last lines."""
    folder = torch_folder()
    unfinished = path.with_name(f'{path.name}.{os.getpid()}')
    command = (
        *(*compiler(name), *FLAGS[name], str(FOLDER / 'csrc' / SOURCES[name]), '-o', str(unfinished)),
        *(f'-I{folder}/include', f'-I{folder}/include/torch/csrc/api/include', f'-L{folder}/lib', *LINKED[name]),
    )
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        unfinished.unlink(missing_ok=True)
        return '\n'.join([' '.join(command), *(result.stderr or result.stdout).splitlines()[-12:]])
    os.replace(unfinished, path)
    return None

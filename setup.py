"""Puts ``configs/`` and ``tools/`` into the wheel, where mmengine looks for them: ``vitdense::pvt/...py``.

And beside the package, also of an editable installation, a ``.pth`` file for what the OpenMMLab packages need before
vitdense is imported.

And the compiled libraries of ``vitdense/ops``, each where its compiler and the headers of PyTorch are at hand, which
takes ``--no-build-isolation``. Elsewhere, or with ``VITDENSE_BUILD=0``, the wheel has none; a compiler that fails is an
error.
"""

import importlib.util
import os
import shutil
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

PACKAGE = 'vitdense.ops.ms_deform_attn'
STARTUP = 'vitdense_startup.pth'


def load_build():
    """``vitdense/ops/ms_deform_attn/build.py`` by itself: the package needs what is not installed yet."""
    spec = importlib.util.spec_from_file_location('build_ms_deform_attn', f'{PACKAGE.replace(".", "/")}/build.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


building = load_build()


class BuildWithConfigs(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:  # what is put there becomes part of the installation; what is in build_lib does not
            shutil.copy(STARTUP, self.distribution.get_command_obj('install').install_lib)
            return
        shutil.copy(STARTUP, self.build_lib)
        for folder in ('configs', 'tools'):
            target = Path(self.build_lib) / 'vitdense' / '.mim' / folder
            shutil.copytree(folder, target, ignore=shutil.ignore_patterns('__pycache__'), dirs_exist_ok=True)


class BuildLibraries(build_ext):
    def build_extension(self, extension: Extension) -> None:
        path = Path(self.get_ext_fullpath(extension.name)).absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        failure = building.make(extension.name.rpartition('.')[2], path)
        if failure:
            raise SystemExit(f'{failure}\n{path.name} does not compile; VITDENSE_BUILD=0 installs vitdense without it')

    def get_ext_filename(self, fullname: str) -> str:
        package, _, name = fullname.rpartition('.')
        return str(Path(*package.split('.'), building.file_name(name)))


class AnyPython(bdist_wheel):
    """The libraries do not depend on Python's version, only on the platform."""

    def get_tag(self) -> tuple[str, str, str]:
        return 'py3', 'none', super().get_tag()[2]


def libraries() -> list[Extension]:
    found = []
    for name in building.SOURCES:
        forbidden = os.environ.get('VITDENSE_BUILD') == '0' and 'VITDENSE_BUILD=0'
        obstacle = forbidden or building.obstacle(name)
        if obstacle:
            print(f'{PACKAGE} without its {name} library: {obstacle}')
        else:
            found.append(Extension(f'{PACKAGE}.{name}', sources=[]))
    return found


setup(
    ext_modules=libraries(),
    cmdclass=dict(build_py=BuildWithConfigs, build_ext=BuildLibraries, bdist_wheel=AnyPython),
)

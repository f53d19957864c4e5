"""Puts ``configs/`` and ``tools/`` into the wheel, where mmengine looks for them: ``vitdense::pvt/...py``."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for folder in ('configs', 'tools'):
            target = Path(self.build_lib) / 'vitdense' / '.mim' / folder
            shutil.copytree(folder, target, ignore=shutil.ignore_patterns('__pycache__'), dirs_exist_ok=True)


setup(cmdclass={'build_py': BuildWithConfigs})

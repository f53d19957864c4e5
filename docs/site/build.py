"""Build the site: ``python docs/site/build.py``; its pages are then in build/site/html.

Documents keep their places in the repository, so that a link works there and on the site. What they link to besides
other documents comes along: pictures as they are, other files as a page with their text. A page of the API is written
from the package that it is named after.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import api
import griffe
import tomli
from docstrings import Docstrings

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r'(?<=\]\()([^)\s]+)(?=\))')
FENCE = re.compile(r'(^```.*?^```$)', re.MULTILINE | re.DOTALL)
PICTURES = {'.jpg', '.png', '.svg'}


def main() -> int:
    site = tomli.loads((ROOT / 'zensical.toml').read_text())['project']
    target = ROOT / site['docs_dir']
    shutil.rmtree(target.parent, ignore_errors=True)
    titles = {page: title for title, page in _entries(site['nav'])}
    documents = [*ROOT.glob('*.md'), *ROOT.glob('docs/*.md'), *ROOT.glob('configs/*/README.md')]
    if absent := sorted({path.relative_to(ROOT).as_posix() for path in documents} - set(titles)):
        sys.exit(f'zensical.toml: nav has no entry for {", ".join(absent)}')
    package = griffe.load('vitdense', search_paths=[ROOT], extensions=griffe.load_extensions(Docstrings))
    rooms = {page: package[Path(page).stem] for page in titles if page.startswith('api/')}
    for page, title in titles.items():
        if room := rooms.get(page):
            inner = tuple(f'{other.path}.' for other in rooms.values() if other.path.startswith(f'{room.path}.'))
            _write(target / page, api.page(title, room, package, elsewhere=inner))
        else:
            _write(target / page, _document(ROOT / page, target))
    return _run_zensical()


def _entries(nav: list[dict]) -> list[tuple[str, str]]:
    pairs = [pair for entry in nav for pair in entry.items()]
    return [inner for title, page in pairs for inner in (_entries(page) if isinstance(page, list) else [(title, page)])]


def _document(path: Path, target: Path) -> str:
    parts = FENCE.split(path.read_text())
    parts[::2] = [LINK.sub(lambda link: _follow(link[0], path, target), part) for part in parts[::2]]
    return ''.join(parts)


def _follow(link: str, path: Path, target: Path) -> str:
    """The link as it is on the site, with what it leads to in its place."""
    url = urlsplit(link)
    found = Path(os.path.normpath(path.parent / url.path))
    if url.scheme or not url.path:
        return link
    if not found.is_relative_to(ROOT) or not found.exists():
        sys.exit(f'{path.relative_to(ROOT)}: {link} leads nowhere')
    place = target / found.relative_to(ROOT)
    if found.is_dir():
        return f'{link}/README.md'
    if found.suffix in PICTURES:
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(found, place)
    elif found.suffix != '.md':
        _write(place.with_name(f'{place.name}.md'), _text_page(found))
        return f'{link}.md'
    return link


def _text_page(path: Path) -> str:
    language = {'.py': 'python', '.toml': 'toml', '.yml': 'yaml'}.get(path.suffix, 'text')
    return f'# {path.name}\n\n`{path.relative_to(ROOT)}`\n\n```{language}\n{path.read_text()}\n```\n'


def _run_zensical() -> int:
    """Its exit status; what griffe says of docstrings, which zensical only prints, counts as well."""
    command = [sys.executable, '-m', 'zensical', 'build', '--strict', '--clean']
    log = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(log.stdout, end='')
    return log.returncode or int('griffe: ' in log.stdout)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


if __name__ == '__main__':
    sys.exit(main())

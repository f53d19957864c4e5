"""Where checkpoints are: what is said about a missing one, and downloads, which happen once, whole, or not at all."""

import hashlib
import http.server
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import huggingface_hub
import pytest
import torch
from safetensors.torch import save, save_file

from vitdense.checkpoint.fetch import RELEASES, fetch
from vitdense.checkpoint.read import read

STATE = {'stem.weight': torch.linspace(-2, 2, 12).reshape(3, 4)}


def test_missing_files_and_folders(tmp_path, monkeypatch):
    for name in ('epoch_1.pth', 'epoch_12.pth', 'b.safetensors', 'log.txt'):
        (tmp_path / name).write_bytes(b'x')
    assert fetch(str(tmp_path / 'log.txt')) == tmp_path / 'log.txt'
    assert fetch(f'file://{tmp_path}/log.txt') == tmp_path / 'log.txt'
    beside = f'; checkpoints in {tmp_path}: epoch_1.pth, epoch_12.pth, b.safetensors'
    with pytest.raises(FileNotFoundError) as error:
        fetch(f'{tmp_path}/epoch_21.pth')
    assert str(error.value) == f"no checkpoint file '{tmp_path}/epoch_21.pth'{beside}"
    with pytest.raises(ValueError, match=r'is a folder, expected a file; checkpoints in .*: .*epoch_12\.pth'):
        fetch(str(tmp_path))
    with pytest.raises(ValueError, match='is a folder, expected the URL of a file'):
        fetch('https://127.0.0.1:9/weights/')
    with pytest.raises(ValueError, match=r'checkpoint s3://a/b\.pth: expected a path, a URL of http'):
        fetch('s3://a/b.pth')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as error:
        fetch('epoch_12')
    there = 'epoch_12.pth, epoch_1.pth, b.safetensors'
    assert str(error.value).startswith(
        f"no checkpoint file 'epoch_12'; checkpoints in {tmp_path}: {there}; official releases, nearest first: "
    )
    with pytest.raises(FileNotFoundError, match=r"file 'pvt_smal'; checkpoints .*; official .* first: pvt_small, "):
        fetch('pvt_smal')
    with pytest.raises(FileNotFoundError, match=rf"'{tmp_path}/work_dirs/a/best\.pth'; the run 'a' writes it and has"):
        fetch('work_dirs/a/best.pth')
    with pytest.raises(FileNotFoundError, match=rf"'{tmp_path}/nowhere/best\.pth'$"):
        fetch('nowhere/best.pth')


class Site(http.server.ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), Page)
        self.pages, self.asked = {}, []

    def add(self, name: str, content: bytes, announced: int | None = None) -> str:
        self.pages[f'/{name}'] = content, len(content) if announced is None else announced
        return f'http://127.0.0.1:{self.server_port}/{name}'


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name = self.path.partition('?')[0]
        self.server.asked.append(name)
        content, announced = self.server.pages.get(name, (None, 0))
        self.send_response(404 if content is None else 200)
        self.send_header('Content-Length', str(announced))
        self.end_headers()
        self.wfile.write(content or b'')

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def zipped(tmp_path) -> bytes:
    torch.save(STATE, tmp_path / 'zipped')
    return (tmp_path / 'zipped').read_bytes()


def kept(tmp_path) -> set[str]:
    return {path.name for path in (tmp_path / 'checkpoints').iterdir() if path.suffix not in ('.lock', '.source')}


@pytest.mark.parametrize('name', ['a.pth', 'a-HASH.pth', 'a-20240131.pth', 'a_0123abcd.pth', 'a-best.pth'])
def test_download_happens_once(tmp_path, site, monkeypatch, zipped, name):
    name = name.replace('HASH', hashlib.sha256(zipped).hexdigest()[:8])
    monkeypatch.setitem(RELEASES, 'some_release', site.add(name, zipped) + '?download=true')
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(fetch, ['some_release'] * 4))
    assert paths == [tmp_path / 'checkpoints' / name] * 4
    assert site.asked == [f'/{name}']
    assert kept(tmp_path) == {name}
    assert torch.equal(read(paths[0])['stem.weight'], STATE['stem.weight'])


def test_bad_downloads_leave_nothing_behind(tmp_path, site, zipped):
    save_file(STATE, tmp_path / 'tensors')
    tensors = (tmp_path / 'tensors').read_bytes()
    for url, message in [
        (site.add('a-0123abcd.pth', zipped), 'invalid hash value (expected "0123abcd", got'),
        (site.add('cut.pth', zipped[:-100], len(zipped)), f'what came is truncated: {len(zipped) - 100} bytes'),
        (
            site.add('cut.safetensors', tensors[:-9], len(tensors)),
            f'{len(tensors) - 9} bytes are there, {len(tensors)} are',
        ),
        (site.add('page.pth', b'<html>\nLog in'), "what came is a text file that begins with '<html>'"),
        (site.add('none.pth', b''), 'what came is empty'),
        (f'http://127.0.0.1:{site.server_port}/missing.pth', '404'),
        ('http://127.0.0.1:9/closed.pth', 'refused'),
    ]:
        with pytest.raises(ConnectionError) as error:
            fetch(url)
        assert str(error.value).startswith(f'could not download {url} (')
        assert message in str(error.value)
        assert f'put it at {tmp_path}/checkpoints/{url.rpartition("/")[2]}, or' in str(error.value)
        assert kept(tmp_path) == set()


def test_files_of_one_name_from_two_places(tmp_path, site, zipped):
    """Runs call their weights ``best.pth``, wherever they are."""
    torch.save({'stem.weight': torch.zeros(3)}, tmp_path / 'zeros')
    one = site.add('one/best.pth', zipped)
    other = site.add('other/best.pth', (tmp_path / 'zeros').read_bytes())
    for _ in range(2):
        assert fetch(one + '?signature=1') == fetch(one + '?signature=2') == tmp_path / 'checkpoints' / 'best.pth'
        assert torch.equal(read(fetch(other))['stem.weight'], torch.zeros(3))
    assert site.asked == ['/one/best.pth', '/other/best.pth']
    fetch(one).unlink()
    assert torch.equal(read(fetch(other))['stem.weight'], torch.zeros(3))


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers as the hub of Hugging Face does about the files of ``server.models``."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.wfile.write(self.answer())

    def answer(self) -> bytes:
        parts = self.path.partition('?')[0].removeprefix('/api/models').split('/')
        _, owner, name, kind, revision, *rest = parts + [''] * 4
        files, known, content = self.server.models.get(f'{owner}/{name}'), revision in ('main', COMMIT), b''
        if files and known and kind == 'tree':
            content = json.dumps([dict(type='file', path=file, oid='0', size=1) for file in files]).encode()
        elif files and known:
            content = files.get('/'.join(filter(None, rest)), b'')
        refusal = ('EntryNotFound' if known else 'RevisionNotFound') if files else 'RepoNotFound'
        self.send_response(200 if content else 404)
        headers = {'ETag': f'"{hashlib.sha256(content).hexdigest()}"', 'X-Repo-Commit': COMMIT}
        for key, value in (headers if content else {'X-Error-Code': refusal}).items():
            self.send_header(key, value)
        self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        return content

    def log_message(self, *_) -> None:
        pass


COMMIT = 'c' * 40


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Models of a hub by name, with their files."""
    models: dict[str, dict[str, bytes]] = {}
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Hub) as server:
        server.models = models
        endpoint, constants = f'http://127.0.0.1:{server.server_port}', huggingface_hub.constants
        url = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, endpoint)
        monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', url)
        monkeypatch.setattr(constants, 'ENDPOINT', endpoint)
        monkeypatch.setattr(huggingface_hub.hf_api.api, 'endpoint', endpoint)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield models
        server.shutdown()
        thread.join()


NAMES = [
    'hf-hub:someone/net',
    'hf_hub:someone/net@main',
    'hf-hub:someone/net/model.safetensors',
    'https://huggingface.co/someone/net',
    'https://huggingface.co/someone/net/tree/main',
    'https://huggingface.co/someone/net/blob/main/model.safetensors',
    'https://huggingface.co/someone/net/resolve/main/model.safetensors?download=true',
]


def test_files_of_the_hub(hub, monkeypatch):
    hub['someone/net'] = {'model.safetensors': save(STATE), 'more/best.safetensors': save({'x': torch.zeros(3)})}
    hub['else/net'] = {'pytorch_model.bin': save({'x': torch.ones(3)})}
    for offline in (False, True):
        monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', offline)
        for name in NAMES:
            assert torch.equal(read(fetch(name))['stem.weight'], STATE['stem.weight']), name
        assert torch.equal(read(fetch('hf-hub:someone/net/more/best.safetensors'))['x'], torch.zeros(3))
        assert torch.equal(read(fetch('hf-hub:else/net'))['x'], torch.ones(3))


def test_files_that_the_hub_has_not(hub, tmp_path, monkeypatch):
    hub['someone/net'] = {'best.pth': b'x', 'README.md': b'x'}
    for name, message in {
        'hf-hub:someone/net': 'has no model.safetensors and no pytorch_model.bin; there is best.pth',
        'hf-hub:someone/net/last.pth': 'someone/net has no last.pth; there is best.pth',
        'hf-hub:someone/net@v2/best.pth': "someone/net has no revision 'v2'",
        'hf-hub:someone/nett': "the hub has no model 'someone/nett'; of a private one, set HF_TOKEN",
    }.items():
        with pytest.raises(FileNotFoundError, match=f'^checkpoint {name}: .*{message}$'):
            fetch(name)
    for name in ('hf-hub:net', 'hf-hub:', 'hf-hub:some one/net'):
        with pytest.raises(ValueError, match=f'checkpoint {name}: (expected hf-hub:OWNER/NAME|.* alphanumeric)'):
            fetch(name)
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    with pytest.raises(ConnectionError) as error:
        fetch('hf-hub:someone/net')
    first, second = str(error.value).splitlines()
    assert first == 'could not download hf-hub:someone/net (not in the cache, and HF_HUB_OFFLINE is set).'
    assert f'put it at {tmp_path}/checkpoints/net_model.safetensors, or' in second


def test_files_of_the_hub_are_kept_under_the_names_of_their_models(tmp_path, monkeypatch):
    """``model.safetensors`` is the name of all of them."""
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    kept = tmp_path / 'checkpoints' / 'vit_tiny_patch16_224.augreg_in21k_model.safetensors'
    kept.parent.mkdir()
    save_file(STATE, kept)
    assert fetch('vit_tiny_augreg') == kept

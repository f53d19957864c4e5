"""What a source consists of."""

import contextlib
import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from support.bounded import refusal

from vitdense.predict.decoding import ImageError
from vitdense.predict.sources import find


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three images, whose grey says which, a text and a hidden file."""
    for i, name in enumerate(('b.png', 'a (1)/c d.PNG', 'ü=,[x].png')):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new('RGB', (8, 6), (10 * i,) * 3).save(path)
    (tmp_path / 'notes.txt').write_text('no image')
    (tmp_path / '.hidden.png').write_bytes(b'')
    return tmp_path


def greys(source) -> list[int]:
    return [int(origin.read()[0, 0, 0]) for origin in find(source)]


def video(path: Path, frames: int = 5) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 10, (64, 48))
    for i in range(frames):
        writer.write(np.full((48, 64, 3), 40 * i, np.uint8))
    writer.release()
    return path


def test_files_folders_and_patterns(folder):
    assert greys(folder) == greys(str(folder)) == [10, 0, 20]
    assert greys(folder / 'b.png') == [0]
    assert greys(folder / 'ü=,[x].png') == [20], 'a file comes before a pattern'
    assert greys(f'{folder}/*.png') == [0, 20]
    assert greys(f'{folder}/**/*.PNG') == [10]
    folder = folder.rename(folder.with_name('[x] *'))
    assert greys(f'{folder}/*.png') == [0, 20], 'only what is not there by its name is a pattern'
    assert greys([folder / 'b.png', f'file://{folder}/a (1)/c d.PNG']) == [0, 10]


def test_pictures_in_memory():
    grey = np.full((6, 8, 3), 7, np.uint8)
    batch = torch.full((2, 3, 6, 8), 9, dtype=torch.uint8)
    source = [grey, Image.new('L', (8, 6), 8), batch, (grey[..., 0] for _ in range(2)), np.stack([grey, grey])]
    assert greys(source) == [7, 8, 9, 9, 7, 7, 7, 7]
    assert [origin.path for origin in find(source)][:3] == ['image_0', 'image_1', 'image_2']


def test_blue_is_first_in_arrays_and_last_in_tensors():
    blue = np.zeros((6, 8, 3), np.uint8)
    blue[..., 0] = 255
    for source in (blue, Image.fromarray(blue[..., ::-1]), torch.from_numpy(blue[..., ::-1].copy()).permute(2, 0, 1)):
        [origin] = find(source)
        np.testing.assert_array_equal(origin.read(), blue)


def test_urls(folder):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f'http://127.0.0.1:{server.server_port}'
        assert greys([f'{url}/b.png', f'{url}/a%20(1)/c%20d.PNG']) == [0, 10]
        with pytest.raises(ImageError, match=rf'{url}/none.png cannot be read: .*[Nn]ot [Ff]ound'):
            greys(f'{url}/none.png')
        server.shutdown()


def test_frames_of_a_video(tmp_path):
    [origin] = find(video(tmp_path / 'v.avi'))
    assert origin.is_video
    frames = list(origin.frames())
    assert [frame.number for frame in frames] == [0, 1, 2, 3, 4]
    assert [round(float(frame.image.mean()) / 40) for frame in frames] == [0, 1, 2, 3, 4]
    assert frames[0].image.shape == (48, 64, 3)


@pytest.mark.parametrize(
    ('source', 'error', 'message'),
    [
        ('none.png', FileNotFoundError, "no image, video or folder 'none.png'"),
        ('none/*.png', FileNotFoundError, "no file goes with the pattern 'none/\\*.png'"),
        ('empty', ValueError, "the folder 'empty' has no images: there is notes.txt"),
        (object(), TypeError, 'object is no source of images'),
        (b'abc', TypeError, 'bytes is no source'),
        (True, TypeError, 'bool is no source'),
        (None, TypeError, 'NoneType is no source'),
    ],
)
def test_what_is_no_source(source, error, message, tmp_path, monkeypatch):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'empty/notes.txt').write_text('x')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        list(find(source))


@pytest.mark.parametrize(
    ('source', 'message'),
    [
        (97, 'camera 97 cannot be opened: there is no such camera'),
        ('text.mp4', r'text\.mp4 cannot be opened: it is no video'),
    ],
)
def test_videos_that_cannot_be_opened(source, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('text.mp4').write_text('text')
    [origin] = find(source)
    with pytest.raises(ImageError, match=message):
        next(origin.frames())


def test_devices_and_pipes_are_no_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('a.jpg', 'v.mp4'):
        os.mkfifo(name)
    with pytest.raises(FileNotFoundError, match='no image, video or folder'):
        list(find('/dev/zero'))
    for origin in find(tmp_path):
        read = (lambda origin=origin: next(origin.frames())) if origin.is_video else origin.read
        assert 'is a pipe, expected a regular file' in refusal(read)
    assert len(list(find(tmp_path))) == 2


def test_large_pictures_are_not_decoded(tmp_path):
    Image.new('1', (20_000, 20_000)).save(tmp_path / 'a.png')
    [origin] = find(tmp_path / 'a.png')
    assert 'a.png cannot be read' in refusal(origin.read, megabytes=300) or 'pixels' in refusal(origin.read)


def test_answers_of_a_server_are_bounded(monkeypatch):
    class Endless(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(bytes(2**14))

    with ThreadingHTTPServer(('127.0.0.1', 0), Endless) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f'http://127.0.0.1:{server.server_port}/a.jpg'
        with monkeypatch.context() as patch:
            patch.setattr('vitdense.predict.sources.LARGEST', 10**6)
            with pytest.raises(ImageError, match='it has more than 1000000 bytes'):
                greys(url)
        monkeypatch.setattr('vitdense.predict.sources.LONGEST', 0.1)
        with pytest.raises(ImageError, match=r'after 0\.1 seconds it has not ended'):
            greys(url)
        server.shutdown()
    with pytest.raises(FileNotFoundError):
        list(find('ftp://127.0.0.1/a.jpg'))

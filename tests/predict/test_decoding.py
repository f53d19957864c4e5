"""Pictures of all kinds are seen as a person sees them."""

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from vitdense.predict.decoding import ImageError, decode, from_array, from_tensor

RGB = np.random.default_rng(0).integers(0, 256, (24, 33, 3), np.uint8)
BGR = RGB[..., ::-1]
SMOOTH = np.stack(np.meshgrid(np.linspace(0, 255, 40), np.linspace(0, 255, 30)), -1).astype(np.uint8)
SMOOTH = np.concatenate([SMOOTH, SMOOTH[..., :1] // 2], -1)


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize('kind', ['PNG', 'BMP', 'TIFF', 'PPM', 'WEBP'])
def test_colours_without_loss(kind):
    options = dict(lossless=True) if kind == 'WEBP' else {}
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(RGB), kind, **options), 'x'), BGR)


def test_jpeg_is_that_of_the_pipelines():
    content = encoded(Image.fromarray(SMOOTH), 'JPEG', quality=90)
    np.testing.assert_array_equal(decode(content, 'x'), cv2.imdecode(np.frombuffer(content, np.uint8), 1))


def test_jpeg_without_opencv(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'cv2', None)
    content = encoded(Image.fromarray(SMOOTH), 'JPEG', quality=95)
    assert np.abs(decode(content, 'x').astype(int) - SMOOTH[..., ::-1]).max() < 16


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'TIFF'])
@pytest.mark.parametrize(
    ('orientation', 'turn'),
    [
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (6, lambda a: np.rot90(a, -1)),
        (8, lambda a: np.rot90(a)),
    ],
)
def test_exif_turns(orientation, turn, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(SMOOTH), kind, exif=exif.tobytes())
    found, expected = decode(content, 'x').astype(int), turn(SMOOTH[..., ::-1].astype(int))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= (24 if kind == 'JPEG' else 0)


@pytest.mark.parametrize('mode', ['L', '1'])
def test_grey(mode):
    picture = Image.fromarray(RGB[..., 0]).convert(mode)
    expected = np.asarray(picture.convert('L'))
    np.testing.assert_array_equal(decode(encoded(picture, 'PNG'), 'x'), np.repeat(expected[..., None], 3, 2))


@pytest.mark.parametrize('kind', ['PNG', 'TIFF'])
def test_sixteen_bits_give_their_upper_eight(kind):
    values = np.arange(24 * 33, dtype=np.uint16).reshape(24, 33) * 82
    found = decode(encoded(Image.fromarray(values), kind), 'x')
    np.testing.assert_array_equal(found, np.repeat((values >> 8).astype(np.uint8)[..., None], 3, 2))


def test_few_levels_of_sixteen_bits_are_stretched():
    values = np.linspace(1000, 3000, 24 * 33).astype(np.uint16).reshape(24, 33)
    found = decode(encoded(Image.fromarray(values), 'PNG'), 'x')
    assert (found.min(), found.max()) == (0, 255)
    assert np.abs(found[..., 0].astype(float) - (values - 1000.0) * 255 / 2000).max() <= 0.5


def test_sixteen_bits_of_colours():
    values = np.random.default_rng(1).integers(0, 65536, (20, 30, 3), np.uint16)
    content = cv2.imencode('.png', values)[1].tobytes()
    assert np.abs(decode(content, 'x').astype(int) - values // 256).max() <= 1


def test_cmyk_are_colours():
    cmyk = Image.fromarray(SMOOTH).convert('CMYK')
    found = decode(encoded(cmyk, 'JPEG', quality=95), 'x').astype(int)
    assert np.abs(found - SMOOTH[..., ::-1]).mean() < 4


def test_palette():
    picture = Image.fromarray(RGB).quantize(16)
    expected = np.asarray(picture.getpalette(), np.uint8).reshape(-1, 3)[np.asarray(picture)]
    np.testing.assert_array_equal(decode(encoded(picture, 'PNG'), 'x'), expected[..., ::-1])


def test_what_is_transparent_is_white():
    alpha = np.zeros((24, 33, 1), np.uint8)
    alpha[:, 10:] = 255
    alpha[5, 20] = 102
    found = decode(encoded(Image.fromarray(np.concatenate([RGB, alpha], -1)), 'PNG'), 'x')
    assert (found[:, :10] == 255).all()
    np.testing.assert_array_equal(found[6:, 10:], BGR[6:, 10:])
    np.testing.assert_allclose(found[5, 20], 0.4 * BGR[5, 20] + 0.6 * 255, atol=1)
    palette = Image.fromarray(RGB).quantize(16)
    first = np.asarray(palette) == 3
    found = decode(encoded(palette, 'PNG', transparency=3), 'x')
    assert (found[first] == 255).all()


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'photo.jpg is empty'),
        (b'some text', 'photo.jpg cannot be read: it is no image file'),
        (encoded(Image.fromarray(RGB), 'JPEG')[:-400], 'photo.jpg cannot be read: damaged'),
        (encoded(Image.fromarray(RGB), 'PNG')[:-400], 'photo.jpg cannot be read: damaged'),
    ],
)
def test_what_is_no_image(content, message):
    with pytest.raises(ImageError, match=message):
        decode(content, 'photo.jpg')


@pytest.mark.parametrize(
    ('array', 'expected'),
    [
        (BGR, BGR),
        (BGR[..., 0], np.repeat(BGR[..., :1], 3, 2)),
        (BGR[..., :1], np.repeat(BGR[..., :1], 3, 2)),
        (BGR / 255, BGR),
        (BGR.astype(np.float32), BGR),
        (BGR.astype(np.int64), BGR),
        (BGR[..., 0] > 99, np.repeat((BGR[..., :1] > 99) * np.uint8(255), 3, 2)),
        (np.concatenate([BGR, np.full((24, 33, 1), 255, np.uint8)], -1), BGR),
    ],
)
def test_arrays(array, expected):
    found = from_array(array)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    'array', [np.zeros((2, 3, 5)), np.zeros(4), np.zeros((0, 4)), np.array([['a']]), np.full((3, 3), np.nan)]
)
def test_arrays_that_are_no_image(array):
    with pytest.raises(ImageError, match='an array'):
        from_array(array)


def test_tensors_are_rgb():
    tensor = torch.from_numpy(RGB.copy()).permute(2, 0, 1)
    for same in (tensor, tensor / 255, tensor.to(torch.bfloat16)):
        assert np.abs(from_tensor(same).astype(int) - BGR).max() <= (1 if same.dtype == torch.bfloat16 else 0)
    np.testing.assert_array_equal(from_tensor(tensor[:1]), np.repeat(RGB[..., :1], 3, 2))
    with pytest.raises(ImageError, match='a tensor'):
        from_tensor(tensor.permute(1, 2, 0))

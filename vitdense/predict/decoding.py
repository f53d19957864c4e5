"""Pictures of all kinds as (H, W, 3) uint8 BGR arrays that show what a person sees. Needs NumPy and Pillow."""

import io
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from vitdense.untrusted.pictures import TooLargeError, check_pixels

ENOUGH_LEVELS = 64
"""Of 256: where fewer are left of 16 bits, they are stretched to the range of the picture instead."""

PLAIN = ('L', 'RGB', 'YCbCr')
"""Modes of Pillow of which OpenCV makes the same picture."""


class ImageError(ValueError):
    """Something that is no image, or a damaged one; the message names it."""


def decode(content: bytes, name: str) -> np.ndarray:
    """An image file.

    Turned as EXIF says; grey ones get three equal channels; of 16 bits the upper eight are taken; CMYK and palettes
    become colours; what is transparent is white. Plain ones are decoded by OpenCV where it is installed, as the
    pipelines of mmdet and mmseg do.

    Args:
        content: of the file.
        name: for the message.

    Returns:
        (H, W, 3) uint8, BGR.

    Raises:
        ImageError: it is no image, or it is damaged.
    """
    if not content:
        raise ImageError(f'{name} is empty')
    try:
        with Image.open(io.BytesIO(content)) as picture:
            check_pixels(*picture.size)
            if picture.format == 'JPEG':  # OpenCV fills a missing end with grey and says nothing
                _decode_small(content)
            plain = picture.mode in PLAIN and 'transparency' not in picture.info
            image = _by_opencv(content) if plain else None
            return from_pillow(picture) if image is None else image
    except TooLargeError as error:
        raise ImageError(f'{name} {error}') from None
    except Exception as error:  # decoders raise whatever they like
        reason = 'it is no image file' if isinstance(error, Image.UnidentifiedImageError) else f'damaged: {error}'
        raise ImageError(f'{name} cannot be read: {reason}') from None


def _decode_small(content: bytes) -> None:
    """Decode a JPEG at an eighth of its size, which costs a tenth and finds a missing end."""
    with Image.open(io.BytesIO(content)) as picture:
        picture.draft('L', (max(1, picture.width // 8), max(1, picture.height // 8)))
        picture.load()


def _by_opencv(content: bytes) -> np.ndarray | None:
    try:
        import cv2
    except ImportError:
        return None
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


def from_pillow(picture: Image.Image) -> np.ndarray:
    """A picture of Pillow, see :func:`decode`."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith('I') or picture.mode == 'F':
        return from_array(np.asarray(picture))
    if picture.mode in ('LA', 'La', 'PA', 'RGBA', 'RGBa') or 'transparency' in picture.info:
        picture = picture.convert('RGBA')
        white = Image.new('RGBA', picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return np.ascontiguousarray(np.asarray(picture.convert('RGB'))[..., ::-1])


def from_array(image: np.ndarray) -> np.ndarray:
    """An array (H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA, of 8 or 16 bits or of floats, see :func:`decode`.

    Floats are taken to be in [0, 1], or in [0, 255] where one is above 1; other ranges are stretched.

    Raises:
        ImageError: of another shape, empty, or of another type.
    """
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)) or not image.size:
        raise ImageError(f'an array of the shape {image.shape}, expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)')
    if image.dtype.kind not in 'buif':
        raise ImageError(f'an array of {image.dtype}, expected numbers')
    image = _as_bytes(image[..., None] if image.ndim == 2 else image)
    if image.shape[2] == 4:
        alpha = image[..., 3:].astype(np.float32) / 255
        image = (image[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


def _as_bytes(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    if image.dtype == bool:
        return image.astype(np.uint8) * 255
    if image.dtype.kind == 'f' and not np.isfinite(image).all():
        raise ImageError('an array with NaN or infinity')
    low, high = float(image.min()), float(image.max())
    if image.dtype.kind == 'f' and low >= 0 and high <= 255:
        return (image * (255 if high <= 1 else 1)).round().astype(np.uint8)
    if image.dtype.kind in 'iu' and low >= 0 and high <= 65535:
        if image.dtype.itemsize > 2 and high <= 255:
            return image.astype(np.uint8)
        if int(high) // 256 - int(low) // 256 + 1 >= ENOUGH_LEVELS or low == high:
            return (image // 256).astype(np.uint8)
    return ((image - low) * (255 / max(high - low, 1e-12))).round().astype(np.uint8)


def from_tensor(tensor: Any) -> np.ndarray:
    """A tensor (C, H, W) of one, three (RGB) or four (RGBA) channels as in torchvision, see :func:`from_array`."""
    array = tensor.detach().cpu()
    array = np.asarray(array.float() if array.is_floating_point() else array)
    if array.ndim != 3 or array.shape[0] not in (1, 3, 4):
        raise ImageError(f'a tensor of the shape {tuple(array.shape)}, expected (C, H, W) with 1, 3 or 4 channels')
    array = array.transpose(1, 2, 0)
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[array.shape[2]]
    return from_array(array[..., order])

"""How large a picture may be: one of a megabyte can have a billion pixels."""

import os

LIMIT = 'OPENCV_IO_MAX_IMAGE_PIXELS'
"""Variable of the environment that OpenCV goes by as well, when it is imported."""

PIXELS = 2**28
"""Of 16384 x 16384; as float32 with three channels they take 3 GB."""


class TooLargeError(ValueError):
    """A picture that is not decoded, as the end of a sentence that begins with its path."""


def limit_opencv() -> None:
    """Let OpenCV refuse what is larger, where nothing else is set and it is not imported yet."""
    os.environ.setdefault(LIMIT, str(PIXELS))


def most_pixels() -> int:
    """Pixels that a picture may have."""
    text = os.environ.get(LIMIT, '')
    return int(text) if text.isdigit() else PIXELS


def check_pixels(width: float, height: float) -> None:
    """Refuse a picture by its size.

    Raises:
        TooLargeError: it has more pixels than :func:`most_pixels`.
    """
    if width * height > most_pixels():
        raise TooLargeError(
            f'has {width:.0f} x {height:.0f} pixels, expected at most {most_pixels()}; {LIMIT}=N allows N'
        )

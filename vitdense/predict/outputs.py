"""What ``vitdense predict`` writes: pictures, label maps, videos, and one COCO file of all results."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np
from PIL import Image

from vitdense.files import part_of, replacing
from vitdense.untrusted.files import read_regular

from . import label_studio
from .results import IGNORED, RGB, Result, category_ids
from .sources import Origin, opened_video

RESULTS = 'predictions.json'
DRAWN = ('.jpg', '.jpeg', '.png', '.webp', '.bmp')
"""Suffixes of pictures that are drawn in the format in which they came; others become PNG."""

FPS = 25.0
"""Frames a second of a video that does not say it."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A result whose files are written, but for the frame of a video.

    Attributes:
        result: what was found.
        entry: image and annotations, as in a COCO file but without ids.
        frame: (H, W, 3) uint8 BGR, the drawn frame of a video.
    """

    result: Result
    entry: dict[str, Any]
    frame: np.ndarray | None = None


class Outputs:
    """A folder of results; a later start with the same settings goes on with it.

    Attributes:
        folder: where they are, made with the first of them.
        done: paths of the sources that are finished.
    """

    def __init__(
        self, folder: Path, settings: dict[str, Any], origins: Sequence[Origin], pictures: bool = True, rank: int = 0
    ) -> None:
        """Begin, or go on with what is there.

        Args:
            folder: may be there, empty or with results of these settings.
            settings: what the results depend on.
            origins: all sources, which decide the names of the files.
            pictures: whether pictures and videos are drawn.
            rank: of this process, which notes what it has done in a file of its own.

        Raises:
            FileExistsError: the folder holds something else, or results of other settings.
            OSError: what was noted cannot be read, or is no regular file.
        """
        self.folder, self.pictures = folder, pictures
        self.settings = json.loads(json.dumps(settings))
        self.places = places_of(origins)
        self.done = self.finished()
        self._progress = folder / f'progress_{rank}.jsonl'
        self._noted = False
        self._video: VideoFile | None = None

    def _entries(self) -> list[dict[str, Any]]:
        """What was noted, by whichever process."""
        there = list(self.folder.iterdir()) if self.folder.is_dir() else []
        files = sorted(file for file in there if file.match('progress_*.jsonl'))
        if there and not files:
            raise FileExistsError(f'--out {self.folder} holds other files; --overwrite removes them')
        entries = []
        for file in files:
            head, *lines = read_regular(file).decode(errors='replace').splitlines() or ['null']
            if _parsed(head) not in (None, self.settings):
                raise FileExistsError(
                    f'--out {self.folder} holds predictions of other settings; --overwrite removes them'
                )
            found = map(_parsed, lines)
            entries += [one for one in found if isinstance(one, dict) and {'path', 'results'} <= one.keys()]
        return entries

    def draw(self, result: Result) -> Drawn:
        """Write the files of a picture, or draw the frame of a video; called in threads."""
        place = self.places[result.path]
        h, w = result.image.shape[:2]
        image: dict[str, Any] = dict(file_name=place.as_posix(), width=w, height=h)
        entry = dict(image=image, annotations=result.to_coco())
        if result.number is not None:
            image['frame'] = result.number
            frame = np.asarray(result.draw())[..., ::-1] if self.pictures else None
            return Drawn(result, entry, frame)
        if self.pictures:
            with replacing(_made(self.folder / 'pictures' / _drawn_name(place))) as part:
                result.save(part)
        if result.semantic_map is not None:
            image['map'] = f'maps/{place.as_posix()}.png'
            with replacing(_made(self.folder / image['map'])) as part:
                label_picture(result.semantic_map, result.palette).save(part)
        return Drawn(result, entry)

    def add(self, drawn: Drawn) -> None:
        """Note a picture as done, or put a frame into its video."""
        result = drawn.result
        if result.number is None:
            self._note(result.path, [drawn.entry])
            return
        if self._video is None or self._video.path != result.path:
            self.close()
            target = _made(self.folder / 'videos' / self.places[result.path]).with_suffix('.mp4')
            self._video = VideoFile(result.path, target)
        self._video.add(drawn)

    def close(self) -> None:
        """Finish the video that frames were put into."""
        if self._video is not None:
            self._video.close()
            self._note(self._video.path, self._video.entries)
            self._video = None

    def _note(self, path: str, entries: Sequence[dict]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        there = self._progress.exists()
        with self._progress.open('a', encoding='utf-8') as file:
            if not self._noted:  # a start that was killed may have left half a line
                file.write('\n' if there else json.dumps(self.settings) + '\n')
            file.write(json.dumps(dict(path=path, results=list(entries))) + '\n')
        self._noted = True
        self.done.add(path)

    def finished(self) -> set[str]:
        """Those of the sources that are done, by whichever process."""
        return {entry['path'] for entry in self._entries()} & self.places.keys()

    def _results(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Source and entry of each picture that is done, in the order of the sources."""
        entries = {entry['path']: entry['results'] for entry in self._entries()}
        for path in self.places:
            for one in entries.get(path, ()):
                yield path, one

    def finish(self, names: Sequence[str]) -> Path:
        """Write the COCO file of all that is done, in the order of the sources: it can be imported as annotations.

        Images and annotations are numbered from 1; annotations have scores.
        """
        images: list[dict] = []
        annotations: list[dict] = []
        for _, one in self._results():
            images.append(dict(id=len(images) + 1, **one['image']))
            for annotation in one['annotations']:
                numbers = dict(id=len(annotations) + 1, image_id=len(images), iscrowd=0)
                annotations.append({**annotation, **numbers})
        categories = [dict(id=number, name=name) for number, name in zip(category_ids(names), names, strict=True)]
        content = dict(info={}, licenses=[], images=images, annotations=annotations, categories=categories)
        with replacing(_made(self.folder / RESULTS)) as part:
            part.write_text(json.dumps(content), encoding='utf-8')
        return self.folder / RESULTS

    def finish_label_studio(self, names: Sequence[str], palette: Sequence[RGB], prefix: str) -> None:
        """Write tasks of Label Studio of all pictures that are done, and the labelling interface that they need.

        Args:
            prefix: what stands before the names of files in addresses, see :func:`.label_studio.address`.
        """
        categories = dict(zip(category_ids(names), names, strict=True))
        tasks = []
        for path, one in self._results():
            image = one['image']
            if 'frame' not in image:  # of a video, which is no image
                where = label_studio.address(path if '://' in path else image['file_name'], prefix)
                wh = image['width'], image['height']
                tasks.append(label_studio.task(where, wh, one['annotations'], categories))
        content = {'label_studio.json': json.dumps(tasks), 'label_studio.xml': label_studio.interface(names, palette)}
        for name, text in content.items():
            with replacing(_made(self.folder / name)) as part:
                part.write_text(text, encoding='utf-8')


class VideoFile:
    """An MP4 file of drawn frames, which is there when it is whole.

    Attributes:
        path: the video that the frames are from.
        entries: of its frames.
    """

    def __init__(self, path: str, target: Path) -> None:
        self.path, self.target = path, target
        self.entries: list[dict] = []
        self._part = part_of(target)
        self._writer: Any = None

    def add(self, drawn: Drawn) -> None:
        """Put in the next frame."""
        import cv2

        self.entries.append(drawn.entry)
        if drawn.frame is None:
            return
        h, w = drawn.frame.shape[:2]
        if self._writer is None:
            with opened_video(self.path, self.path) as video:
                fps = video.get(cv2.CAP_PROP_FPS)
            code = cv2.VideoWriter.fourcc(*'mp4v')
            self._writer = cv2.VideoWriter(str(self._part), code, fps if fps > 0 else FPS, (w, h))
            if not self._writer.isOpened():
                raise OSError(f'the video {self.target} cannot be written: OpenCV has no encoder for MP4')
        self._writer.write(np.ascontiguousarray(drawn.frame))

    def close(self) -> None:
        """Let the file appear."""
        if self._writer is not None:
            self._writer.release()
            os.replace(self._part, self.target)


def places_of(origins: Iterable[Origin]) -> dict[str, Path]:
    """Where the files of each source go, below a folder: as they are below the one that holds all of them.

    What is no file has the last part of its name. Equal names get a number.
    """
    files = [origin.path for origin in origins if isinstance(origin.value, str) and '://' not in origin.value]
    folders = [os.path.dirname(os.path.abspath(file)) for file in files]
    try:
        root = os.path.commonpath(folders) if folders else ''
    except ValueError:  # on different drives
        root = ''
    places: dict[str, Path] = {}
    taken: set[str] = set()
    for origin in origins:
        is_file = origin.path in files and root
        name = os.path.relpath(os.path.abspath(origin.path), root) if is_file else _last_part(origin.path)
        place, number = Path(name), 2
        while place.as_posix() in taken and origin.path not in places:
            place = Path(name).with_stem(f'{Path(name).stem}_{number}')
            number += 1
        taken.add(place.as_posix())
        places.setdefault(origin.path, place)
    return places


def label_picture(labels: np.ndarray, palette: Sequence[RGB]) -> Image.Image:
    """A semantic map (H, W) as a picture of class numbers in the colours of the classes; without them if of 16 bits."""
    if labels.dtype != np.uint8:
        return Image.fromarray(np.where(labels < 0, 65535, labels).astype(np.uint16))
    picture = Image.fromarray(labels, 'P')
    colors = np.zeros((IGNORED + 1, 3), np.uint8)
    colors[: len(palette)] = palette
    picture.putpalette(colors.tobytes())
    return picture


def _last_part(path: str) -> str:
    return unquote(urlparse(path).path).rstrip('/').rpartition('/')[2] or 'image'


def _drawn_name(place: Path) -> Path:
    return place if place.suffix.lower() in DRAWN else place.with_name(f'{place.name}.png')


def _made(path: Path) -> Path:
    """The path, whose folder is there afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _parsed(line: str) -> Any:
    """What a line says; ``None`` of the last one of a start that was killed while it wrote."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None

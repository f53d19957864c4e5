"""A small data set in the format of Pascal VOC whose files can be spoiled."""

from pathlib import Path
from xml.sax.saxutils import escape

from mmengine.config import Config

from support.scan import CLASSES, LOAD, WH, write_picture
from vitdense.datasets.scan import SplitReport, scan_data


def xml(objects: list[tuple], wh: tuple[int, int] = WH) -> str:
    """Pascal VOC: name, box and difficult of each object."""
    parts = [f'<annotation><size><width>{wh[0]}</width><height>{wh[1]}</height></size>']
    for name, (x1, y1, x2, y2), difficult in objects:
        box = f'<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>'
        parts.append(f'<object><name>{escape(name)}</name><difficult>{difficult}</difficult><bndbox>{box}</bndbox>')
        parts.append('</object>')
    return ''.join([*parts, '</annotation>'])


class VOC:
    """Three images with a circle each, the second with a difficult square, the third with a star.

    Attributes:
        objects: those of the XML file of each image; or the text of the file, or ``None`` where there is none.
        lines: of the list of names, if not those of the images.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.objects: dict[str, list | str | None] = {str(i): [('circle', (5, 5, 30, 40), 0)] for i in (1, 2, 3)}
        self.objects['2'] = [*self.objects['2'], ('square', (40, 5, 60, 40), 1)]
        self.objects['3'] = [*self.objects['3'], ('star', (40, 5, 60, 40), 0)]
        self.lines: list[str] | None = None
        for i in self.objects:
            write_picture(root / f'VOC2007/JPEGImages/{i}.jpg', int(i))

    def config(self, split: str = 'train', **changes) -> Config:
        lists, places = self.root / 'VOC2007/ImageSets', self.root / 'VOC2007/Annotations'
        for folder in (lists, places):
            folder.mkdir(exist_ok=True)
        (lists / 'train.txt').write_text('\n'.join(self.lines or self.objects))
        for name, objects in self.objects.items():
            (places / f'{name}.xml').unlink(missing_ok=True)
            if objects is not None:
                (places / f'{name}.xml').write_text(objects if isinstance(objects, str) else xml(objects))
        dataset = dict(
            type='VOCDataset',
            data_root=str(self.root),
            ann_file='VOC2007/ImageSets/train.txt',
            data_prefix=dict(sub_data_root='VOC2007/'),
            metainfo=dict(classes=CLASSES),
            pipeline=LOAD,
        )
        return Config(dict(default_scope='mmdet', **{f'{split}_dataloader': dict(dataset=dataset | changes)}))

    def scan(self, split: str = 'train', **changes) -> SplitReport:
        return scan_data(self.config(split, **changes), (split,), 'full')[0]

"""What the readers of own data look for, see :class:`vitdense.findings.Rule`. ``--lenient`` leaves the cases out."""

from vitdense.findings import declare

FILES = 'files of `--data`'
MEND = 'mend the file; --lenient leaves it out'

UNREADABLE = declare('label file that cannot be read', FILES, 'a whole file of its format', MEND)
LINE = declare(
    'line that is no object',
    'each line of YOLO labels',
    'CLASS X Y WIDTH HEIGHT, or CLASS X1 Y1 X2 Y2 X3 Y3 ... of a polygon',
    MEND,
)
CLASS_BEYOND = declare('class beyond the names', 'the class of each object', 'a class of the list', MEND)
COORDINATES = declare(
    'coordinate beyond 0 to 1', 'the numbers of YOLO labels', 'shares of the width and height of the image', MEND
)
NO_NAME = declare('object without a name', '`name` of each VOC object, `label` of each LabelMe shape', 'a class', MEND)
NO_CORNERS = declare(
    'object without a box',
    '`bndbox` of each VOC object',
    'numbers in xmin, ymin, xmax and ymax, each maximum above',
    MEND,
)
NO_SHAPE = declare(
    'shape without an area',
    'shapes of LabelMe files',
    'a polygon, rectangle, circle or mask',
    'draw it as a polygon; --lenient leaves it out',
)
NO_IMAGE = declare(
    'label file without an image',
    FILES,
    'an image of the same name, or the one that the file names',
    'add the image or remove the label file; --lenient leaves it out',
)
NO_SIZE = declare('image of unknown size', FILES, 'an image file', 'replace the file; --lenient leaves it out')
LISTED = declare(
    'listed image that is not there',
    'lists of images in YOLO and VOC data',
    'a file',
    'mend the list; --lenient leaves it out',
)
NO_COLOUR = declare(
    'colour of no class',
    'maps in colours, where `labelmap.txt` or a list of classes has the colours',
    'the colours of the classes alone',
    'add the colour or mend the map; --lenient leaves the image out',
)
NO_MAP = declare(
    'image without a map',
    'folders of images and maps',
    'a map of the same name',
    'add the map; --lenient leaves it out',
)

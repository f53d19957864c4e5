"""What the scan looks for in files, see :class:`vitdense.findings.Rule`."""

from vitdense.findings import declare

IMAGES_OF_A_FILE = '`images` of a COCO file'
BOXES = '`bbox` of each annotation, and the size of its image'
OPENED = 'the opened images'
MAPS = 'the opened maps'

ANNOTATION_FILE = declare(
    'annotation file', '`ann_file`, or the list of a data set', 'a file of the format that the data set reads', ''
)
PACKAGE = declare(
    'package of a data set', 'what a data set imports to read its files', 'the package', 'pip install PACKAGE'
)
ENTRY = declare(
    'annotation that cannot be read',
    'the files and entries of data sets that are no COCO files; of XML files (VOC, WIDER Face) all of them',
    'what the data set reads: sizes above 0, and objects with a name and numbers in bndbox',
    'mend the file',
)
NAME_LINE = declare(
    'line of a list of names',
    '`ann_file` of semantic maps and of XML files, where a file of this name is not there',
    'a name a line, without blanks, suffixes and blank lines',
    'mend the line',
)
CLASS_NAMES = declare(
    'class names',
    '`metainfo.classes`, and the categories of the file, or the names of the objects in XML files',
    'names, each once, that are those of the file in any order',
    'name them in metainfo=dict(classes=(...)); --lenient takes those of the config',
)
CLASS_ORDER = declare(
    'class order',
    '`metainfo.classes` and the categories of the file, for data sets whose labels follow the file',
    'the order of the file',
    "type='vitdense.CocoDataset' goes by name",
)
NO_FIELDS = declare(
    'image without needed fields',
    IMAGES_OF_A_FILE,
    'an id, a file name and a positive width and height',
    'mend the file, or --lenient leaves the image out',
)
SAME_IMAGE_ID = declare('duplicate image id', IMAGES_OF_A_FILE, 'another id for each image', 'mend the file')
SAME_FILE_NAME = declare('duplicate file name', IMAGES_OF_A_FILE, 'another file for each image', 'mend the file')
UNKNOWN_IMAGE = declare(
    'annotation of an unknown image', '`image_id` of each annotation', 'the id of an image of the file', 'mend the file'
)
UNKNOWN_CATEGORY = declare(
    'annotation of an unknown category', '`category_id` of each annotation', 'the id of a category', 'mend the file'
)
NO_ID = declare('annotation without id', '`id` of each annotation', 'a number', '--lenient gives a new one')
SAME_ID = declare(
    'duplicate annotation id', '`id` of each annotation', 'another number each', '--lenient gives new ones'
)
SAME_CATEGORY = declare(
    'categories of the same name',
    '`categories` of a COCO file, and the annotations',
    'another name for each; the one with annotations counts',
    "rename it in the file; type='vitdense.CocoDataset' needs no remedy",
    fatal=False,
)
UNUSED_CATEGORY = declare(
    'category that is no class',
    '`metainfo.classes`, and the categories of the file',
    'all classes of the file, or a part of them on purpose',
    '',
    fatal=False,
)
FLAG = declare(
    'flag that says neither yes nor no',
    '`iscrowd` and `ignore` of each annotation',
    '0 or 1; also truth values, empty ones, and texts such as "0" and "false"',
    'mend the file',
)
FLAG_TEXT = declare(
    'flag as a text',
    '`iscrowd` and `ignore` of each annotation, for data sets that take the text "0" for a yes',
    '0 or 1',
    "type='vitdense.CocoDataset' reads texts, --lenient writes numbers",
)
NO_BOX = declare('box that is no four numbers', BOXES, 'x, y, width and height', 'mend the file')
NOT_FINITE = declare('box with NaN or infinity', BOXES, 'finite numbers', 'mend the file')
NEGATIVE = declare('box of negative size', BOXES, 'x, y, width and height, not two corners', 'mend the file')
EMPTY_BOX = declare('empty box', BOXES, 'a width and a height above 0', 'mend the file')
ABSURD = declare('absurd box', BOXES, 'no side longer than twice that of the image', 'mend the file')
OUTSIDE = declare('box outside the image', BOXES, 'a box that meets its image', 'mend the file')
BEYOND = declare(
    'box beyond the edge of the image',
    BOXES,
    'to the edge, give or take a pixel or 1 % of the side',
    'mend the file; --lenient cuts the boxes of the training',
)
RELATIVE = declare(
    'box relative to the image',
    f'{BOXES}, where all boxes of an image lie between 0 and 1',
    'pixels',
    'multiply with width and height of the image',
)
THIN = declare(
    'box thinner than a pixel', BOXES, 'a pixel or more each way, mmdet leaves out the others', '', fatal=False
)
NO_AREA = declare(
    'annotation without area',
    '`area` of each annotation',
    'the area in pixels; mmdet fails without and leaves out 0',
    '--lenient takes the area of the box',
)
TWICE = declare('box given twice', BOXES, 'each object once', '', fatal=False)
FAULTY_MASK = declare(
    'faulty mask',
    '`segmentation` of each annotation, where the pipeline loads masks; else a remark',
    'a list of polygons of three points or more, or RLE of the size of the image, in pixels and within the box',
    'mend the file',
)
MISSING_IMAGE = declare('missing image', 'files of the images', 'a file', 'mend data_prefix or the file')
ELSEWHERE = declare(
    'images outside of the data set',
    'paths of the images and maps, against data_root, data_prefix and the folder of ann_file',
    'files within one of these: what others wrote may name any file of this machine',
    '',
    fatal=False,
)
TOO_MANY = declare(
    'too many objects in an image',
    'the annotations of each image',
    'at most 20000 objects: losses compare each of them with thousands of predictions',
    'cut the image in tiles, or --lenient leaves it out',
)
TOO_LARGE = declare(
    'image of too many pixels',
    IMAGES_OF_A_FILE,
    'no more pixels than the limit of OpenCV, OPENCV_IO_MAX_IMAGE_PIXELS, which is 2**28 here',
    'cut the image in tiles, or set OPENCV_IO_MAX_IMAGE_PIXELS',
)
MAP_AS_IMAGE = declare(
    'semantic map that is read as an image',
    '`data_prefix`, `img_suffix` and `seg_map_suffix`, and the files that they lead to',
    'images and maps that names or folders tell apart',
    'put the maps into a folder of their own, or list the names of the images in ann_file',
)
MISSING_MAP = declare('missing semantic map', 'files of the maps', 'a file', 'mend data_prefix or seg_map_suffix')
UNREADABLE_IMAGE = declare('unreadable image', OPENED, 'a whole file that the pipeline can load', 'replace the file')
UNREADABLE_MAP = declare('unreadable semantic map', MAPS, 'a whole file that the pipeline can load', 'replace the file')
CHANNELS = declare(
    'semantic map of several channels',
    MAPS,
    'one channel of class numbers; a palette is fine',
    'save the number of the class of each pixel, not its colour',
)
FRACTIONS = declare(
    'semantic map of fractions',
    MAPS,
    'whole numbers: the cast to 8 bits cuts off the rest',
    'save the number of the class of each pixel',
)
TOO_DEEP = declare(
    'value beyond 8 bits',
    'values of the opened maps, where LoadAnnotations of mmseg loads them',
    '0 to 255: the cast to 8 bits makes 0 of 256 and 44 of 300',
    'mend the maps, or load them with a transform of yours that keeps 16 bits',
)
WRONG_SIZE = declare(
    'wrong image size', f'{OPENED}, and the sizes of their annotations or maps', 'the same size', 'mend the file'
)
TURNED = declare(
    'EXIF orientation', f'{OPENED}, and the sizes of their annotations or maps', 'upright images', 'save them upright'
)
SAME_PICTURE = declare('same picture twice', f'{OPENED}, by their bytes', 'each picture once', '', fatal=False)
LEAK = declare('leak', f'{OPENED}, by their bytes', 'no picture of the training in another split', '', fatal=False)
LOST = declare(
    'annotations that are no objects',
    '`iscrowd`, `ignore`, sizes, areas and `filter_cfg`, where half of the annotations of the classes or more get lost',
    'objects, for the most part',
    '',
    fatal=False,
)
DEPTH = declare(
    'image of more than 8 bits',
    f'{OPENED}; a remark where 64 of 256 levels or more are left',
    '8 bits, or a pipeline that keeps all of them',
    "save the images with 8 bits, stretched to their range, or load them with color_type='unchanged'",
)
TOO_SMALL = declare(
    'image that is resized to nothing',
    'sizes of the images, and the first resizing of the pipeline',
    'a pixel or more each way after the resizing',
    'leave the image out, as --lenient does, or cut it in pieces',
)
EMPTY = declare(
    'empty data set',
    'what `filter_cfg`, `indices` and the other findings leave',
    'images, and objects to train on',
    'mend data_prefix, img_suffix, filter_cfg or the classes',
)
NO_CLASS = declare(
    'value that is no class',
    'values of the opened maps, `reduce_zero_label`, `ignore_index`, and the classes',
    'classes and what is ignored',
    'mend the maps, the classes, reduce_zero_label or ignore_index of the data set',
)
NOTHING = declare(
    'nothing to learn',
    'values of the opened maps of the training',
    'pixels of the classes',
    'mend reduce_zero_label or the maps',
)
NO_PIXELS = declare('class without pixels', 'values of the opened maps', 'pixels of each class', '', fatal=False)

"""Parameters and FLOPs of a config's model: ``python tools/get_flops.py CONFIG --shape 800 1280``."""

import argparse

from vitdense.engine.complexity import complexity
from vitdense.engine.config import load_config

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description='Count parameters and FLOPs (multiply-adds) of one image.')
    parser.add_argument('config', help='config file, or one of an installed package: mmdet::retinanet/...')
    parser.add_argument('--shape', type=int, nargs=2, default=[800, 1280], metavar=('H', 'W'), help='image size')
    args = parser.parse_args()
    result = complexity(load_config(args.config), tuple(args.shape))
    print(f'parameters  {result.parameters / 1e6:.2f} M')
    print(f'FLOPs       {result.flops / 1e9:.1f} G, of which attention {result.attention_flops / 1e9:.1f} G')

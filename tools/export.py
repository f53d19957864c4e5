"""Write a trained model as an ONNX file: ``python tools/export.py WORK_DIR``."""

from vitdense.commands import main

if __name__ == '__main__':
    main('export')

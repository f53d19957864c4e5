"""Find objects or classes in pictures and videos: ``python tools/predict.py SOURCE --model WORK_DIR``."""

from vitdense.commands import main

if __name__ == '__main__':
    main('predict')

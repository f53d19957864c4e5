"""What mmcv reports about its compiler; it is printed with the environment of every run."""

__all__ = ['get_compiler_version', 'get_compiling_cuda_version']


def get_compiler_version() -> str:
    return 'none (operators from torchvision through vitdense)'


def get_compiling_cuda_version() -> str:
    return 'not available'

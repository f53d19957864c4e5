"""What the OpenMMLab packages need to run on current PyTorch, to load what it says, and to run no code of data."""

from vitdense.compat import deform_attn, evaluation, mmcv_ext, noise, patches, requirements, untrusted, weights
from vitdense.untrusted.pictures import limit_opencv


def install() -> None:
    """Prepare the installed OpenMMLab stack; safe to call again.

    Must run before anything imports ``mmcv.ops`` or ``mmdet.models``.

    Raises:
        ImportError: a package of the stack is missing or cannot be loaded; the text says what to install. Where there
            is nothing of the stack, importing :mod:`vitdense.registry` says it.
    """
    limit_opencv()
    if not requirements.has_stack():
        return
    requirements.check()
    mmcv_ext.install()
    deform_attn.install()
    weights.install()
    untrusted.install()
    patches.apply()
    evaluation.install()
    noise.install()


__all__ = ['install']

"""Files that others wrote: data, whatever is in them. Nothing of one runs, and none takes memory or time without end.

Nothing here needs PyTorch or the OpenMMLab packages.
"""

"""Where half types are not precise enough, or have no kernel."""

import torch
from torch import Tensor


def widened(x: Tensor) -> Tensor:
    """float16 and bfloat16 as float32; wider types as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))

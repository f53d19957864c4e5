"""Building blocks in plain PyTorch, without registries."""

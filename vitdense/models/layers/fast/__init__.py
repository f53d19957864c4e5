"""What exists for speed and memory alone: each has a plain counterpart in PyTorch with the same result."""

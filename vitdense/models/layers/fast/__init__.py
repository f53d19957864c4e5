"""What exists for speed and memory alone and computes the same: linear layers, dropout, attention by pieces."""

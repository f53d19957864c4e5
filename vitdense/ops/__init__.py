"""Operators with kernels of their own; torch only."""

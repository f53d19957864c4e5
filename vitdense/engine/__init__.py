"""What the tools do: read a config, swap its backbone, check it, run it."""

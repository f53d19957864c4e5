"""Configs: reading them, checking that their parts fit together, changing their backbone."""

"""``python -m vitdense COMMAND ...``."""

from vitdense.commands import cli

if __name__ == '__main__':
    cli()

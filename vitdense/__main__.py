"""``python -m vitdense COMMAND ...``."""

from vitdense.commands import vitdense

if __name__ == '__main__':
    vitdense()

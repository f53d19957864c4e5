"""Trained models as files that others run: ``graphs.py`` is what they compute, ``runtime.py`` runs them."""

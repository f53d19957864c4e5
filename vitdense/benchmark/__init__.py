"""What a model costs: parameters and FLOPs, the time of a batch and of its parts, and memory.

``subject.py`` is a model with the batch that it predicts, ``rounds.py`` lets several take turns, ``parts.py`` splits
their time, ``complexity.py`` counts, and ``machine.py`` knows processor and memory.
"""

"""``--backbone NAME``: another backbone, and what has to change with it."""

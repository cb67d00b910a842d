"""Networks without values, where names and shapes are asked for alone: drawing them takes most of the time."""

from contextlib import contextmanager

import keras


@contextmanager
def valueless():
    """Networks that are built here get no weights drawn; they are not to be computed with, here or later."""
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.backend.clear_session(free_memory=False)  # which forgets the variables that would be drawn later

"""What libraries find out anew at each call, and what is the same in a whole run of the tests."""

import copy
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from unittest.mock import patch

from jsonargparse import _signatures
from jsonargparse._parameter_resolvers import get_signature_parameters
from lightning.pytorch.utilities import model_helpers


@cache
def parameters(component, name):
    return get_signature_parameters(component, name)


def parameters_of(component, name=None, logger=None):
    """Options of a class, which jsonargparse reads from the source code of all it derives from."""
    del logger
    return [copy.copy(one) for one in parameters(component, name)]


@contextmanager
def remembered():
    """Options are read once, and the source of the whole stack at no load of a checkpoint.

    Lightning looks there for torch's compiler of scripts, which no test calls.
    """
    no_stack = SimpleNamespace(stack=list)
    with (
        patch.object(_signatures, "get_signature_parameters", parameters_of),
        patch.object(model_helpers, "inspect", no_stack),
    ):
        yield

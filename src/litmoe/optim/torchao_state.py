"""Optimizer states with tensor subclasses, such as torchao's, as plain tensors and back.

A checkpoint loads with ``weights_only=True``, on machines that may not have the package.
"""

import importlib
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

PACKAGE = "torchao"
"""The only package whose classes a checkpoint may name: loading must not import whatever a file says."""


def plain(tree: Any) -> Any:
    """The same nested dicts, lists and tuples, each tensor subclass as a dictionary of the tensors inside it."""
    if isinstance(tree, Tensor) and is_traceable_wrapper_subclass(tree):
        names, context = tree.__tensor_flatten__()
        kind = type(tree)
        return {
            "tensor_class": f"{kind.__module__}.{kind.__name__}",
            "context": list(context),
            "tensors": {name: plain(getattr(tree, name)) for name in names},
        }
    if isinstance(tree, dict):
        return {key: plain(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(plain(value) for value in tree)
    return tree


def restored(tree: Any) -> Any:
    """The inverse of `plain`.

    Raises:
        ValueError: a class of another package than torchao, or one that it does not have.
    """
    if isinstance(tree, dict) and "tensor_class" in tree:
        module, _, name = str(tree["tensor_class"]).rpartition(".")
        if module.partition(".")[0] != PACKAGE:
            raise ValueError(f"{tree['tensor_class']} is not a tensor of {PACKAGE}")
        try:
            kind = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"{tree['tensor_class']} is not in this version of {PACKAGE}") from error
        if not (isinstance(kind, type) and issubclass(kind, Tensor)):
            raise ValueError(f"{tree['tensor_class']} is not a tensor of {PACKAGE}")
        return kind.__tensor_unflatten__(restored(tree["tensors"]), tree["context"])  # type: ignore[attr-defined]
    if isinstance(tree, dict):
        return {key: restored(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(restored(value) for value in tree)
    return tree

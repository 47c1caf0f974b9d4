"""A class named in a configuration: found, its arguments checked, and made."""

import importlib
import inspect
from typing import Any

from litmoe.config import ClassSpec
from litmoe.errors import LitMoEError
from litmoe.messages import nearest, one_line


def find_class(spec: ClassSpec, section: str, default_module: str, base: type) -> type:
    """The class at ``spec.class_path``; a bare name is looked up in ``default_module``.

    Raises:
        LitMoEError: no such module or class, not a subclass of ``base``, or arguments that it does not take.
    """
    path = spec.class_path if "." in spec.class_path else f"{default_module}.{spec.class_path}"
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a module raises while it is imported, or importlib for an odd name
        raise LitMoEError(f"{section}.class_path {path}: {one_line(error)}") from error
    found = getattr(module, name, None)
    if not (isinstance(found, type) and issubclass(found, base)):
        classes = [n for n, c in vars(module).items() if isinstance(c, type) and issubclass(c, base)]
        hint = nearest(name, classes, f"{module_name}.") if found is None else ""
        raise LitMoEError(f"{section}.class_path {path}: no {base.__name__} of that name{hint}")
    parameters = inspect.signature(found).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for key in spec.init_args:
            if key not in parameters:
                where = f"{section}.init_args.{key}"
                raise LitMoEError(f"{where}: {name} takes no such argument{nearest(key, parameters)}")
    return found


def make(cls: type, *args: Any, section: str, **kwargs: Any) -> Any:
    """``cls(*args, **kwargs)``; what the class says against its arguments becomes one line.

    Raises:
        LitMoEError: the class refused its arguments, or lacks a package that it needs.
    """
    try:
        return cls(*args, **kwargs)
    except LitMoEError:
        raise
    except (
        Exception
    ) as error:  # a class refuses in its own way: TypeError, IndexError, ZeroDivisionError, ...
        raise LitMoEError(f"{section}: {cls.__name__} refused its arguments: {one_line(error)}") from error

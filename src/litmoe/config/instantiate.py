"""A class named in a configuration: found, its arguments checked, and made."""

import importlib
import inspect
from typing import Any

from litmoe.config import ClassSpec
from litmoe.errors import ConfigError, LitMoEError
from litmoe.messages import nearest, one_line


def find_class(spec: ClassSpec, section: str, default_module: str, base: type) -> type:
    """The class at ``spec.class_path``; a bare name is looked up in ``default_module``.

    Raises:
        ConfigError: no such module or class, not a subclass of ``base``, or arguments that it does not take.
    """
    path = spec.class_path if "." in spec.class_path else f"{default_module}.{spec.class_path}"
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a module raises when imported, or importlib for an odd name
        raise ConfigError(f"{section}.class_path {path}: {one_line(error)}") from error
    found = getattr(module, name, None)
    if not (isinstance(found, type) and issubclass(found, base)):
        classes = [n for n, c in vars(module).items() if isinstance(c, type) and issubclass(c, base)]
        hint = nearest(name, classes, f"{module_name}.", otherwise="") if found is None else ""
        raise ConfigError(f"{section}.class_path {path}: no {base.__name__} of that name{hint}")
    parameters = inspect.signature(found).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for key in spec.init_args:
            if key not in parameters:
                hint = nearest(key, parameters, otherwise="")
                raise ConfigError(f"{section}.init_args.{key}: {name} takes no such argument{hint}")
    return found


def make(cls: type, *args: Any, section: str, **kwargs: Any) -> Any:
    """``cls(*args, **kwargs)``; what the class says against its arguments becomes one line.

    Raises:
        ConfigError: the class refused its arguments, or lacks a package that it needs.
    """
    try:
        return cls(*args, **kwargs)
    except LitMoEError:
        raise
    except Exception as error:  # whatever a class refuses by: TypeError, IndexError, ZeroDivisionError, ...
        raise ConfigError(f"{section}: {cls.__name__} refused its arguments: {one_line(error)}") from error

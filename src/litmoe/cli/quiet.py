"""Messages of libraries that nobody can act on, kept off a command's stderr."""

import logging
import warnings


class _Without(logging.Filter):
    """Drops the records that contain a text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def filter(self, record: logging.LogRecord) -> bool:
        return self.text not in record.getMessage()


LOGGED = {
    # torchao, at its import
    "torch.utils._pytree": _Without("is an Enum subclass and is now natively supported by torch.compile"),
    # torch.compile on a machine without a card
    "torch.utils.cpp_extension": _Without("No CUDA runtime is found, using CUDA_HOME="),
    # Fabric, of the precision that the start lines tell
    "lightning.fabric.utilities.rank_zero": _Without("Automatic Mixed Precision (AMP)"),
    "lightning.pytorch.utilities.rank_zero": _Without("Automatic Mixed Precision (AMP)"),
}
"""What is dropped, by logger."""

WARNED = (r".* does not implement _stable_hash_for_caching",)
"""Beginnings of warnings that are dropped: torchao's states when their step is compiled."""


def quiet_libraries() -> None:
    """Drop these messages in this process; all others stay."""
    for name, without in LOGGED.items():
        logging.getLogger(name).addFilter(without)
    for message in WARNED:
        warnings.filterwarnings("ignore", message)

"""Text in, windows of tokens out."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from litmoe.data.text_files import TextFiles

__all__ = ["TextFiles"]


def __getattr__(name: str) -> Any:
    if (
        name == "TextFiles"
    ):  # LitGPT and torch behind it take seconds to import: only a training run needs them
        from litmoe.data.text_files import TextFiles

        return TextFiles
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""The device that a run is planned for: one of this machine, or another by its memory or name."""

import ctypes
import os
import re
import sys
from dataclasses import dataclass
from typing import Literal

import torch

from litmoe.errors import ConfigError
from litmoe.messages import nearest

CARDS = {
    "GTX 1660": 6,
    "RTX 2060": 6,
    "RTX 3060 Laptop": 6,
    "RTX 3060": 12,
    "RTX 3070": 8,
    "RTX 3080": 10,
    "RTX 3090": 24,
    "RTX 4060": 8,
    "RTX 4070": 12,
    "RTX 4080": 16,
    "RTX 4090": 24,
    "RTX 5090": 32,
    "T4": 16,
    "L4": 24,
    "A10G": 24,
    "L40S": 48,
    "A100": 40,
    "H100": 80,
    "H200": 141,
}
"""Gigabytes of common cards, by the makers' data sheets; the least if a card was sold with several sizes."""


@dataclass(frozen=True)
class Device:
    """A device that a run is planned for."""

    name: str
    kind: Literal["cuda", "cpu", "mps"]
    n_bytes: int | None
    """Its memory; None: unknown."""
    count: int = 1
    """How many there are."""
    is_here: bool = True
    """Whether it is in this machine, so that its precisions are known."""


def this_device(accelerator: str) -> Device:
    """The device that ``accelerator`` means on this machine.

    Raises:
        ConfigError: there is no such device here.
    """
    if torch.cuda.is_available() and accelerator in ("auto", "cuda"):
        properties = torch.cuda.get_device_properties(0)
        return Device(properties.name, "cuda", properties.total_memory, torch.cuda.device_count())
    if accelerator == "cuda":
        raise ConfigError("accelerator cuda: torch sees no CUDA device here: plan for another with --vram")
    kind: Literal["mps", "cpu"] = (
        "mps" if accelerator in ("auto", "mps") and torch.backends.mps.is_available() else "cpu"
    )
    return Device("this machine's GPU" if kind == "mps" else "this CPU", kind, _host_memory())


def other_device(vram: str | None, name: str | None) -> Device:
    """A CUDA device that need not be in this machine.

    Args:
        vram: its memory, such as ``6GB``; None: that of the card of this name.
        name: of a card, such as ``RTX 3060``.

    Raises:
        ConfigError: not an amount of memory, or an unknown card.
    """
    if vram is not None:
        return Device(name or "a GPU", "cuda", n_bytes(vram), is_here=False)
    assert name is not None
    known = [card for card in CARDS if card.lower() in name.lower()]
    if not known:
        hint = nearest(name, CARDS, otherwise="")
        raise ConfigError(
            f"--device-name {name}: no such card is known{hint}, or give its memory with --vram"
        )
    return Device(name, "cuda", CARDS[max(known, key=len)] * 10**9, is_here=False)


def n_bytes(text: str) -> int:
    """``6GB``, ``5.5 GB``, ``6GiB`` or ``800MB`` as bytes; a number alone is gigabytes.

    Raises:
        ConfigError: anything else.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([GM]?)(i?)B?\s*", text, re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise ConfigError(f"--vram {text}: expected an amount of memory such as 6GB or 5.5GiB")
    power = 2 if match[2].upper() == "M" else 3
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)


def _host_memory() -> int | None:
    """The memory of this machine; None if the system does not tell."""
    if sys.platform == "win32":
        status = (ctypes.c_ulonglong * 8)()  # MEMORYSTATUSEX: two 32-bit fields, then seven of 64 bits
        ctypes.cast(status, ctypes.POINTER(ctypes.c_ulong))[0] = ctypes.sizeof(status)
        return int(status[1]) if ctypes.windll.kernel32.GlobalMemoryStatusEx(status) else None
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None

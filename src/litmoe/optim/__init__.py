"""Optimizers: AdamW with moments in 32, 16, 8 or 4 bits, Muon, and optimizer steps in the host's memory."""

from litmoe.optim.adamw import AdamW, AdamW4bit, AdamW8bit
from litmoe.optim.muon import Muon

__all__ = ["AdamW", "AdamW4bit", "AdamW8bit", "Muon"]

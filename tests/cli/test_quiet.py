"""Messages that nobody can act on do not reach a command's stderr; others do."""

import subprocess
import sys
from importlib.util import find_spec

import pytest


@pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed")
def test_torchao_and_the_compiler_say_nothing() -> None:
    """In a process of its own, as loggers and warnings are the process's."""
    code = """
import logging, warnings
from litmoe.cli.quiet import quiet_libraries
quiet_libraries()
import torchao.optim
from torch._functorch._aot_autograd.autograd_cache import warn_once
warn_once("OptimState8bit does not implement _stable_hash_for_caching. For PT2-compatible ...")
log = logging.getLogger("torch.utils.cpp_extension")
log.warning("No CUDA runtime is found, using CUDA_HOME='/usr/local'")
log.warning("this one stays")
warnings.warn("and this one")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert "this one stays" in done.stderr and "and this one" in done.stderr
    for gone in ("natively supported", "_stable_hash_for_caching", "CUDA runtime"):
        assert gone not in done.stderr, done.stderr

"""Whether Weights & Biases can be used here: its package, mode, address and key, checked before any work starts.

Everything that uses W&B comes through `check_access`: the logger of a run, its checkpoints and its data set,
``litmoe prepare --log-to-wandb`` and ``litmoe wandb-dataset``.
"""

import os
import ssl
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Literal

from litmoe.errors import ConfigError, LitMoEError, MissingExtraError
from litmoe.messages import nearest, one_line
from litmoe.wandb.names import check_entity, check_project

Mode = Literal["online", "offline", "disabled"]

_MODES: dict[str, Mode] = {
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
_SECONDS_TO_ANSWER = 10.0


def import_wandb() -> Any:
    """The package ``wandb``.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import wandb
    except ImportError as error:
        raise MissingExtraError(
            'wandb is not installed: pip install "litmoe[wandb]" (in a checkout: uv sync --extra wandb)'
        ) from error
    return wandb


def check_access() -> Mode:
    """Everything that can be known to go wrong with W&B itself. Online, that takes one or two short requests.

    Returns:
        How W&B is to be used: ``offline`` keeps everything on this machine for ``wandb sync``.

    Raises:
        MissingExtraError: wandb is not installed.
        ConfigError: an environment variable with an unknown mode, a bad address, or a name against W&B's rules.
        LitMoEError: online, the server does not answer, or does not accept the key.
    """
    wandb = import_wandb()
    check_project(project_name())
    if entity := os.environ.get("WANDB_ENTITY"):
        check_entity(entity)
    found = mode()
    if found == "online":
        _check_server(wandb)
    return found


def mode() -> Mode:
    """W&B's mode, from ``WANDB_MODE`` or, without it, from the settings that ``wandb offline`` writes.

    Raises:
        ConfigError: W&B has no such mode, or its settings cannot be read.
    """
    given = os.environ.get("WANDB_MODE") or _settings().mode
    if given not in _MODES:
        raise ConfigError(f"WANDB_MODE {given}: no such mode of W&B{nearest(given, _MODES)}")
    return _MODES[given]


def project_name() -> str:
    """The project to write to: ``WANDB_PROJECT``, else ``litmoe``."""
    return os.environ.get("WANDB_PROJECT") or "litmoe"


def unreachable(error: Exception) -> str:
    """What to say when W&B does not answer, or refuses."""
    return (
        f"W&B: {one_line(error)[:200] or type(error).__name__}; check the network and wandb login, "
        "or set WANDB_MODE=offline"
    )


def _settings() -> Any:
    """The settings of this process, by wandb's own rules.

    Raises:
        ConfigError: one of the environment variables or settings files of wandb's is not as it must be.
    """
    wandb = import_wandb()
    try:
        return wandb.setup().settings
    except Exception as error:  # wandb's errors, and those of what it stands on, share no base class
        raise ConfigError(f"W&B's settings: {one_line(error)[:200]}") from error


def _check_server(wandb: Any) -> None:
    """Ask the server who the key belongs to.

    Raises:
        ConfigError: its address is none.
        LitMoEError: no answer, no key, or one that the server does not accept.
    """
    address = os.environ.get("WANDB_BASE_URL") or str(_settings().base_url)
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"WANDB_BASE_URL {address}: expected an address such as https://wandb.example.com or "
            "http://127.0.0.1:8080"
        )
    # wandb itself tries for 20 seconds, and then says that a process is busy
    try:
        urllib.request.urlopen(
            urllib.request.Request(address, method="HEAD"), timeout=_SECONDS_TO_ANSWER
        ).close()
    except urllib.error.HTTPError:
        pass  # an answer
    except OSError as error:
        reason = getattr(error, "reason", error)
        if not isinstance(reason, ssl.SSLError):  # wandb may know certificates that Python does not
            raise LitMoEError(
                unreachable(OSError(f"no answer from {address}: {one_line(reason)}"))
            ) from error
    try:
        wandb.Api()
    except Exception as error:  # as above
        raise LitMoEError(unreachable(error)) from error

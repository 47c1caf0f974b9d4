"""W&B's rules for names, checked before any work starts: its server would refuse them only after the upload."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from litmoe.errors import LitMoEError

_LONGEST = 128


@dataclass(frozen=True)
class Reference:
    """An Artifact that is on W&B's server."""

    entity: str
    project: str
    name: str
    alias: str

    def __str__(self) -> str:
        return f"{self.entity}/{self.project}/{self.name}:{self.alias}"


def parse_reference(text: str, environment: Mapping[str, str] = os.environ) -> Reference:
    """``entity/project/name:alias``; the entity may come from ``WANDB_ENTITY``, the alias is ``latest`` if none.

    Raises:
        LitMoEError: not of that form, no entity, or a name against W&B's rules.
    """
    path, _, alias = text.partition(":")
    parts = path.split("/")
    if len(parts) == 2:
        entity = environment.get("WANDB_ENTITY", "")
        if not entity:
            raise LitMoEError(
                f"W&B artifact {text!r} names no entity: write entity/project/name:alias, or set WANDB_ENTITY"
            )
        parts = [entity, *parts]
    if len(parts) != 3:
        raise LitMoEError(f"W&B artifact {text!r}: expected entity/project/name:alias or project/name:alias")
    reference = Reference(parts[0], parts[1], parts[2], alias or "latest")
    check_project(reference.project)
    check_entity(reference.entity)
    check_artifact(reference.name)
    check_aliases([reference.alias])
    return reference


def check_artifact(name: str) -> None:
    """An Artifact's own name: letters, digits, dashes, underscores and dots.

    Raises:
        LitMoEError: against the rules.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or not name.strip("."):
        raise LitMoEError(
            f"W&B artifact name {name!r}: use letters, digits, dashes, underscores and dots only, "
            "such as dataset-custom_text"
        )
    _check_length("artifact name", name)


def check_project(name: str) -> None:
    r"""A project's name: anything but ``/ \ # ? % :`` and line ends.

    Raises:
        LitMoEError: against the rules.
    """
    if not name.strip() or re.search(r"[/\\#?%:\r\n]", name):
        raise LitMoEError(f"W&B project name {name!r}: it must not be empty or hold any of / \\ # ? % :")
    _check_length("project name", name)


def check_entity(name: str) -> None:
    """A user or team.

    Raises:
        LitMoEError: against the rules.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise LitMoEError(f"W&B entity {name!r}: use letters, digits, dashes and underscores only")
    _check_length("entity", name)


def check_aliases(aliases: Sequence[str]) -> None:
    """Aliases: anything but slashes and colons.

    Raises:
        LitMoEError: against the rules.
    """
    for alias in aliases:
        if not alias.strip() or re.search(r"[/:\r\n]", alias):
            raise LitMoEError(f"W&B alias {alias!r}: it must not be empty or hold / or :")
        _check_length("alias", alias)


def _check_length(what: str, name: str) -> None:
    if len(name) > _LONGEST:
        raise LitMoEError(
            f"W&B {what} {name[:20]!r}...: {len(name)} characters, at most {_LONGEST} are allowed"
        )

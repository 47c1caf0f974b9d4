"""A Python with litmoe's requirements and nothing else, as a user has it who installed no extras.

Commands are tested in it, so that they cannot depend on a package that is installed by chance. They also start
twice as fast there: Lightning imports torchvision, SciPy and Transformers where it finds them.
"""

import importlib.metadata
import os
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement


def linked_environment(folder: Path, requirements: Sequence[str]) -> Path:
    """Make an environment with these requirements, what they depend on, and nothing else; its Python.

    The packages are symbolic links to those installed here.
    """
    venv.create(folder, symlinks=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.check_output([python, "-c", ask], text=True).strip())
    todo, seen = [Requirement(requirement) for requirement in requirements], set()
    while todo:
        requirement = todo.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        try:
            distribution = importlib.metadata.distribution(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            continue  # needed on another platform or Python only
        here = Path(str(distribution.locate_file("")))
        for top in {Path(str(file)).parts[0] for file in distribution.files or []} - {".."}:
            if (here / top).exists() and not (site / top).exists():
                (site / top).symlink_to(here / top)
        extras = ["", *requirement.extras]
        for needed in map(Requirement, distribution.requires or []):
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(needed)
    return python

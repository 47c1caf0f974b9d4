"""A Python that has what litmoe requires and nothing else: what a user has who installed no extras.

Commands are tested in it, so that nothing they need is there by chance; and they start twice as fast as where
Lightning finds torchvision, SciPy and Transformers to import.
"""

import importlib.metadata
import os
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement


def linked_environment(folder: Path, requirements: Sequence[str]) -> Path:
    """The Python of an environment that has what these requirements need, and nothing else.

    The packages are links to those installed here.
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
            continue  # for another platform or Python
        here = Path(str(distribution.locate_file("")))
        for top in {Path(str(file)).parts[0] for file in distribution.files or []} - {".."}:
            if (here / top).exists() and not (site / top).exists():
                (site / top).symlink_to(here / top)
        extras = ["", *requirement.extras]
        for needed in map(Requirement, distribution.requires or []):
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(needed)
    return python

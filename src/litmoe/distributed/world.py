"""Which process this is, among how many: read once, from the launcher or from the settings.

A launcher (torchrun, srun, or litmoe's own for one machine) starts one process per device and describes the
world in environment variables. The settings ``devices`` and ``num_nodes`` describe it too. Both are read here
and nowhere else, and a contradiction between them is refused before anything is written.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from litmoe.errors import ConfigError

Launcher = Literal["torchrun", "slurm", "litmoe"]

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class World:
    """One process and the others of its run."""

    size: int = 1
    """Processes in all, one per device."""
    rank: int = 0
    """This one's number among all; rank 0 writes."""
    local_size: int = 1
    """Processes on this machine."""
    local_rank: int = 0
    """This one's number on its machine, and so its device."""
    node: int = 0
    """This machine's number."""
    launcher: Launcher = "litmoe"
    """Who starts the processes; ``litmoe`` also where there is only one."""
    address: str = "127.0.0.1"
    """Where rank 0 listens."""
    port: int = 0
    """On which port; 0: any free one, chosen when the processes are started."""
    restarts: int = 0
    """How often the launcher has started this run again after a failure."""

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    @property
    def nodes(self) -> int:
        """Machines in the run."""
        return self.size // self.local_size


def launched_world(environ: Mapping[str, str]) -> World | None:
    """The world that a launcher describes in the environment; None where no launcher started this process.

    Raises:
        ConfigError: the description is incomplete or contradicts itself.
    """
    if "RANK" in environ or "TORCHELASTIC_RUN_ID" in environ:
        return _torchrun(environ)
    if "SLURM_STEP_ID" in environ and "SLURM_PROCID" in environ:  # srun sets both; sbatch alone no step
        return _slurm(environ)
    tasks = environ.get("SLURM_NTASKS", "1")
    if "SLURM_JOB_ID" in environ and tasks.isdigit() and int(tasks) > 1:
        raise ConfigError(
            f"this SLURM job has {tasks} tasks, but srun did not start this process: start it with `srun litmoe "
            "train ...`, or ask for one task"
        )
    return None


def settle_world(
    devices: int | str, num_nodes: int, environ: Mapping[str, str], available: int, global_batch: int
) -> World:
    """The world of a run, by the launcher where there is one, else by the settings.

    Args:
        devices: the setting: processes per machine, or ``auto``.
        num_nodes: the setting; 1 is its default, and a launcher that says more is believed.
        environ: the environment.
        available: devices that this machine has for the run; 1 for a CPU.
        global_batch: windows per step; ``auto`` takes no more devices than divide it.

    Raises:
        ConfigError: the launcher and the settings contradict each other, or the machine has too few devices.
    """
    launched = launched_world(environ)
    if launched is not None:
        _refuse_contradiction(launched, devices, num_nodes)
        return launched
    local = _devices_to_use(available, global_batch, num_nodes) if devices == "auto" else int(devices)
    if local * num_nodes == 1:
        return World()
    if devices == "auto" and not startable():
        return World()  # a notebook: one device, which the start lines name
    if not startable():
        raise ConfigError(
            f"devices {local}: the other processes are started by the same script file, and this one was not: run "
            "a script, `litmoe train`, or torchrun; or use --devices 1"
        )
    node = _node_rank(environ, num_nodes)
    if num_nodes > 1 and not ("MASTER_ADDR" in environ and environ.get("MASTER_PORT", "").isdigit()):
        raise ConfigError(
            f"num_nodes {num_nodes}: where is the first machine? Set MASTER_ADDR, MASTER_PORT and NODE_RANK "
            "on each, or use torchrun"
        )
    return World(
        size=local * num_nodes,
        rank=node * local,
        local_size=local,
        local_rank=0,
        node=node,
        address=environ.get("MASTER_ADDR", "127.0.0.1") if num_nodes > 1 else "127.0.0.1",
        port=int(environ["MASTER_PORT"]) if num_nodes > 1 else 0,
    )


def is_first(environ: Mapping[str, str]) -> bool:
    """Whether this process is the one of its run that writes, by its launcher's variables.

    Raises:
        ConfigError: the variables are incomplete or contradict themselves.
    """
    world = launched_world(environ)
    # without a launcher each machine may have been told its number
    return environ.get("NODE_RANK", "0") == "0" if world is None else world.first


def speaks(environ: Mapping[str, str]) -> bool:
    """Whether this process says what it finds wrong before the ranks are connected: the first of each machine.

    The others of a machine read the same files and settings, and find the same.
    """
    in_step = "SLURM_STEP_ID" in environ and "RANK" not in environ
    return environ.get("SLURM_LOCALID" if in_step else "LOCAL_RANK", "0") == "0"


def startable() -> bool:
    """Whether more processes like this one can be started: from a script file or ``python -m``."""
    main = sys.modules.get("__main__")
    if main is not None and getattr(main, "__spec__", None) is not None:
        return True
    return bool(sys.argv and sys.argv[0]) and Path(sys.argv[0]).is_file()


def environment_of(world: World, local_rank: int) -> dict[str, str]:
    """What a launcher tells the process with this number on its machine, in torchrun's variables."""
    return {
        "RANK": str(world.node * world.local_size + local_rank),
        "WORLD_SIZE": str(world.size),
        "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(world.local_size),
        "GROUP_RANK": str(world.node),
        "MASTER_ADDR": world.address,
        "MASTER_PORT": str(world.port),
    }


def _torchrun(environ: Mapping[str, str]) -> World:
    missing = [name for name in _TORCHRUN if name not in environ]
    if missing:
        raise ConfigError(
            f"the environment has RANK but not {', '.join(missing)}: start the processes with torchrun, "
            "or unset RANK"
        )
    rank, size, local_rank, local_size = (_number(environ, name) for name in _TORCHRUN[:4])
    if not (0 <= rank < size and 0 <= local_rank < local_size <= size):
        raise ConfigError(
            f"RANK {rank} of WORLD_SIZE {size} and LOCAL_RANK {local_rank} of LOCAL_WORLD_SIZE {local_size} "
            "cannot be: start the processes with torchrun, or unset these variables"
        )
    return World(
        size=size,
        rank=rank,
        local_size=local_size,
        local_rank=local_rank,
        node=int(environ.get("GROUP_RANK", rank // local_size)),
        launcher="torchrun",
        address=environ["MASTER_ADDR"],
        port=_number(environ, "MASTER_PORT"),
        restarts=int(environ.get("TORCHELASTIC_RESTART_COUNT", "0")),
    )


def _slurm(environ: Mapping[str, str]) -> World:
    tasks = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environ else "SLURM_NTASKS"
    size, rank, local_rank = (_number(environ, name) for name in (tasks, "SLURM_PROCID", "SLURM_LOCALID"))
    per_node = environ.get("SLURM_STEP_TASKS_PER_NODE", environ.get("SLURM_TASKS_PER_NODE", str(size)))
    counts = {int(count) for count in re.findall(r"(\d+)(?:\(x\d+\))?", re.sub(r"\(x\d+\)", "", per_node))}
    if len(counts) != 1:
        raise ConfigError(
            f"SLURM runs different numbers of tasks per node ({per_node}): ask for --ntasks-per-node"
        )
    local_size = counts.pop()
    job = environ.get("SLURM_JOB_ID", "0")
    return World(
        size=size,
        rank=rank,
        local_size=local_size,
        local_rank=local_rank,
        node=int(environ.get("SLURM_NODEID", rank // local_size)),
        launcher="slurm",
        address=environ.get("MASTER_ADDR") or _first_host(environ),
        # the same free-looking port on all nodes, another one for every job
        port=int(environ["MASTER_PORT"]) if "MASTER_PORT" in environ else 15_000 + int(job[-4:]),
        restarts=int(environ.get("SLURM_RESTART_COUNT", "0")),
    )


def _first_host(environ: Mapping[str, str]) -> str:
    """The first machine of a SLURM step: ``gpu[03-05,9],x`` is ``gpu03``."""
    nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_NODELIST") or "127.0.0.1"
    match = re.match(r"([^,\[]+)(?:\[(\d+))?", nodes)
    return (match[1] + (match[2] or "")) if match else "127.0.0.1"


def _refuse_contradiction(world: World, devices: int | str, num_nodes: int) -> None:
    by = {"torchrun": "torchrun", "slurm": "srun"}.get(world.launcher, world.launcher)
    if devices != "auto" and int(devices) != world.local_size:
        more = {"torchrun": f"--nproc-per-node {devices}", "slurm": f"--ntasks-per-node={devices}"}
        raise ConfigError(
            f"devices {devices}, but {by} started {world.local_size} process(es) on this machine: leave devices "
            f"at auto, or give {by} {more.get(world.launcher, '')}"
        )
    if num_nodes not in (1, world.nodes):
        raise ConfigError(
            f"num_nodes {num_nodes}, but {by} started processes on {world.nodes} machine(s): leave num_nodes out"
        )


def _devices_to_use(available: int, global_batch: int, num_nodes: int) -> int:
    """As many of the available devices as divide the global batch."""
    return max((n for n in range(1, available + 1) if global_batch % (n * num_nodes) == 0), default=1)


def _node_rank(environ: Mapping[str, str], num_nodes: int) -> int:
    if num_nodes == 1:
        return 0
    text = environ.get("NODE_RANK", environ.get("GROUP_RANK", ""))
    if not text.isdigit() or int(text) >= num_nodes:
        raise ConfigError(
            f"num_nodes {num_nodes}: set NODE_RANK to this machine's number, 0 to {num_nodes - 1}"
            + (f" (it is {text!r})" if text else "")
        )
    return int(text)


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "")
    if not text.isdigit():
        raise ConfigError(
            f"the environment variable {name} is {text!r}, not a number: unset it, or use a launcher"
        )
    return int(text)

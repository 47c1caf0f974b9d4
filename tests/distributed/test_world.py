"""Who this process is: torchrun's and SLURM's variables, the settings, and what contradicts."""

import sys
from typing import Any

import pytest

from litmoe.distributed.world import World, environment_of, launched_world, settle_world
from litmoe.errors import ConfigError

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "GROUP_RANK": "1",
    "MASTER_ADDR": "a.example",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "x",
    "TORCHELASTIC_RESTART_COUNT": "2",
}
SLURM = {
    "SLURM_JOB_ID": "123456",
    "SLURM_STEP_ID": "0",
    "SLURM_NTASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NODELIST": "gpu[03-05,9],other",
}


@pytest.fixture
def a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process was started from a script file."""
    monkeypatch.setattr(sys, "argv", [__file__])


def settle(devices: int | str = "auto", num_nodes: int = 1, environ: Any = None, **more: Any) -> World:
    options = {"available": 1, "global_batch": 64, **more}
    return settle_world(devices, num_nodes, environ or {}, **options)


def test_a_plain_start_is_a_world_of_one() -> None:
    assert launched_world({}) is None
    assert settle() == World()
    assert settle(1) == World()


def test_torchrun_is_believed() -> None:
    world = launched_world(TORCHRUN)
    assert world is not None
    assert (world.rank, world.size, world.local_rank, world.local_size) == (5, 8, 1, 4)
    assert (world.node, world.nodes, world.restarts, world.first) == (1, 2, 2, False)
    assert (world.address, world.port, world.launcher) == ("a.example", 29500, "torchrun")
    for devices in ("auto", 4):
        assert settle(devices, environ=TORCHRUN) == world
    assert settle(4, 2, TORCHRUN) == world


def test_srun_is_believed() -> None:
    world = launched_world(SLURM)
    assert world is not None
    assert (world.rank, world.size, world.local_rank, world.local_size) == (5, 8, 1, 4)
    assert (world.node, world.nodes, world.launcher) == (1, 2, "slurm")
    assert (world.address, world.port) == ("gpu03", 18456)
    assert launched_world(SLURM | {"MASTER_ADDR": "b", "MASTER_PORT": "7"}) == world.__class__(
        **{**vars(world), "address": "b", "port": 7}
    )


def test_torchrun_inside_slurm_is_torchruns() -> None:
    world = launched_world(SLURM | TORCHRUN)
    assert world is not None and world.launcher == "torchrun"


def test_what_a_launcher_and_the_settings_contradict_in_is_refused() -> None:
    for settings, environ, words in [
        ((2, 1), TORCHRUN, r"devices 2, but torchrun started 4 .* --nproc-per-node 2"),
        (("auto", 3), TORCHRUN, r"num_nodes 3, but torchrun started processes on 2 machine"),
        ((2, 1), SLURM, r"devices 2, but srun started 4 .*--ntasks-per-node=2"),
    ]:
        with pytest.raises(ConfigError, match=words):
            settle(*settings, environ)


def test_half_a_description_is_refused() -> None:
    for broken, words in [
        ({"RANK": "0"}, "has RANK but not WORLD_SIZE"),
        (TORCHRUN | {"RANK": "8"}, "RANK 8 of WORLD_SIZE 8"),
        (TORCHRUN | {"WORLD_SIZE": "many"}, "WORLD_SIZE is 'many'"),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4"}, "has 4 tasks, but srun did not start this process"),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "4,2"}, "different numbers of tasks per node"),
    ]:
        with pytest.raises(ConfigError, match=words):
            launched_world(broken)


def test_a_job_of_one_task_without_srun_is_a_plain_start() -> None:
    assert launched_world({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "1"}) is None
    assert launched_world({"SLURM_JOB_ID": "1"}) is None


def test_auto_takes_as_many_devices_as_divide_the_global_batch(a_script: None) -> None:
    for available, batch, expected in [(8, 64, 8), (8, 12, 6), (3, 64, 2), (4, 7, 1), (1, 64, 1)]:
        assert settle(available=available, global_batch=batch).size == expected


def test_several_machines_by_variables(a_script: None) -> None:
    where = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234"}
    world = settle(2, 2, where | {"NODE_RANK": "1"})
    assert (world.rank, world.size, world.node, world.local_rank) == (2, 4, 1, 0)
    assert settle(2, 2, where | {"NODE_RANK": "0"}).first
    for environ, words in [
        ({"NODE_RANK": "0"}, "MASTER_ADDR"),
        (where, "set NODE_RANK"),
        (where | {"NODE_RANK": "2"}, "set NODE_RANK .*'2'"),
    ]:
        with pytest.raises(ConfigError, match=words):
            settle(2, 2, environ)


def test_what_was_not_started_from_a_file_cannot_start_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["-c"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    with pytest.raises(ConfigError, match=r"devices 2: .*--devices 1"):
        settle(2)
    assert settle(available=4) == World()


def test_a_child_reads_what_it_was_told() -> None:
    world = World(size=8, rank=4, local_size=4, node=1, address="a", port=5)
    child = launched_world(environment_of(world, 3))
    assert child is not None
    assert (child.rank, child.size, child.local_rank, child.local_size, child.node) == (7, 8, 3, 4, 1)

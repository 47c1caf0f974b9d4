"""The world as Fabric wants it: processes that somebody else has started."""

from typing import Any

from lightning.fabric.plugins.environments import ClusterEnvironment
from lightning.fabric.utilities.rank_zero import rank_zero_only

from litmoe.distributed.world import World


class WorldEnvironment(ClusterEnvironment):
    """Tells Fabric what :class:`World` knows; Fabric starts no processes and reads no variables."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        rank_zero_only.rank = world.rank  # Lightning's own switch for what only the first process says

    @property
    def creates_processes_externally(self) -> bool:
        """Always: :func:`litmoe.distributed.launcher.start_others` or a launcher has made them."""
        return True

    @property
    def main_address(self) -> str:
        """Where rank 0 listens."""
        return self.world.address

    @property
    def main_port(self) -> int:
        """On which port."""
        return self.world.port

    @staticmethod
    def detect() -> bool:
        """Never by itself: it is always given."""
        return False

    def world_size(self) -> int:
        """Processes in all."""
        return self.world.size

    def set_world_size(self, size: int) -> None:
        """Settled already."""

    def global_rank(self) -> int:
        """This process among all."""
        return self.world.rank

    def set_global_rank(self, rank: int) -> None:
        """Settled already."""

    def local_rank(self) -> int:
        """This process on its machine."""
        return self.world.local_rank

    def node_rank(self) -> int:
        """This machine."""
        return self.world.node

    def validate_settings(self, *_: Any, **__: Any) -> None:
        """Done by :func:`litmoe.distributed.world.settle_world`."""

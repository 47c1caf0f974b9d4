"""The built-in sample corpus: short children's stories in simple English, made by a seeded generator.

All of the text is synthetic: it was written for this project and is put together here. So it has the project's
own licence and needs no download, and a first training run and the tests work without a network.
"""

import random
from collections.abc import Iterator

from litmoe.stories.animals import ANIMALS
from litmoe.stories.children import CHILDREN
from litmoe.stories.teller import Teller

PLOTS = {plot.__name__: plot for plot in (*CHILDREN, *ANIMALS)}
"""Every plot by name. A story's first choice is made in this order."""

SAMPLE_STORIES = 9_000
"""The number of stories in the default corpus: about 5.5 million characters."""


def story(seed: int, index: int) -> str:
    """The story with this index in the corpus of this seed; the same on every machine."""
    teller = Teller(random.Random(f"{seed}:{index}"))
    plot = teller.one(*PLOTS.values())
    return teller.tell(plot(teller))


def stories(count: int, seed: int = 0) -> Iterator[str]:
    """The first `count` stories of the corpus of this seed."""
    return (story(seed, index) for index in range(count))

"""How often a layer waits for the device, counted by the benchmark of that."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "launches.py"


@pytest.mark.parametrize("n_expert", [4, 16])
def test_a_loop_waits_once_and_grouped_products_never(n_expert: int) -> None:
    spec = importlib.util.spec_from_file_location("launches", SCRIPT)
    assert spec is not None and spec.loader is not None
    launches = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(launches)
    found = {name: launches.counts(layer, 64) for name, layer in launches.layers(n_expert).items()}
    waits = {name: [one.waits.total() for one in both[:2]] for name, both in found.items()}
    assert waits["loop"] == [1, 0]
    assert waits["grouped"] == [0, 0]
    assert waits["LitGPT"] == [n_expert, 0]  # so the count sees what is there
    assert found["grouped"][0].operations.total() < found["loop"][0].operations.total()

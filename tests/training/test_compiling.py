"""``--compile``: the same training, no graph broken or made twice, the same checkpoints."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from litgpt import Config
from support.small import MODEL
from torch._dynamo.utils import counters

from litmoe.config import TrainConfig
from litmoe.model.gpt import GPT
from litmoe.model.objective import Objective
from litmoe.training.device import compile_problem
from litmoe.training.loop import train


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["fp32", "bf16-mixed"])
def test_changing_loads_neither_break_a_graph_nor_make_another(precision: torch.dtype) -> None:
    """Two layers share two graphs: the attention half and the router; gradients are those without compiling."""
    torch.manual_seed(0)
    objectives = [Objective(GPT(Config(**MODEL))) for _ in range(2)]
    objectives[1].load_state_dict(objectives[0].state_dict())
    objectives[1].model.compile_blocks(backend="aot_eager")
    torch._dynamo.reset()
    counters.clear()
    loads = set()
    for _ in range(4):
        idx_BT = torch.randint(512, (2, 33))
        results = []
        for objective in objectives:
            objective.zero_grad()
            with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
                losses = objective(idx_BT[:, :-1], idx_BT[:, 1:])
            losses.total.backward()
            results.append((losses.total.detach(), losses.counts_LE))
        loads.add(str(results[1][1].tolist()))
        tolerance = 1e-5 if precision == torch.float32 else 2e-2
        torch.testing.assert_close(results[1][0], results[0][0], atol=tolerance, rtol=tolerance)
        assert counters["stats"]["unique_graphs"] == 2
    assert len(loads) == 4 and not counters["graph_break"]
    if precision == torch.float32:
        pairs = zip(*(objective.named_parameters() for objective in objectives), strict=True)
        for (name, plain), (_, compiled) in pairs:
            torch.testing.assert_close(compiled.grad, plain.grad, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.slow
@pytest.mark.skipif(
    compile_problem(torch.device("cpu")) is not None, reason="torch.compile does not work on this machine"
)
def test_a_compiled_run_learns_the_same_and_leaves_the_same_checkpoint(
    make_config: Callable[..., TrainConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--max-steps", "3", "--eval.final_validation", "false"]
    words += ["--train.save_interval", "null"]
    results = [
        train(make_config(*words, *more, out_dir=str(tmp_path / name)), say=print)
        for name, more in {"plain": [], "compiled": ["--compile"]}.items()
    ]
    assert results[1].train_loss == pytest.approx(results[0].train_loss, rel=1e-4)
    states = [torch.load(result.checkpoint / "lit_model.pth", weights_only=True) for result in results]
    assert states[0].keys() == states[1].keys()
    assert "compile    attention, norms and routers" in capsys.readouterr().out


def test_without_a_compiler_the_reason_is_named() -> None:
    from torch._inductor import config
    from torch._inductor.utils import fresh_cache

    torch._dynamo.reset()
    with fresh_cache(), config.patch({"cpp.cxx": ("no-such-compiler",)}):
        problem = compile_problem(torch.device("cpu"))
    assert problem is not None and "\n" not in problem and "compiler" in problem.lower()

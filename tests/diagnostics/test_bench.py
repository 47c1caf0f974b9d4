"""``litmoe bench``: its figures agree with each other, and stand in the table."""

from collections.abc import Callable

import pytest

from litmoe.cli.main import main
from litmoe.config import TrainConfig
from litmoe.diagnostics.bench import TOGETHER, bench, table
from litmoe.model.flops import flops_per_token
from litmoe.training.setup import model_and_length


def test_figures_of_a_configuration(make_config: Callable[..., TrainConfig]) -> None:
    config = make_config()
    figures = bench(config, steps=3)
    model, seq_length = model_and_length(config)
    assert figures.tokens_per_second == pytest.approx(8 * seq_length / figures.seconds_per_step)
    assert figures.flops_per_second == pytest.approx(
        flops_per_token(model, seq_length) * figures.tokens_per_second
    )
    assert figures.mfu is None  # nobody lists CPUs
    alone, together = figures.decode_tokens_per_second[1], figures.decode_tokens_per_second[TOGETHER]
    assert together > alone > 0
    text = table(figures)
    assert f"{figures.tokens_per_second:,.0f} tokens/s" in text and "MoE-test" in text
    assert len({len(line) for line in text.splitlines()}) == 1


def test_the_command_takes_the_options_of_training(capsys: pytest.CaptureFixture[str]) -> None:
    words = "--steps 1 --global_batch_size 1 --micro_batch_size 1 --max_seq_length 16 --accelerator cpu"
    assert main(["bench", *words.split()]) == 0
    assert "1 windows of 16, 1 at a time, 32-true" in capsys.readouterr().out
    assert main(["bench", "--steps", "0"]) == 2
    assert main(["bench", "--max_seq_length", "8", "--steps", "1"]) == 2

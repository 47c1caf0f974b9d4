"""One contract for litmoe's windows and for other data modules: the mean over the tokens of the global batch."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from litgpt.data import JSON
from torch.utils.data import DataLoader

from litmoe import checkpoint
from litmoe.config import TrainConfig, as_plain
from litmoe.errors import LitMoEError
from litmoe.training.batches import LoaderBatches
from litmoe.training.loop import train
from litmoe.training.run import Run
from litmoe.training.setup import set_up
from litmoe.training.step import gradients, update
from litmoe.training.validation import validate

MakeConfig = Callable[..., TrainConfig]

GLOBAL_BATCH = 6


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers of very different lengths, behind prompts that are not learned."""
    folder = tmp_path_factory.mktemp("questions")
    for split, count in (("train", 22), ("val", 9)):
        records = [
            {"instruction": "say" if n % 3 else "tell me of the dog", "output": "the cat sat " * (n * n % 7)}
            for n in range(count)
        ]
        (folder / f"{split}.json").write_text(json.dumps(records))
    return folder


def other(questions: Path, **init_args: Any) -> dict[str, Any]:
    """Settings of LitGPT's module for instruction data."""
    spec = {"json_path": str(questions), "mask_prompt": True, "prompt_style": "phi-1", "num_workers": 0}
    return {"data": {"class_path": "litgpt.data.JSON", "init_args": {**spec, **init_args}}}


PLAIN = {
    "optimizer": {"class_path": "SGD", "init_args": {"lr": 0.5}},
    "moe": {"balance": "none", "z_coefficient": 0.0},
    "train": {"global_batch_size": GLOBAL_BATCH, "micro_batch_size": 2, "max_norm": None},
}


@contextmanager
def running(config: TrainConfig) -> Iterator[Run]:
    run = set_up(config)
    try:
        yield run
    finally:
        run.close()


def windows(run: Run, count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The next windows of a run, one by one, by micro-batches of one."""
    batches = run.batches.training(run.state.samples, 1)
    taken = [next(batches) for _ in range(count)]
    batches.close()
    return taken


def plain_step(
    run: Run, rows: list[tuple[torch.Tensor, torch.Tensor]]
) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and weights of one step of plain gradient descent on the mean over all targets, window by window."""
    n_targets = sum(int((targets != -100).sum()) for _, targets in rows)
    total = sum(
        F.cross_entropy(run.gpt(inputs)[0].float(), targets[0], ignore_index=-100, reduction="sum")
        for inputs, targets in rows
    )
    loss = total / n_targets
    names, parameters = zip(*run.gpt.named_parameters(), strict=True)
    slopes = torch.autograd.grad(loss, parameters, allow_unused=True)
    stepped = {
        name: value.detach() - 0.5 * (0 if slope is None else slope)
        for name, value, slope in zip(names, parameters, slopes, strict=True)
    }
    return loss.item(), stepped


@pytest.mark.parametrize("micro", [1, 2, 3, 6])
@pytest.mark.parametrize("module", ["TextFiles", "JSON"])
def test_a_step_is_that_of_the_mean_over_the_tokens(
    make_config: MakeConfig, questions: Path, module: str, micro: int
) -> None:
    data = other(questions) if module == "JSON" else {}
    config = make_config(f"--train.micro_batch_size={micro}", **PLAIN, **data)
    with running(config) as run:
        rows = windows(run, GLOBAL_BATCH)
        lengths = {int((targets != -100).sum()) for _, targets in rows}
        assert (len(lengths) > 2) == (module == "JSON")  # else the mean of means would be the same
        loss, stepped = plain_step(run, rows)
        figures = gradients(run, run.data())
        assert figures.train_loss == pytest.approx(loss, rel=1e-5)
        assert figures.counts_LE.sum(1).tolist() == [2 * sum(int((t != -100).sum()) for _, t in rows)] * 2
        update(run, figures, 0.5)
        for name, value in run.gpt.named_parameters():
            torch.testing.assert_close(value.detach(), stepped[name], atol=2e-6, rtol=2e-4, msg=name)


@pytest.mark.parametrize("module", ["TextFiles", "JSON"])
def test_validation_counts_windows_and_weighs_tokens(
    make_config: MakeConfig, questions: Path, module: str
) -> None:
    data = other(questions) if module == "JSON" else {}
    losses = []
    for micro, limit in ((1, 4), (2, 4), (3, 4), (2, 1000)):
        words = [f"--train.micro_batch_size={micro}", f"--eval.max_iters={limit}"]
        with running(make_config(*words, **PLAIN, **data)) as run:
            rows = list(run.batches.validation(1))
            assert len(rows) == min(limit, len(rows)) and (limit > 4 or len(rows) == 4)
            summed = sum(
                F.cross_entropy(run.gpt(i)[0].float(), t[0], ignore_index=-100, reduction="sum").item()
                for i, t in rows
            )
            expected = summed / sum(int((t != -100).sum()) for _, t in rows)
            assert validate(run) == pytest.approx(expected, rel=1e-5) == validate(run)
            losses.append(expected)
    assert losses[0] == pytest.approx(losses[1]) == pytest.approx(losses[2]) != losses[3]


def test_every_answer_is_read_once_an_epoch_whatever_the_loaders_batches(
    make_config: MakeConfig, questions: Path
) -> None:
    """22 records in loader batches of 4: the last one is small, and still counts as what it is."""
    seen = []
    for micro in (1, 4):
        config = make_config(f"--train.micro_batch_size={micro}", "--global-batch-size=4", **other(questions))
        with running(config) as run:
            rows = windows(run, 44)
            seen.append([tuple(inputs[0].tolist()) for inputs, _ in rows])
            again = windows(run, 22)  # started again at the same place, it is the same order
            assert [tuple(inputs[0].tolist()) for inputs, _ in again] == seen[-1][:22]
    for order in seen:
        assert sorted(order[:22]) == sorted(order[22:])
    assert seen[0] == seen[1]


def test_other_modules_resume_to_the_bit(make_config: MakeConfig, questions: Path, tmp_path: Path) -> None:
    settings = other(questions)
    words = ["--max-steps=6", "--train.save_interval=3", "--eval.interval=2"]
    whole, again = tmp_path / "whole", tmp_path / "again"
    train(make_config(*words, out_dir=str(whole), **settings))
    checkpoint.copy(whole / "step-00000003", again / "step-00000003")
    (again / "metrics.csv").write_bytes((whole / "metrics.csv").read_bytes())
    train(make_config(*words, "--resume=auto", out_dir=str(again), **settings))
    first, second = (checkpoint.load_model(folder / "final") for folder in (whole, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_whatever_a_module_calls_ignored_is_not_learned(make_config: MakeConfig, questions: Path) -> None:
    with running(make_config(**PLAIN, **other(questions))) as run:
        expected = windows(run, 5)
    with running(make_config(**PLAIN, **other(questions, ignore_index=-7))) as run:
        for (_, targets), (_, same) in zip(expected, windows(run, 5), strict=True):
            assert torch.equal(targets, same)


class Shuffled(torch.utils.data.Dataset[torch.Tensor]):
    """Rows of tokens without masks, for a loader that shuffles by the global random numbers."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((9,), index)


def test_validation_is_the_same_every_time_though_its_loader_shuffles(make_config: MakeConfig) -> None:
    class Module:
        def train_dataloader(self) -> DataLoader[torch.Tensor]:
            return DataLoader(Shuffled(), batch_size=4)

        def val_dataloader(self) -> DataLoader[torch.Tensor]:
            return DataLoader(Shuffled(), batch_size=4, shuffle=True)

    with running(make_config()) as run:
        torch.manual_seed(0)
        before = torch.get_rng_state()
        batches = LoaderBatches(run.fabric, Module(), make_config("--eval.max_iters=7"), 8)  # type: ignore[arg-type]
        assert torch.equal(torch.get_rng_state(), before)
        first, second = ([i[0, 0].item() for i, _ in batches.validation(1)] for _ in range(2))
        assert first == second and len(set(first)) == 7
        inputs_BT, targets_BT = next(batches.training(8, 3))  # across the end of the first pass
        assert inputs_BT[:, 0].tolist() == [8, 9, 0] and inputs_BT.shape == targets_BT.shape == (3, 8)


def test_validation_data_without_a_target_is_refused_before_any_step(
    make_config: MakeConfig, questions: Path
) -> None:
    """The prompt alone fills the window."""
    masked = other(questions, prompt_style="longform")
    with pytest.raises(LitMoEError, match="no token to predict"):
        train(make_config(**masked))
    config = make_config("--eval.final_validation=false", "--max-steps=1", **masked)
    assert train(config).val_loss is None


TWO = """
import sys
import torch
from litmoe import load_train_config
from litmoe.training.device import started_devices
from litmoe.training.setup import set_up
from litmoe.training.step import gradients, update

with started_devices(load_train_config(sys.argv[1])) as (config, fabric):
    run = set_up(config, fabric=fabric)
    first = {name: value.detach().clone() for name, value in run.gpt.named_parameters()}
    batches = run.batches.training(0, 1)
    rows = [next(batches) for _ in range(3)]
    figures = gradients(run, run.data())
    update(run, figures, 0.5)
    last = {name: value.detach() for name, value in run.gpt.named_parameters()}
    seen = {"rows": rows, "loss": figures.train_loss, "first": first, "last": last, "counts": figures.counts_LE}
    torch.save(seen, f"{sys.argv[2]}/{run.fabric.global_rank}.pt")
"""


@pytest.mark.slow
def test_on_two_devices_too(
    make_config: MakeConfig, questions: Path, tmp_path: Path, plain_python: str
) -> None:
    """The mean over the tokens of both devices, though one has more of them than the other."""
    config = make_config("--train.micro_batch_size=1", "--devices=2", **PLAIN, **other(questions))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(as_plain(config)))
    (tmp_path / "two.py").write_text(TWO)
    command = [plain_python, str(tmp_path / "two.py"), str(tmp_path / "run.yaml"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    seen = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    both = [row for pair in zip(*(one["rows"] for one in seen), strict=True) for row in pair]
    counts = [sum(int((targets != -100).sum()) for _, targets in one["rows"]) for one in seen]
    assert counts[0] != counts[1]
    with running(make_config("--train.micro_batch_size=1", **PLAIN, **other(questions))) as run:
        assert all(torch.equal(value, seen[0]["first"][name]) for name, value in run.gpt.named_parameters())
        for (inputs, targets), (theirs, their_targets) in zip(windows(run, GLOBAL_BATCH), both, strict=True):
            assert torch.equal(inputs, theirs) and torch.equal(targets, their_targets)
        loss, stepped = plain_step(run, both)
    for one in seen:
        assert one["loss"] == pytest.approx(loss, rel=1e-5)
        assert one["counts"].sum(1).tolist() == [2 * sum(counts)] * 2
        for name, value in one["last"].items():
            torch.testing.assert_close(value, stepped[name], atol=2e-6, rtol=2e-4, msg=name)


def test_the_order_is_that_of_a_plain_loop_over_the_loader(make_config: MakeConfig, questions: Path) -> None:
    with running(make_config(**PLAIN, **other(questions))) as run:
        assert isinstance(run.batches, LoaderBatches)
        module = JSON(json_path=questions, mask_prompt=True, prompt_style="phi-1", num_workers=0)
        module.connect(run.tokenizer, batch_size=2, max_seq_length=64)
        module.setup()
        loader, expected = module.train_dataloader(), []
        for _ in range(2):
            expected += [row for batch in loader for row in batch["input_ids"]]
        for (inputs, _), row in zip(windows(run, 44), expected, strict=True):
            assert torch.equal(inputs[0], row[: inputs.size(1)])
        run.state.samples = 30
        for (inputs, _), row in zip(windows(run, 14), expected[30:], strict=True):
            assert torch.equal(inputs[0], row[: inputs.size(1)])

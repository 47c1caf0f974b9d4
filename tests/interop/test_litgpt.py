"""LitGPT both ways: its commands on our checkpoints, ours on what its commands really wrote."""

import itertools
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from litmoe import checkpoint
from litmoe.cli.exchange import IMPORT
from litmoe.cli.main import run
from litmoe.config import EvaluateConfig, GenerateConfig, TrainConfig
from litmoe.data.token_store import TokenStore
from litmoe.errors import LitMoEError
from litmoe.inference.evaluate import evaluate
from litmoe.inference.generate import generate
from litmoe.interop.huggingface import export_huggingface
from litmoe.interop.litgpt import import_litgpt
from litmoe.training.loop import train

PROMPT = "Once upon a time"
needs_litdata = pytest.mark.skipif(find_spec("litdata") is None, reason="LitData is not installed")


@dataclass(frozen=True)
class LitGPT:
    """What LitGPT's commands printed and wrote."""

    folder: Path
    printed: dict[str, str]


def write_litdata(corpus: Path, folder: Path) -> None:
    """The corpus in LitData's format, by its own writer."""
    from litdata.streaming.item_loader import TokensLoader
    from litdata.streaming.writer import BinaryWriter

    for split in ("train", "val"):
        store = TokenStore.open(corpus / split / split)
        (folder / split).mkdir(parents=True)
        writer = BinaryWriter(str(folder / split), chunk_size=65 * 20, item_loader=TokensLoader(65))
        ends = store.document_offsets
        for number, (start, end) in enumerate(itertools.pairwise(ends)):
            writer.add_item(number, torch.from_numpy(store.tokens[start:end].astype(np.int32)))
        writer.done()
        writer.merge()


@pytest.fixture(scope="module")
def litgpt(
    corpus: Path, trained: Path, model_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> LitGPT:
    """All of LitGPT's commands that the tests need, in one process, since it takes long to start."""
    pytest.importorskip("transformers", reason="the export that LitGPT converts is checked with it")
    folder = tmp_path_factory.mktemp("litgpt")
    export_huggingface(trained, folder / "converted", lambda _: None)

    def pretrain(name: str, class_path: str, **init_args: Any) -> list[str]:
        settings = {
            "model_config": model_settings,
            "out_dir": str(folder / name),
            "precision": "32-true",
            "data": {"class_path": class_path, "init_args": init_args},
            "tokenizer_dir": str(corpus / "tokenizer"),
            "train": {
                "max_tokens": 1024,
                "global_batch_size": 4,
                "micro_batch_size": 4,
                "max_seq_length": 64,
                "lr_warmup_steps": 1,
                "max_norm": 1.0,
            },
            "eval": {"max_iters": 2, "interval": 100},
            "logger_name": "csv",
            "devices": 1,
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(settings))
        return ["pretrain", "MoE-test", "--config", str(folder / f"{name}.yaml")]

    text_files = {
        "train_data_path": str(corpus / "train"),
        "val_data_path": str(corpus / "val"),
        "num_workers": 0,
        "tokenizer_dir": str(corpus / "tokenizer"),
    }
    checkpoint_dir, short = str(trained), ["--max_new_tokens", "20"]
    commands: dict[str, dict[str, Any]] = {
        "generate": {"words": ["generate", checkpoint_dir, "--prompt", PROMPT, "--temperature", "0", *short]},
        "chat": {"words": ["chat", checkpoint_dir, *short], "stdin": f"{PROMPT}\n\n"},
        "convert_from_litgpt": {"words": ["convert_from_litgpt", checkpoint_dir, str(folder / "from_ours")]},
        "convert_to_litgpt": {
            "words": ["convert_to_litgpt", str(folder / "converted"), "--model_name", "Mixtral-test"]
        },
        "pretrain": {"words": pretrain("pretrained", "litmoe.data.TextFiles", **text_files)},
    }
    if find_spec("litdata") is not None:
        write_litdata(corpus, folder / "litdata")
        streamed = {"data_path": str(folder / "litdata"), "split_names": ["train", "val"], "num_workers": 0}
        commands["pretrain_litdata"] = {"words": pretrain("streamed", "litgpt.data.LitData", **streamed)}
        commands["convert_pretrained"] = {
            "words": ["convert_pretrained_checkpoint", str(folder / "streamed/final"), str(folder / "plain")]
        }
    plan = folder / "commands.json"
    plan.write_text(json.dumps({"model": model_settings, "commands": list(commands.values())}))
    environment = os.environ | {
        "DATA_OPTIMIZER_CACHE_FOLDER": str(folder / "cache"),
        "DATA_OPTIMIZER_DATA_CACHE_FOLDER": str(folder / "data_cache"),
        "OMP_NUM_THREADS": "1",
        "PYTHONUTF8": "1",
    }
    script = Path(__file__).with_name("litgpt_commands.py")
    done = subprocess.run(
        [sys.executable, str(script), str(plan)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads(plan.with_suffix(".results.json").read_text())
    for name, result in zip(commands, results, strict=True):
        assert result["ended"] in ("done", "exit 0", "exit None"), (name, result)
    return LitGPT(folder, {n: r["printed"] for n, r in zip(commands, results, strict=True)})


def greedy(folder: Path) -> str:
    config = GenerateConfig(folder, PROMPT, max_new_tokens=20, temperature=0.0, accelerator="cpu")
    return generate(config, write=lambda _: None)[0]


def test_litgpt_generates_the_text_that_we_generate(litgpt: LitGPT, trained: Path) -> None:
    assert greedy(trained) in litgpt.printed["generate"]


def test_litgpt_chats(litgpt: LitGPT) -> None:
    assert "Now chatting with MoE-test" in litgpt.printed["chat"]
    assert ">> Reply:" in litgpt.printed["chat"] and "20 tokens" in litgpt.printed["chat"]


def test_convert_from_litgpt_gives_the_weights_of_our_export(litgpt: LitGPT) -> None:
    from safetensors.torch import load_file

    theirs = torch.load(litgpt.folder / "from_ours" / "model.pth", weights_only=False)
    ours = load_file(litgpt.folder / "converted" / "model.safetensors")
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)


def can_be_used(folder: Path, corpus: Path, make_config: Callable[..., TrainConfig]) -> None:
    """Generated from, evaluated, and started from."""
    assert len(greedy(folder)) > len(PROMPT)
    evaluation = evaluate(EvaluateConfig(folder, corpus / "val", accelerator="cpu", progress=False))
    config = make_config(
        f"--initial_checkpoint_dir={folder}",
        train={"max_steps": 1, "lr_warmup_steps": 0},
        optimizer={"class_path": "AdamW", "init_args": {"lr": 1e-9}},
        schedule={"name": "constant"},
        eval={"max_iters": 1000},
    )
    config.model_config = folder / "model_config.yaml"
    # One step that changes nothing: what was measured of the file is what the run starts from.
    assert train(config).val_loss == pytest.approx(evaluation.loss, abs=0.05)


def test_convert_to_litgpt_comes_in(
    litgpt: LitGPT, trained: Path, corpus: Path, make_config: Callable[..., TrainConfig]
) -> None:
    assert greedy(litgpt.folder / "converted") == greedy(trained)
    can_be_used(litgpt.folder / "converted", corpus, make_config)


@needs_litdata
@pytest.mark.parametrize("name", ["streamed/final", "plain"])
def test_litgpt_pretrain_comes_in(
    litgpt: LitGPT, corpus: Path, make_config: Callable[..., TrainConfig], name: str
) -> None:
    """With LitGPT's own data: its weights lie beside its optimizer; and converted by LitGPT to weights alone."""
    can_be_used(litgpt.folder / name, corpus, make_config)


def test_a_pickled_data_loader_is_skipped(
    litgpt: LitGPT, corpus: Path, make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    """With other data modules LitGPT pickles the loader: neither torch's safe loading nor LitGPT takes that."""
    source = litgpt.folder / "pretrained" / "final"
    with pytest.raises(pickle.UnpicklingError):
        torch.load(source / "lit_model.pth", weights_only=True)
    assert run(IMPORT, [str(source), "--out-dir", str(tmp_path / "ours")], "litmoe import") == 0
    checkpoint.verify(tmp_path / "ours")
    ours = checkpoint.load_model(tmp_path / "ours")
    theirs = torch.load(source / "lit_model.pth", weights_only=False)["model"]
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert greedy(tmp_path / "ours") == greedy(source)
    can_be_used(source, corpus, make_config)  # as it is, too


class Evil:
    """Would write a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "pwned")


def test_nothing_in_a_checkpoint_is_run(tmp_path: Path) -> None:
    weights = {"_orig_mod.lm_head.weight": torch.arange(3.0), "half": torch.ones(2, dtype=torch.bfloat16)}
    torch.save({"evil": Evil(tmp_path / "pwned"), "model": weights}, tmp_path / "lit_model.pth")
    loaded = checkpoint.load_model(tmp_path)
    assert loaded["lm_head.weight"].tolist() == [0.0, 1.0, 2.0] and loaded["half"].dtype == torch.bfloat16
    torch.save({"model": {"a": Evil(tmp_path / "pwned")}}, tmp_path / "lit_model.pth")
    with pytest.raises(LitMoEError, match="holds no weights"):
        checkpoint.load_model(tmp_path)
    (tmp_path / "lit_model.pth").write_bytes(pickle.dumps(Evil(tmp_path / "pwned")))
    with pytest.raises(LitMoEError, match="damaged"):
        checkpoint.load_model(tmp_path)
    with zipfile.ZipFile(tmp_path / "lit_model.pth", "w") as archive:
        archive.writestr("program/constants.pkl", b"")
        archive.writestr("program/data.pkl", pickle.dumps(Evil(tmp_path / "pwned")))
    with pytest.raises(LitMoEError, match=r"TorchScript|damaged"):
        checkpoint.load_model(tmp_path)
    (tmp_path / "lit_model.pth").unlink()
    with pytest.raises(LitMoEError, match=r"it has no lit_model\.pth"):
        checkpoint.load_model(tmp_path)
    assert not (tmp_path / "pwned").exists()


def test_an_import_that_cannot_be_is_one_line(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(LitMoEError, match="not an import of litmoe"):
        import_litgpt(trained, trained, lambda _: None)
    settings = yaml.safe_load((trained / "model_config.yaml").read_text())
    (tmp_path / "model_config.yaml").write_text(yaml.safe_dump(settings | {"n_layer": 3}))
    (tmp_path / "lit_model.pth").write_bytes((trained / "lit_model.pth").read_bytes())
    with pytest.raises(LitMoEError, match=r"not of its model_config\.yaml") as caught:
        import_litgpt(tmp_path, tmp_path / "ours", lambda _: None)
    assert "\n" not in str(caught.value)


def test_litgpt_instruction_data_trains(
    make_config: Callable[..., TrainConfig], corpus: Path, tmp_path: Path
) -> None:
    """Another data module by class path: instructions in JSON, from LitGPT."""
    samples = [
        {"instruction": f"Tell of number {n}.", "input": "", "output": f"It is {n}. " * 8} for n in range(64)
    ]
    (tmp_path / "samples.json").write_text(json.dumps(samples))
    words = [
        f"--data.init_args.json_path={tmp_path / 'samples.json'}",
        "--data.init_args.val_split_fraction=0.25",
        "--data.init_args.num_workers=0",
    ]
    result = train(make_config("--data=litgpt.data.JSON", *words, train={"max_steps": 6}))
    assert result.steps == 6 and result.train_loss is not None and result.val_loss is not None
    assert result.train_loss < 6.3  # ln 512 is 6.24: it learns what repeats


@needs_litdata
def test_litgpt_streamed_data_trains(
    make_config: Callable[..., TrainConfig], corpus: Path, tmp_path: Path
) -> None:
    """Another data module by class path: tokens in LitData's format, from LitGPT."""
    write_litdata(corpus, tmp_path / "data")
    words = [
        f"--data.init_args.data_path={tmp_path / 'data'}",
        "--data.init_args.split_names=[train, val]",
        "--data.init_args.num_workers=0",
    ]
    result = train(make_config("--data=litgpt.data.LitData", *words, train={"max_steps": 6}))
    assert result.steps == 6 and result.val_loss is not None and result.val_loss < 6.3

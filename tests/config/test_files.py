import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from litmoe.config import ClassSpec, TrainConfig, as_plain
from litmoe.config.checks import check
from litmoe.config.files import read_yaml
from litmoe.config.load import config_folder, load_train_config, parse, train_settings
from litmoe.errors import LitMoEError

ROOT = Path(__file__).parents[2]

LITGPT_YAML = """
model_name: pythia-14m
model_config:
out_dir: out/pretrain/debug
precision: bf16-mixed
initial_checkpoint_dir:
resume: false
data: TinyStories
train:
  save_interval: 1000
  log_interval: 1
  global_batch_size: 125
  micro_batch_size: 5
  lr_warmup_steps: 100
  epochs:
  max_tokens: 100000000
  max_steps:
  max_seq_length:
  tie_embeddings:
  max_norm: 1.0
  min_lr: 6e-5
eval:
  interval: 1000
  max_new_tokens:
  max_iters: 100
  initial_validation: false
  final_validation: true
  evaluate_example: first
optimizer:
  class_path: torch.optim.AdamW
  init_args:
    lr: 6e-4
    weight_decay: 0.1
    betas: [0.9, 0.95]
devices: auto
num_nodes: 1
tokenizer_dir: checkpoints/EleutherAI/pythia-14m
logger_name: tensorboard
seed: 42
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_litgpt_yaml_loads_unchanged(tmp_path: Path) -> None:
    config = load_train_config(write(tmp_path / "debug.yaml", LITGPT_YAML))
    check(config)
    assert config.train.max_tokens == 100_000_000 and config.train.min_lr == 6e-5
    assert config.data == ClassSpec("TinyStories")
    assert config.optimizer.init_args == {"lr": 6e-4, "weight_decay": 0.1, "betas": [0.9, 0.95]}


def test_the_shipped_files_are_valid_and_read_by_litgpt() -> None:
    from litgpt import Config

    for config in (load_train_config(ROOT / "train_config.yaml"), load_train_config(preset="tiny")):
        check(config)
    model = Config.from_file(ROOT / "model_config.yaml")
    assert (model.n_layer, model.n_expert, model.padded_vocab_size, model.rotary_percentage) == (
        12,
        8,
        50257,
        1.0,
    )
    assert load_train_config(ROOT / "train_config.yaml").train.max_tokens == 320_000


def test_later_layers_win(tmp_path: Path) -> None:
    file = write(tmp_path / "own.yaml", "train: {micro_batch_size: 2}\noptimizer: {init_args: {lr: 1e-4}}\n")
    config = load_train_config(
        file, preset="tiny", overrides=["--max-tokens", "5000", "--train.micro_batch_size=1"]
    )
    assert (config.train.max_tokens, config.train.micro_batch_size) == (5000, 1)
    assert config.optimizer.init_args["lr"] == 1e-4
    assert config.optimizer.init_args["betas"] == [0.9, 0.95]  # of the preset


def test_another_class_starts_with_its_own_arguments(tmp_path: Path) -> None:
    file = write(tmp_path / "own.yaml", "optimizer: {class_path: torch.optim.SGD, init_args: {lr: 1.0}}\n")
    assert load_train_config(file, preset="tiny").optimizer.init_args == {"lr": 1.0}


def test_convenient_spellings() -> None:
    words = ["--progress", "--data-dir", "d/x", "--sample.prompts", "A b", "C", "--optimizer", "SGD"]
    config = parse(TrainConfig, [*words, "--optimizer.init_args.lr", "0.5", "--resume", "auto"])
    assert config.progress and config.resume == "auto"
    assert config.sample.prompts == ["A b", "C"]
    assert config.data.init_args == {"train_data_path": "d/x/train", "val_data_path": "d/x/val"}
    assert config.optimizer == ClassSpec("SGD", {"lr": 0.5})


def test_printed_configurations_load_again(tmp_path: Path) -> None:
    config = load_train_config(preset="tiny", overrides=["--max-tokens", "7777", "--progress"])
    again = load_train_config(write(tmp_path / "again.yaml", yaml.safe_dump(as_plain(config))))
    assert asdict(again) == asdict(config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {max_token: 5}", "unknown setting train.max_token; did you mean train.max_tokens?"),
        ("trian: {max_tokens: 5}", "unknown setting trian; did you mean train?"),
        ("optimizer: {class_pth: AdamW}", "did you mean optimizer.class_path?"),
        ("train: 5", "train must hold settings of its own"),
        ("train: {max_tokens: many}", "train.max_tokens: expected int or null, got 'many'"),
        ("seed: [1]", "seed"),
        ("- a\n- b", "expected settings as"),
        ("", "expected settings as"),
        ("a: b: c", "not valid YAML"),
        ("\x00", "not valid YAML"),
        ("{" * 5000, "not valid YAML"),
    ],
)
def test_bad_files_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LitMoEError) as error:
        load_train_config(write(tmp_path / "bad.yaml", text))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"out_dir: caf\xe9")
    for path, message in (
        ("latin.yaml", "cannot be read as text"),
        ("none.yaml", "no such file"),
        (".", "cannot be"),
    ):
        with pytest.raises(LitMoEError, match=message):
            read_yaml(tmp_path / path)
    with pytest.raises(LitMoEError, match=r"no preset 'tinny': choose from .*tiny"):
        load_train_config(preset="tinny")


def test_yaml_runs_no_code(tmp_path: Path) -> None:
    evil = write(
        tmp_path / "evil.yaml", f"out_dir: !!python/object/apply:os.mkdir ['{(tmp_path / 'x').as_posix()}']"
    )
    with pytest.raises(LitMoEError, match="not valid YAML"):
        train_settings(evil)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--train.global_batch_size=10", "--train.micro_batch_size=4"], "not a multiple"),
        (["--train.micro_batch_size=0"], "greater than 0"),
        (["--moe.balance=none", "--moe.switch_coefficient=0.5"], "needs moe.balance: switch"),
        (["--moe.bias_update_speed=0.5"], "needs moe.balance: bias"),
        (["--schedule.decay_fraction=0.5"], "needs schedule.name: wsd"),
        (["--log.project=x"], "needs logger_name: wandb"),
        (["--log.teamspace=x"], "not supported"),
        (["--eval.max_new_tokens=5"], "use sample.max_new_tokens"),
        (["--train.lr_warmup_fraction=0.5"], "choose one"),
        (["--devices=-1"], "devices must be"),
        (["--moe.balance=null"], "moe.balance: expected a value, got null"),
        (["--model_name=pythia-14m"], "has no effect"),
    ],
)
def test_impossible_and_ineffective_settings_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(LitMoEError, match=message):
        check(load_train_config(preset="tiny", overrides=words))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--max-token=5", "did you mean --max-tokens?"),
        ("--trian.max_tokens=5", "did you mean"),
        ("stray", "unexpected 'stray'"),
        ("--max-tokens=x", "expected int or null"),
        ("--optimizer.init_args=3", "optimizer.init_args"),
    ],
)
def test_bad_options_are_one_line(word: str, message: str) -> None:
    with pytest.raises(LitMoEError) as error:
        load_train_config(preset="tiny", overrides=[word])
    assert message in str(error.value) and "\n" not in str(error.value)


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys\nfrom litmoe.cli.main import main\n"
        "try: main(['train', '--help'])\nexcept SystemExit as e: assert e.code == 0\n"
        "assert 'torch' not in sys.modules and 'litgpt' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--preset NAME" in done.stdout and "--max-tokens INT" in done.stdout
    assert config_folder().is_dir()

"""Options as people type them, and the lines that refuse them."""

import pytest

from litmoe.config import EvaluateConfig, GenerateConfig, PrepareConfig, TrainConfig
from litmoe.config.load import as_typed, load_train_config, parse
from litmoe.errors import ConfigError


def refused(kind: type, *args: str) -> str:
    with pytest.raises(ConfigError) as error:
        parse(kind, args)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("kind", "args", "message"),
    [
        (TrainConfig, ["--max-tokens"], "--max-tokens: expected one argument: int or null"),
        (
            TrainConfig,
            ["--max_tokens", "many"],
            "--max_tokens: expected int or null, got 'many' (int: a whole",
        ),
        (TrainConfig, ["--max-tokens", "1", "2"], "unexpected '2': options start with --"),
        (TrainConfig, ["--max-tokns", "1"], "unknown option --max-tokns; did you mean --max-tokens?"),
        (TrainConfig, ["--balance", "none"], "unknown option --balance; did you mean --moe.balance?"),
        (
            TrainConfig,
            ["--moe.balance", "never"],
            "--moe.balance: expected none, switch or bias, got 'never'",
        ),
        (TrainConfig, ["--devices", "2.5"], "--devices: expected int or auto, got '2.5'"),
        (TrainConfig, ["--max-norm", "x"], "--max-norm: expected a number or null, got 'x'"),
        (TrainConfig, ["--max-norm", ".nan"], "--max-norm: expected a finite number, got '.nan'"),
        (
            TrainConfig,
            ["--train", "x"],
            "--train is a section: give its settings one by one, such as --save",
        ),
        (
            TrainConfig,
            ["--optimizer.init-args", "3"],
            "--optimizer.init-args: expected settings of its own, got '3'",
        ),
        (TrainConfig, ["--optimizer.init-args.betas", "[1"], "--optimizer.init-args.betas: not valid YAML"),
        (TrainConfig, ["--seed", "9" * 5000], "--seed: expected int, got '999"),
        (
            GenerateConfig,
            ["--prompt", "Once", "upon"],
            "unexpected 'upon': options start with --, and text with",
        ),
        (
            TrainConfig,
            ["--max-tokens", str(2**63)],
            "--max-tokens: expected an int of at most 64 bits, got '922",
        ),
        (GenerateConfig, ["once"], "unexpected 'once'"),
        (GenerateConfig, ["--\x1b[31m"], r"unknown option '--\x1b[31m'"),
        (GenerateConfig, ["--top-k", "null", "--top-p", "null"], "--top-p: expected a value, got null"),
        (EvaluateConfig, ["--progress", "no"], "--progress: expected true or false, got 'no'"),
        (
            PrepareConfig,
            ["--max-documents", "5", "x"],
            "--max-documents: expected int, a list or null, got ['5', 'x']",
        ),
    ],
)
def test_one_line_says_what_was_written_and_what_is_expected(
    kind: type, args: list[str], message: str
) -> None:
    line = refused(kind, *args)
    assert line.startswith(message)
    assert len(line) < 300


def test_values_as_people_type_them() -> None:
    config = parse(TrainConfig, ["--resume", "--compile", "--sample.prompts", "", "--log.run", "042"])
    assert (config.resume, config.compile, config.sample.prompts, config.log.run) == (True, True, [""], "042")
    assert parse(TrainConfig, ["--sample.prompts", "[1] Once", "b"]).sample.prompts == ["[1] Once", "b"]
    assert parse(TrainConfig, ["--sample.prompts", "[1] Once"]).sample.prompts == ["[1] Once"]
    assert parse(TrainConfig, ["--sample.prompts", "[a, '1']"]).sample.prompts == ["a", "1"]
    assert parse(TrainConfig, ["--sample.prompts=-1"]).sample.prompts == ["-1"]
    assert parse(TrainConfig, ["--prepare.source", "[]"]).prepare.source == []
    assert parse(GenerateConfig, ["--prompt", "null"]).prompt == "null"
    assert parse(GenerateConfig, ["--prompt=--help"]).prompt == "--help"
    assert parse(GenerateConfig, ["--prompt", "a=b"]).prompt == "a=b"
    assert parse(GenerateConfig, ["--seed", "1", "--seed", "2"]).seed == 2
    assert parse(PrepareConfig, ["--max-documents", "1e3", "null", "7"]).max_documents == [1000, None, 7]
    assert parse(PrepareConfig, ["--max-documents", "1e3"]).max_documents == 1000


def test_arguments_of_classes() -> None:
    args = ["--optimizer.init-args.betas", "[0.9, 1e-1]", "--optimizer.init-args.x", "yes"]
    assert parse(TrainConfig, args).optimizer.init_args == {
        "lr": 3e-4,
        "weight_decay": 0.01,
        "betas": [0.9, 0.1],
        "x": "yes",
    }
    args = ["--optimizer.init-args.lr", "1", "--optimizer", "SGD"]  # in either order
    assert parse(TrainConfig, args).optimizer.init_args == {"lr": 1}
    assert parse(TrainConfig, ["--data.init-args", "{a: 1, b: {c: 042}}"]).data.init_args["b"] == {"c": 42}


def test_single_fields_of_a_model(tmp_path: object) -> None:
    config = load_train_config(preset="tiny", overrides=["--model-config.n-layer", "2"])
    assert isinstance(config.model_config, dict)
    assert (config.model_config["n_layer"], config.model_config["n_head"]) == (2, 6)
    config = load_train_config(
        overrides=["--model-config.n-layer", "2"]
    )  # of the file that train_config.yaml names
    assert isinstance(config.model_config, dict)
    assert (config.model_config["n_layer"], config.model_config["n_embd"]) == (2, 768)
    config = load_train_config(preset="tiny", overrides=["--model-config", "{n_layer: 2}"])
    assert config.model_config == {"n_layer": 2}


@pytest.mark.parametrize("name", ["--split", "--document-boundaries", "--document_boundaries"])
def test_former_names_are_accepted(name: str) -> None:
    assert parse(PrepareConfig, [name, "file"]).document_boundaries == "file"
    assert parse(PrepareConfig, [], {"split": "file"}).document_boundaries == "file"
    assert PrepareConfig(split="file").document_boundaries == "file"


def test_configurations_made_in_python_are_held_to_the_same_types() -> None:
    config = TrainConfig(seed=7.0, out_dir="runs")  # type: ignore[arg-type]
    config.train.max_tokens = 1e6  # type: ignore[assignment]
    config.optimizer.init_args = {"betas": (0.9, 0.95)}
    typed = as_typed(config)
    assert (typed.seed, typed.train.max_tokens, str(typed.out_dir)) == (7, 1_000_000, "runs")
    assert isinstance(typed.train.max_tokens, int) and typed.optimizer.init_args == {"betas": (0.9, 0.95)}
    assert config.train.max_tokens == 1e6 and isinstance(config.seed, float)
    config.train.log_interval = "often"  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"^train.log_interval: expected int, got 'often'"):
        as_typed(config)
    config.train = 5  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="train must hold settings of its own"):
        as_typed(config)

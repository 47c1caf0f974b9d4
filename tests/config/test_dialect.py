"""One dialect: a value is the same from a YAML file, from the command line, and from Python."""

from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from litmoe.config import TrainConfig
from litmoe.config.dialect import from_yaml, meaning, to_yaml
from litmoe.config.load import as_typed, load_train_config, parse
from litmoe.errors import ConfigError

quick = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def from_file(tmp_path: Path, text: str) -> TrainConfig:
    file = tmp_path / "run.yaml"
    file.write_text(f"model_name: pythia-14m\n{text}\n", encoding="utf-8")
    return load_train_config(file)


def outcome(job: Any) -> Any:
    """A value, or the line that refused it, without its beginning (the file, or the option)."""
    try:
        return job()
    except ConfigError as error:
        return "refused: " + str(error).partition(": expected ")[2]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("042", 42),
        ("-042", -42),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000_000", 1_000_000),
        ("1e6", 1_000_000),
        ("1E6", 1_000_000),
        ("1.5e3", 1500),
        ("+7", 7),
        ("7.0", 7),
        ("1_0.0e0_1", None),
        ("1__0", None),
        ("_1", None),
        ("1_", None),
        ("190:20:30", None),
        ("0b11", None),
        ("017_", None),
        ("yes", None),
        ("1.5", None),
        ("1e-3", None),
        ("1e400", None),
        ("1e23", None),
        (".nan", None),
        ("١٢", None),  # digits elsewhere
        ("1 000", None),
        ("1,000", None),
        ("true", None),
    ],
)
def test_whole_numbers(tmp_path: Path, text: str, value: int | None) -> None:
    """As YAML 1.2 has them, with Python's groups of digits; whole floats too. Never by YAML 1.1's rules."""
    written = outcome(lambda: from_file(tmp_path, f"seed: {text}").seed)
    assert written == outcome(lambda: parse(TrainConfig, ["--seed", text]).seed)
    assert written == outcome(lambda: parse(TrainConfig, [f"--seed={text}"]).seed)
    if value is None:
        assert written == f"refused: int, got {text!r} (int: a whole number such as 1000, 1_000_000 or 1e6)"
    else:
        assert written == value and type(written) is int


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        (".5", 0.5),
        ("5.", 5.0),
        ("1_000.5", 1000.5),
        ("3", 3.0),
        ("6.0e-05", 6e-5),
        ("1E+2", 100.0),
    ]
    + [
        (word, None)
        for word in ("1e", "e3", ".", "1.2.3", "0x1p3", "nan", "inf", ".inf", "-.INF", ".NaN", "1e400")
    ],
)
def test_numbers(tmp_path: Path, text: str, value: float | None) -> None:
    written = outcome(lambda: from_file(tmp_path, f"head_z_coefficient: {text}").head_z_coefficient)
    assert written == outcome(lambda: parse(TrainConfig, ["--head-z-coefficient", text]).head_z_coefficient)
    assert (
        (str(written).startswith("refused") and repr(text) in written) if value is None else written == value
    )


@pytest.mark.parametrize("word", ["yes", "no", "on", "off", "y", "n", "Yes", "ON", "1", "0", "tRue"])
def test_only_true_and_false_are_truth_values(tmp_path: Path, word: str) -> None:
    refused = f"refused: true or false, got {word!r}"
    assert outcome(lambda: from_file(tmp_path, f"compile: {word}")) == refused
    assert outcome(lambda: parse(TrainConfig, ["--compile", word])) == refused
    for text, value in (("true", True), ("False", False), ("TRUE", True)):
        assert from_file(tmp_path, f"compile: {text}").compile is value
        assert parse(TrainConfig, ["--compile", text]).compile is value


digits = st.integers(0, 2**53)


@quick
@given(
    number=digits, sign=st.sampled_from(["", "+", "-"]), zeros=st.integers(0, 3), form=st.sampled_from("d_e.")
)
def test_a_whole_number_is_one_in_every_spelling(
    tmp_path: Path, number: int, sign: str, zeros: int, form: str
) -> None:
    body = {"d": f"{number}", "_": f"{number:_}", "e": f"{Decimal(number):e}", ".": f"{number}.0"}[form]
    text = sign + "0" * (zeros if form in "d." else 0) + body
    wanted = -number if sign == "-" else number
    assert from_file(tmp_path, f"seed: {text}").seed == wanted
    assert parse(TrainConfig, [f"--seed={text}"]).seed == wanted
    assert as_typed(TrainConfig(seed=float(wanted))).seed == wanted  # type: ignore[arg-type]


@quick
@given(number=st.floats(allow_nan=False, allow_infinity=False), form=st.sampled_from(["r", "e", "E", "f"]))
def test_a_number_is_one_in_every_spelling(tmp_path: Path, number: float, form: str) -> None:
    text = repr(number) if form == "r" else f"{number:.17{form}}"
    wanted = float(Decimal(text))
    assert from_file(tmp_path, f"head_z_coefficient: {text}").head_z_coefficient == wanted
    assert parse(TrainConfig, [f"--head-z-coefficient={text}"]).head_z_coefficient == wanted


@quick
@given(text=st.text(alphabet="0123456789_.eE+-xo:~nulltrefasyNA[]{},'\" #&*!|>%@`", min_size=1, max_size=8))
def test_files_and_options_agree_on_any_text(tmp_path: Path, text: str) -> None:
    """What a plain scalar of YAML is, and what an option is, are read the same, wherever a file can say it."""
    try:
        plain = from_yaml(f"a: {text}")["a"]
    except ConfigError:
        return  # no YAML, or none without quotes
    if plain != text:
        return  # quoted, a list, a comment
    for name in (
        "seed",
        "head_z_coefficient",
        "compile",
        "devices",
        "train.max_norm",
        "moe.balance",
        "log.run",
    ):
        section, _, last = name.rpartition(".")
        line = f"{section}: {{{last}: {text}}}" if section else f"{last}: {text}"
        if section and any(mark in text for mark in ",]}{[:#"):
            continue
        in_file = outcome(partial(from_file, tmp_path, line))
        as_option = outcome(partial(parse, TrainConfig, [f"--{name}={text}"]))
        if isinstance(in_file, str) or isinstance(as_option, str):
            assert in_file == as_option, name
        else:
            assert _get(in_file, name) == _get(as_option, name), name


def _get(config: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        config = getattr(config, name)
    return config


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False)
    | st.text(max_size=12)
    | st.sampled_from(
        ["042", "1e3", "1_0", "yes", "no", "null", "~", "12:30", "0o17", ".5", "=", "<<", "09", "+1"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@quick
@given(value=plain_values, ascii_only=st.booleans())
def test_what_is_written_reads_back_the_same(value: Any, ascii_only: bool) -> None:
    """By this dialect, and by PyYAML's rules, with which LitGPT reads our files."""
    text = to_yaml({"key": value}, ascii_only=ascii_only)
    assert meaning(from_yaml(text)) == {"key": value}
    assert yaml.safe_load(text) == {"key": value}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nseed: 2", "not valid YAML: seed is set twice (line 2)"),
        ("train:\n  max_steps: 1\n  max_steps: 2", "max_steps is set twice (line 3)"),
        ("train: {max_steps: 1, max-steps: 2}", "train.max_steps is set twice"),
        ("seed: !!timestamp 2020-01-01", "the tag !!timestamp has no meaning here (line 1)"),
        ("seed: !!int yes", "'yes' is no int (line 1)"),
        ("a: b: c", "not valid YAML: mapping values are not allowed here (line 1, column 5)"),
        ("out_dir: a\nseed: [1", "line 3, column 1"),
    ],
)
def test_what_a_file_may_not_say(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text + "\n", encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        load_train_config(file)
    assert message in str(refused.value)
    assert not any(
        inside in str(refused.value) for inside in ("<unicode", "yaml.", "object at", "ParserError")
    )


def test_json_is_yaml(tmp_path: Path) -> None:
    """A configuration that a program has written, with JSON's escapes of what is not ASCII."""
    file = tmp_path / "run.json"
    file.write_text(
        '{"model_name": "pythia-14m", "sample": {"prompts": ["caf\\u00e9 \\ud83d\\ude00", "\\n"]}}'
    )
    assert load_train_config(file).sample.prompts == ["café 😀", "\n"]


def test_a_byte_order_mark_is_no_part_of_a_key(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_bytes("model_name: pythia-14m\nseed: 5\n".encode("utf-8-sig"))
    assert load_train_config(tmp_path / "run.yaml").seed == 5

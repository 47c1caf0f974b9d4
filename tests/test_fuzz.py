"""Inputs from outside, however malformed: they work, or are refused in one line.

Whatever is read (settings, text, tokenizers, checkpoints), the only outcomes are success and a ``LitMoEError`` of
one line: no other exception, no hang, no file outside the named folder, no foreign code executed.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.small import MODEL, run_settings

from litmoe import checkpoint
from litmoe.config import ClassSpec, GenerateConfig, PrepareConfig, TrainConfig
from litmoe.config.checks import check
from litmoe.config.describe import settings_of
from litmoe.config.instantiate import find_class, make
from litmoe.config.load import load_train_config, parse
from litmoe.data.reading.formats import read_documents
from litmoe.data.text_files import TextFiles
from litmoe.data.token_store import TokenStore
from litmoe.data.tokenizer import copy_tokenizer, load_tokenizer
from litmoe.errors import LitMoEError
from litmoe.inference.loading import load_checkpoint
from litmoe.model.config import load_model_config
from litmoe.optim.build import make_optimizer
from litmoe.training.loop import train

SECONDS = 20  # for what takes milliseconds: only a hang exceeds it, however busy the machine is

quick = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
few = settings(quick, max_examples=25)


def outcome(job: Callable[[], Any]) -> str | None:
    """None on success, or the line that refused the input."""
    started = time.monotonic()
    try:
        job()
        message = None
    except LitMoEError as error:
        message = str(error)
        assert message and "\n" not in message and len(message) < 3000, message
    assert time.monotonic() - started < SECONDS
    return message


@contextmanager
def nothing_written(*folders: Path) -> Iterator[None]:
    before = [_files(folder) for folder in folders]
    yield
    assert [_files(folder) for folder in folders] == before


def _files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


# --- settings ---------------------------------------------------------------------------------------------------

NAMES = [setting.name for setting in settings_of(TrainConfig)]
MODEL_NAMES = [
    *MODEL,
    "head_size",
    "rope_base",
    "n_shared_expert",
    "rope_adjustments",
    "norm_eps",
    "sliding_window_size",
]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 10**400, -(10**30), 2**63, 2**64]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["1e-3", "auto", "\x00", "../..", "\N{GRINNING FACE}", "null", "{", "[1", "a: b", "-", "--help"]
    ),
    st.dates(),
    st.binary(max_size=4),
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """Dotted names as sections; where a value and a section collide, the later one wins."""
    result: dict[str, Any] = {}
    for name, value in flat.items():
        *sections, last = name.split(".")
        place = result
        for section in sections:
            if not isinstance(place.get(section), dict):
                place[section] = {}
            place = place[section]
        place[last] = value
    return result


@quick
@given(flat=st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=12), values, min_size=1, max_size=3))
def test_training_settings_of_any_kind(tmp_path: Path, flat: dict[str, Any]) -> None:
    file = tmp_path / "fuzz.yaml"
    file.write_text(yaml.safe_dump(nested(flat), allow_unicode=True), encoding="utf-8")
    with nothing_written(tmp_path):
        outcome(lambda: check(load_train_config(file)))


@quick
@given(
    changes=st.dictionaries(
        st.sampled_from(MODEL_NAMES) | st.text(max_size=8), values, min_size=1, max_size=2
    )
)
def test_model_settings_of_any_kind(tmp_path: Path, changes: dict[str, Any]) -> None:
    file = tmp_path / "model.yaml"
    file.write_text(yaml.safe_dump({**MODEL, **changes}, allow_unicode=True), encoding="utf-8")
    with nothing_written(tmp_path):
        outcome(lambda: load_model_config(file))


@quick
@given(
    content=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace"))
)
def test_a_yaml_file_of_any_bytes(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "fuzz.yaml"
    file.write_bytes(content)
    outcome(lambda: load_train_config(file))


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
ODD_FILES = {
    "billion laughs": BOMB,
    "billion laughs under a known key": BOMB.replace("a11: &a11", "tokenizer_dir: &a11"),
    "billion laughs in arguments": "optimizer: {class_path: AdamW, init_args: {lr: &a0 [1, 1, 1, 1, 1, 1]"
    + "".join(f", a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12))
    + "}}\n",
    "a list that holds itself": "train: &a [*a]\n",
    "a mapping that holds itself": "train: &a {max_steps: *a}\n",
    "a mapping that holds itself, in free arguments": "data: {class_path: TextFiles, init_args: &a {x: *a}}\n",
    "a model that holds itself": "model_config: &a {n_layer: *a}\n",
    "deep lists": "train: " + "[" * 5000 + "]" * 5000,
    "deep mappings": "".join(" " * n + f"a{n}:\n" for n in range(1500)),
    "a python object": "seed: !!python/object/apply:os.mkdir [hacked]\n",
    "a python name": "seed: !!python/name:os.system\n",
    "a huge integer": "seed: " + "9" * 20_000 + "\n",
    "a number in base sixty": "seed: 190:20:30\n",
    "not a number": "optimizer: {class_path: AdamW, init_args: {lr: .nan}}\ntrain: {min_lr: .nan}\n",
    "merge keys": "x: &x {max_steps: 1}\ntrain: {<<: *x}\n",
    "a merge of something else": "train: {<<: 7}\n",
    "two documents": "seed: 1\n---\nseed: 2\n",
    "an unhashable key": "{[1, 2]: 3}\n",
    "a tab": "train:\n\tmax_steps: 1\n",
    "merges of merges": "a0: &a0 {x: 1, y: 2}\n"
    + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 12)),
    "numbers as keys": "train: {1: 2}\n3: 4\n",
    "numbers as keys of arguments": "optimizer: {class_path: AdamW, init_args: {1: 2}}\n",
    "a null byte": "seed: 1\x00\n",
    "an impossible date": "seed: 2020-13-45\n",
    "two keys of one name": "seed: 1\nseed: 2\n",
    "nothing": "",
}


@pytest.mark.parametrize("name", ODD_FILES)
def test_odd_yaml_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "odd.yaml"
    file.write_text(ODD_FILES[name], encoding="utf-8")
    with nothing_written(tmp_path):
        outcome(lambda: check(load_train_config(file)))
        outcome(lambda: load_model_config(file))


args = st.one_of(
    st.sampled_from([f"--{name}" for name in NAMES]),
    st.sampled_from(NAMES).flatmap(lambda name: st.text(max_size=10).map(lambda text: f"--{name}={text}")),
    st.sampled_from(
        ["--", "-", "--=", "--train", "--train=[", "--data-dir", "--optimizer", "--max-steps=1e9", "-1"]
    ),
    st.text(max_size=12),
).filter(lambda arg: arg.partition("=")[0] not in ("--help", "-h"))  # printing the help exits


@few
@given(line=st.lists(args, max_size=4))
@example(line=["--eval=\x00"])
def test_command_lines_of_any_words(tmp_path: Path, line: list[str]) -> None:
    for kind in (TrainConfig, PrepareConfig, GenerateConfig):
        outcome(lambda kind=kind: parse(kind, line))


@pytest.mark.parametrize("name", NAMES)
def test_null_for_every_setting(tmp_path: Path, name: str) -> None:
    file = tmp_path / "null.yaml"
    file.write_text(yaml.safe_dump(nested({name: None})))
    outcome(lambda: check(load_train_config(file)))
    outcome(lambda: check(parse(TrainConfig, [f"--{name}=null"])))


# --- classes named in settings ----------------------------------------------------------------------------------

ADAMW = [
    "lr",
    "betas",
    "eps",
    "weight_decay",
    "foreach",
    "fused",
    "maximize",
    "amsgrad",
    "params",
    "self",
    "cls",
]


@few
@given(arguments=st.dictionaries(st.sampled_from(ADAMW) | st.integers(), values, max_size=2))
def test_optimizer_arguments_of_any_kind(arguments: dict[str, Any]) -> None:
    import torch

    outcome(lambda: make_optimizer(ClassSpec("AdamW", arguments), torch.nn.Linear(1, 1), "32-true"))


@quick
@given(
    arguments=st.dictionaries(
        st.sampled_from(["seed", "num_workers", "train_data_path", "tokenizer_dir"]), values
    )
)
def test_data_arguments_of_any_kind(arguments: dict[str, Any]) -> None:
    outcome(lambda: make(TextFiles, section="data", **{"train_data_path": "here", **arguments}))


ODD_CLASSES = [
    "",
    ".",
    "..",
    "a.",
    ".a",
    "os.path",
    "torch.optim.",
    "torch.optim.adamw",
    "torch..optim.AdamW",
    "\x00.x",
]


@few
@given(path=st.sampled_from(ODD_CLASSES) | st.text(max_size=12))
def test_class_paths_of_any_kind(path: str) -> None:
    import torch

    assert outcome(lambda: find_class(ClassSpec(path), "optimizer", "torch.optim", torch.optim.Optimizer))


# --- text -------------------------------------------------------------------------------------------------------


def mutations(original: bytes) -> st.SearchStrategy[bytes]:
    """The bytes with a few places changed, removed, repeated or cut off."""

    def change(edits: list[tuple[int, int, bytes]]) -> bytes:
        content = original
        for at, length, new in edits:
            at %= len(content) + 1
            content = content[:at] + new + content[at + length :]
        return content

    step = st.tuples(st.integers(0, 10**9), st.integers(0, 40), st.binary(max_size=8))
    return st.lists(step, min_size=1, max_size=4).map(change) | st.integers(0, len(original)).map(
        lambda length: original[:length]
    )


def _parquet(texts: list[str]) -> bytes:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(pa.table({"text": texts, "number": list(range(len(texts)))}), file)
    return file.getvalue()


ROWS = [{"text": f"Story {n}. The cat \u00e9\u4e2d sat.", "n": n} for n in range(6)]
ORIGINALS = {
    ".txt": b"One story.\n<|endoftext|>\nAnother, caf\xc3\xa9.\r\n",
    ".jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    ".json": json.dumps(ROWS).encode(),
    ".parquet": _parquet([row["text"] for row in ROWS]),
}


@pytest.mark.parametrize("suffix", ORIGINALS)
def test_damaged_text_files(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"text{suffix}"

    @settings(quick, max_examples=120)
    @given(content=mutations(ORIGINALS[suffix]) | st.binary(max_size=100))
    def damaged(content: bytes) -> None:
        file.write_bytes(content)
        outcome(lambda: list(read_documents(file)))

    damaged()
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@quick
@given(entry=values)
def test_json_of_any_shape(tmp_path: Path, entry: Any) -> None:
    text = json.dumps(entry, default=str)
    for suffix, content in (
        (".jsonl", f'{{"text": "a"}}\n{text}\n'),
        (".json", text),
        (".json", f"[{text}]"),
    ):
        (tmp_path / f"text{suffix}").write_text(content)
        outcome(lambda file=tmp_path / f"text{suffix}": list(read_documents(file)))


def test_json_bombs(tmp_path: Path) -> None:
    for content in (
        "[" * 100_000,
        '{"text":' * 100_000,
        '{"text": ' + "9" * 100_000 + "}",
        '{"text": "\\ud800"}',
    ):
        for suffix in (".json", ".jsonl"):
            (tmp_path / f"bomb{suffix}").write_text(content)
            assert outcome(lambda file=tmp_path / f"bomb{suffix}": list(read_documents(file)))


# --- tokenizers and stores --------------------------------------------------------------------------------------


def test_damaged_tokenizers(corpus: Path, tmp_path: Path) -> None:
    good = {
        name: (corpus / "tokenizer" / name).read_bytes()
        for name in ("tokenizer.json", "tokenizer_config.json")
    }
    folder = tmp_path / "tokenizer"

    @settings(quick, max_examples=40)
    @given(name=st.sampled_from(sorted(good)), data=st.data())
    def damaged(name: str, data: st.DataObject) -> None:
        shutil.copytree(corpus / "tokenizer", folder, dirs_exist_ok=True)
        (folder / name).write_bytes(data.draw(mutations(good[name])))
        outcome(lambda: load_tokenizer(folder).encode("The cat sat."))
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        outcome(lambda: copy_tokenizer(folder, tmp_path / "copy", say=lambda _: None))

    damaged()
    assert {path.name for path in tmp_path.iterdir()} <= {"tokenizer", "copy", ".copy.lock"}


@few
@given(
    name=st.sampled_from(
        ["tokenizer_config.json", "generation_config.json", "special_tokens_map.json", "config.json"]
    ),
    key=st.sampled_from(
        [
            "eos_token",
            "eos_token_id",
            "bos_token",
            "bos_token_id",
            "tokenizer_class",
            "add_bos_token",
            "chat_template",
        ]
    ),
    value=values,
)
def test_tokenizer_settings_of_any_kind(
    corpus: Path, tmp_path: Path, name: str, key: str, value: Any
) -> None:
    folder = tmp_path / "tokenizer"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(corpus / "tokenizer", folder)
    (folder / name).write_text(json.dumps({key: value}, default=str))
    outcome(lambda: load_tokenizer(folder).encode("The cat sat."))


@few
@given(data=st.data())
def test_damaged_token_stores(corpus: Path, tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / "store"
    shutil.copytree(corpus / "train" / "train", folder, dirs_exist_ok=True)
    name = data.draw(st.sampled_from(["store.json", "documents.bin"]))
    (folder / name).write_bytes(data.draw(mutations((folder / name).read_bytes())))
    outcome(lambda: TokenStore.open(folder))


@few
@given(
    key=st.sampled_from(["dtype", "n_documents", "n_tokens", "n_bytes", "eos_id", "files", "made_from"]),
    value=values,
)
def test_store_records_of_any_kind(corpus: Path, tmp_path: Path, key: str, value: Any) -> None:
    folder = tmp_path / "store"
    shutil.copytree(corpus / "train" / "train", folder, dirs_exist_ok=True)
    record = json.loads((corpus / "train" / "train" / "store.json").read_text(encoding="utf-8"))
    (folder / "store.json").write_text(json.dumps({**record, key: value}, default=str))
    outcome(lambda: TokenStore.open(folder))


# --- checkpoints ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_checkpoint(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of one step."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "run.yaml").write_text(
        yaml.safe_dump(
            {
                **run_settings(corpus, folder / "run", num_workers=0),
                "train": {"max_steps": 1, "global_batch_size": 1, "micro_batch_size": 1},
                "eval": {"max_iters": 1},
            }
        )
    )
    return train(load_train_config(folder / "run.yaml")).checkpoint


def _recorded(folder: Path) -> None:
    """Make the manifest match the files, as the author of a malicious checkpoint would."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    for name, entry in manifest["files"].items():
        entry |= {
            "size": (folder / name).stat().st_size,
            "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_damaged_checkpoints(small_checkpoint: Path, tmp_path: Path) -> None:
    """Changed bytes, with a manifest that no longer matches and with one that was made to match."""
    names = [
        "manifest.json",
        "model_config.yaml",
        "lit_model.pth",
        "trainer_state.pth",
        "hyperparameters.yaml",
    ]
    good = {name: (small_checkpoint / name).read_bytes() for name in names}
    run = small_checkpoint.parent.parent / "run.yaml"
    folder = tmp_path / "out" / "final"
    shutil.copytree(small_checkpoint, folder)

    @settings(quick, max_examples=25)
    @given(name=st.sampled_from(names), deceive=st.booleans(), data=st.data())
    def damaged(name: str, deceive: bool, data: st.DataObject) -> None:
        for other in names:
            (folder / other).write_bytes(good[other])
        (folder / name).write_bytes(data.draw(mutations(good[name])))
        if deceive and name != "manifest.json":
            _recorded(folder)
        outcome(lambda: checkpoint.newest(tmp_path / "out", lambda _: None))
        outcome(lambda: checkpoint.load_model(folder))
        outcome(lambda: checkpoint.load_trainer(folder))
        outcome(lambda: load_checkpoint(folder, "cpu"))

    with nothing_written(small_checkpoint):
        damaged()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    outcome(lambda: train(load_train_config(run, overrides=["--resume", str(folder), "--max-steps", "2"])))


@few
@given(
    key=st.sampled_from(["format", "step", "created", "torch", "files"]),
    value=values
    | st.dictionaries(st.sampled_from(["..", "/etc/passwd", "lit_model.pth", "a/b", ""]), values, max_size=2),
)
def test_manifests_of_any_kind(small_checkpoint: Path, tmp_path: Path, key: str, value: Any) -> None:
    folder = tmp_path / "out" / "final"
    shutil.copytree(small_checkpoint, folder, dirs_exist_ok=True)
    manifest = json.loads((small_checkpoint / "manifest.json").read_text(encoding="utf-8"))
    (folder / "manifest.json").write_text(json.dumps({**manifest, key: value}, default=str))
    outcome(lambda: checkpoint.newest(tmp_path / "out", lambda _: None))
    outcome(lambda: checkpoint.newest(tmp_path, lambda _: None, below=True))


CONTENTS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "a number for weights": ("lit_model.pth", lambda w: 7),
    "a list for weights": ("lit_model.pth", lambda w: [1]),
    "no weights": ("lit_model.pth", lambda w: {}),
    "a number for LitGPT's weights": ("lit_model.pth", lambda w: {"model": 7}),
    "numbers for tensors": ("lit_model.pth", lambda w: dict.fromkeys(w, 7)),
    "a tensor of another shape": (
        "lit_model.pth",
        lambda w: {**w, "lm_head.weight": w["lm_head.weight"][:3]},
    ),
    "a tensor of another type": (
        "lit_model.pth",
        lambda w: {**w, "lm_head.weight": w["lm_head.weight"].char()},
    ),
    "a number for a trainer": ("trainer_state.pth", lambda t: 7),
    "no trainer": ("trainer_state.pth", lambda t: {}),
    "a number for a state": ("trainer_state.pth", lambda t: {**t, "state": 7}),
    "a word for a step": ("trainer_state.pth", lambda t: {**t, "state": {**t["state"], "step": "many"}}),
    "a number for counts": ("trainer_state.pth", lambda t: {**t, "state": {**t["state"], "load_LE": 7}}),
    "too few counts": (
        "trainer_state.pth",
        lambda t: {**t, "state": {**t["state"], "load_LE": t["state"]["load_LE"][:1, :1]}},
    ),
    "a number for an identity": ("trainer_state.pth", lambda t: {**t, "identity": 7}),
    "a number for an optimizer": ("trainer_state.pth", lambda t: {**t, "optimizer": 7}),
    "an empty optimizer": (
        "trainer_state.pth",
        lambda t: {**t, "optimizer": {"state": {}, "param_groups": []}},
    ),
    "a number for random numbers": ("trainer_state.pth", lambda t: {**t, "rng": 7}),
    "random numbers of another kind": (
        "trainer_state.pth",
        lambda t: {**t, "rng": {**t["rng"], "cpu": t["rng"]["cpu"][:3]}},
    ),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_what_a_checkpoint_holds_of_any_kind(small_checkpoint: Path, tmp_path: Path, name: str) -> None:
    """Files that torch can read, with correct checksums, whose contents no trainer wrote."""
    import torch

    folder = tmp_path / "final"
    shutil.copytree(small_checkpoint, folder)
    file, change = CONTENTS[name]
    torch.save(change(torch.load(folder / file, weights_only=True)), folder / file)
    _recorded(folder)
    args = ["--resume", str(folder), "--max-steps", "2", "--out-dir", str(tmp_path / "out")]
    run = small_checkpoint.parent.parent / "run.yaml"
    outcome(lambda: train(load_train_config(run, overrides=args)))
    outcome(lambda: load_checkpoint(folder, "cpu"))

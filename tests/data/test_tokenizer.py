"""One tokenizer folder, read alike by tokenizers, LitGPT and Transformers."""

import json
from pathlib import Path

import litgpt
import pytest
import tokenizers as hf
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from litmoe.data.tokenizer import (
    FILES,
    RECORD,
    copy_tokenizer,
    fetch_tokenizer,
    load_tokenizer,
    open_tokenizer,
    tokenizer_fingerprint,
    train_tokenizer,
)
from litmoe.errors import LitMoEError

TEXTS = ["Once upon a time, there was a little fox.", "The fox didn't sleep. It was 7 o'clock!"] * 20
GPT2 = Path(__file__).parents[3] / "shared/tokenizers/gpt2"
needs_gpt2 = pytest.mark.skipif(not GPT2.is_dir(), reason="GPT-2's vocabulary is not beside the checkout")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer") / "own"
    train_tokenizer(TEXTS, 300, folder, progress=False)
    return folder


def readers(folder: Path) -> tuple[litgpt.Tokenizer, transformers.PreTrainedTokenizerBase, hf.Tokenizer]:
    return (
        load_tokenizer(folder),
        transformers.AutoTokenizer.from_pretrained(folder),
        hf.Tokenizer.from_file(str(folder / "tokenizer.json")),
    )


def check_agreement(folder: Path, text: str) -> None:
    ours, theirs, raw = readers(folder)
    with_begin = theirs(text)["input_ids"]
    assert with_begin == raw.encode(text).ids == ours.encode(text).tolist()
    assert with_begin[0] == ours.bos_id == ours.eos_id == theirs.bos_token_id == theirs.eos_token_id
    bare = theirs(text, add_special_tokens=False)["input_ids"]
    assert with_begin[1:] == bare == ours.encode(text, bos=False).tolist()
    assert theirs.decode(bare) == raw.decode(bare) == text


@pytest.mark.parametrize("text", ["Once upon", " two  spaces\n\n 日本 é", "isn't it , so .", "\x00\u2028"])
def test_three_libraries_agree(trained: Path, text: str) -> None:
    check_agreement(trained, text)


@needs_gpt2
def test_gpt2_is_normalised_and_unchanged(tmp_path: Path) -> None:
    copy_tokenizer(GPT2, tmp_path / "gpt2")
    check_agreement(tmp_path / "gpt2", "Hello world, isn't it 2024?  Yes\n\n日本")
    ours, theirs, _ = readers(tmp_path / "gpt2")
    assert ours.vocab_size == len(theirs) == 50257 and ours.eos_id == 50256
    assert ours.encode("Hello world", bos=False).tolist() == [15496, 995]  # as published


def test_folder_has_all_files_with_begin_and_end(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {*FILES, RECORD}
    config = json.loads((trained / "tokenizer_config.json").read_text())
    assert config["bos_token"] == config["eos_token"] == "<|endoftext|>" and config["tokenizer_class"]
    assert json.loads((trained / "generation_config.json").read_text()) == {
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    ours = load_tokenizer(trained)
    assert ours.vocab_size == 300 and ours.token_to_id("<|endoftext|>") == 0
    # What a Mixtral's forward() would refuse must not be among the inputs.
    assert set(transformers.AutoTokenizer.from_pretrained(trained)("x")) == {"input_ids", "attention_mask"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text(st.characters(blacklist_categories=["Cs"])))
def test_any_text_survives(trained: Path, text: str) -> None:
    tokenizer, _ = open_tokenizer(trained)
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_special_token_in_a_text_is_plain_text(trained: Path) -> None:
    tokenizer, end = open_tokenizer(trained)
    ids = tokenizer.encode("a<|endoftext|>b", add_special_tokens=False).ids
    assert end not in ids and tokenizer.decode(ids) == "a<|endoftext|>b"


def test_training_is_deterministic(trained: Path, tmp_path: Path) -> None:
    train_tokenizer(iter(TEXTS), 300, tmp_path / "again", progress=False)
    assert (tmp_path / "again/tokenizer.json").read_bytes() == (trained / "tokenizer.json").read_bytes()
    assert tokenizer_fingerprint(tmp_path / "again") == tokenizer_fingerprint(trained)
    train_tokenizer(TEXTS, 301, tmp_path / "again", progress=False)
    assert tokenizer_fingerprint(tmp_path / "again") != tokenizer_fingerprint(trained)


def test_training_says_when_it_stops_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("litmoe.data.tokenizer.MAX_TRAINING_BYTES", 100)
    train_tokenizer(TEXTS, 4000, tmp_path / "t", progress=False, say=said.append)
    assert "trained on the first" in said[0] and "only" in said[1]


@pytest.mark.parametrize(("size", "texts"), [(256, TEXTS), (300, [])])
def test_training_refuses(tmp_path: Path, size: int, texts: list[str]) -> None:
    with pytest.raises(LitMoEError, match=r"too small|no text"):
        train_tokenizer(texts, size, tmp_path / "t", progress=False)
    assert not (tmp_path / "t").exists()


def test_copy_normalises_a_foreign_tokenizer(trained: Path, tmp_path: Path) -> None:
    """Separate begin and end tokens, limits and padding, as a model's repository has them."""
    source = tmp_path / "source"
    source.mkdir()
    tokenizer = hf.Tokenizer.from_file(str(trained / "tokenizer.json"))
    tokenizer.add_special_tokens(["<s>", "</s>"])
    begin = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = hf.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", begin)]
    )
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=4)
    tokenizer.save(str(source / "tokenizer.json"))
    (source / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": {"content": "</s>"}}'
    )
    copy_tokenizer(source, tmp_path / "copy")
    check_agreement(tmp_path / "copy", "a text of more than four tokens")
    assert load_tokenizer(tmp_path / "copy").eos_id == tokenizer.token_to_id("</s>")


def test_end_token_by_number_only(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((trained / "tokenizer.json").read_bytes())
    (tmp_path / "config.json").write_text('{"eos_token_id": [0, 5]}')
    assert open_tokenizer(tmp_path)[1] == 0


def broken(folder: Path, name: str, content: str) -> Path:
    folder.mkdir()
    (folder / name).write_text(content)
    return folder


def test_load_errors_say_what_to_do(trained: Path, tmp_path: Path) -> None:
    no_end = hf.Tokenizer(hf.models.BPE({"a": 0}, []))
    bare = (trained / "tokenizer.json").read_text(encoding="utf-8")
    cases = {
        "there is no tokenizer folder": tmp_path / "missing",
        "holds no tokenizer.json .but x.txt.": broken(tmp_path / "1", "x.txt", ""),
        "damaged or of an unknown kind": broken(tmp_path / "2", "tokenizer.json", "{"),
        "no end-of-text token": broken(tmp_path / "3", "tokenizer.json", no_end.to_str()),
        "LitGPT cannot read": broken(tmp_path / "4", "tokenizer.json", bare),
    }
    cases["tokenizer_config.json of .* is not readable JSON"] = broken(tmp_path / "5", "tokenizer.json", bare)
    (tmp_path / "5/tokenizer_config.json").write_text("{")
    for message, folder in cases.items():
        with pytest.raises(LitMoEError, match=message) as error:
            load_tokenizer(folder)
        assert "\n" not in str(error.value)


def test_other_peoples_folder_is_left_alone(tmp_path: Path) -> None:
    keep = tmp_path / "lit_model.pth"
    keep.touch()
    with pytest.raises(LitMoEError, match=r"holds files that are not a tokenizer of litmoe .lit_model.pth."):
        train_tokenizer(TEXTS, 300, tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == [keep]


def test_failed_copy_keeps_the_old_one(trained: Path, tmp_path: Path) -> None:
    copy_tokenizer(trained, tmp_path / "t")
    before = tokenizer_fingerprint(tmp_path / "t")
    with pytest.raises(LitMoEError):
        copy_tokenizer(tmp_path / "missing", tmp_path / "t")
    assert tokenizer_fingerprint(tmp_path / "t") == before


def test_fetch_without_network_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(LitMoEError, match="--tokenizer train, which needs no network") as error:
        fetch_tokenizer("litmoe-tests/no-such-model", tmp_path / "t")
    assert "\n" not in str(error.value) and not (tmp_path / "t").exists()

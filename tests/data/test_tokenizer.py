"""One tokenizer folder, read alike by tokenizers, LitGPT and Transformers."""

import json
import time
from pathlib import Path
from typing import Any

import litgpt
import pytest
import tokenizers as hf
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.tokenizers import llama_tokenizer, unigram_tokenizer

from litmoe.data.token_store import ensure_store
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
from litmoe.data.tokenizer_folder import refuse_small_vocabulary
from litmoe.errors import ConfigError, DataError, LitMoEError

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


DENSE = {
    "one letter": "a" * 2_000_000,
    "no spaces": "etaoinshrdlu" * 100_000,
    "spaces only": " \n" * 500_000,
    "Chinese": "".join(chr(0x4E00 + n * n % 5003) for n in range(300_000)),
    "digits": "".join(str(n) for n in range(150_000)),
    "signs": "<>=!&|" * 150_000,
}


@pytest.mark.parametrize("kind", DENSE)
def test_any_text_trains_in_bounded_time_into_short_tokens(kind: str, tmp_path: Path) -> None:
    """Each took minutes to hours when a word could have any length: the trainer is quadratic in it."""
    started = time.process_time()
    train_tokenizer([DENSE[kind]], 600, tmp_path / "t", progress=False)
    assert time.process_time() - started < 20
    tokenizer, _ = open_tokenizer(tmp_path / "t")
    longest = max(len(tokenizer.decode([number])) for number in tokenizer.get_vocab().values())
    assert longest <= 65  # with the space before a word
    sample = DENSE[kind][:5000]
    assert tokenizer.decode(tokenizer.encode(sample, add_special_tokens=False).ids) == sample


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=60).map(
            lambda word: word + " "
        ),
        min_size=1,
        max_size=30,
    )
)
def test_ordinary_text_trains_as_by_the_library_alone(
    tmp_path_factory: pytest.TempPathFactory, words: list[str]
) -> None:
    """Text without words above 64 characters: the same tokens as with tokenizers' own trainer."""
    text = "".join(words)
    folder = tmp_path_factory.mktemp("ordinary") / "t"
    train_tokenizer([text], 300, folder, progress=False)
    plain = hf.Tokenizer(hf.models.BPE())
    plain.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = hf.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=hf.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    plain.train_from_iterator([text], trainer)
    assert hf.Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab() == plain.get_vocab()


def test_text_of_long_words_has_a_limit_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the trainer's memory; text with spaces goes on."""
    monkeypatch.setattr("litmoe.data.tokenizer.MAX_DENSE_BYTES", 1000)
    said: list[str] = []
    train_tokenizer(TEXTS * 100, 300, tmp_path / "t", progress=False, say=said.append)
    assert said == []
    train_tokenizer(["日本語" * 30] * 100, 265, tmp_path / "t", progress=False, say=said.append)
    assert said == ["tokenizer: trained on the first 1.08 kB of the text"]


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


def with_files(trained: Path, folder: Path, **files: dict[str, Any]) -> Path:
    """The tokenizer with other files beside it."""
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes((trained / "tokenizer.json").read_bytes())
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer_config", {"eos_token": "</s>"}, "tokenizer_config.json of .* names '</s>' as eos_token"),
        ("special_tokens_map", {"eos_token": {"content": "<eos>"}}, "special_tokens_map.json .* '<eos>'"),
        ("config", {"eos_token_id": 50256}, "config.json of .* names 50256 as eos_token_id"),
    ],
)
def test_a_named_end_token_that_is_missing_is_an_error(
    trained: Path, tmp_path: Path, name: str, content: dict[str, Any], message: str
) -> None:
    """``<|endoftext|>`` is there, and would do, but it is not what was asked for."""
    with pytest.raises(DataError, match=message):
        open_tokenizer(with_files(trained, tmp_path / "t", **{name: content}))


def test_ids_that_contradict_the_tokens_named_are_said(trained: Path, tmp_path: Path) -> None:
    folder = with_files(
        trained,
        tmp_path / "t",
        tokenizer_config={"eos_token": "<|endoftext|>", "bos_token": "a"},
        generation_config={"eos_token_id": [7, 8], "bos_token_id": 3},
    )
    said: list[str] = []
    assert open_tokenizer(folder, said.append)[1] == 0
    assert len(said) == 2 and "eos_token_id 7" in said[0] and "has id 0" in said[0]
    assert "bos_token_id 3" in said[1]
    said.clear()
    open_tokenizer(trained, said.append)
    copy_tokenizer(folder, tmp_path / "copy", say=said.append)
    open_tokenizer(tmp_path / "copy", said.append)
    assert len(said) == 2  # by the copying alone; the copy agrees with itself


def test_sentencepiece_alone_names_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>")
    with pytest.raises(DataError, match=r"only tokenizer.model.*tokenizer.json.*AutoTokenizer") as error:
        open_tokenizer(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["tokenizer.json", "vocab.json and merges.txt"])
def test_a_vocabulary_with_gaps_is_copied_without_a_word(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The library prints every missing id, 1.4 MB of them; and what is copied still reads the same."""
    source = tmp_path / "source"
    source.mkdir()
    vocab = {chr(letter): 3 * letter for letter in range(97, 123)} | {"ab": 70_000, "<|endoftext|>": 300_000}
    if kind == "tokenizer.json":
        tokenizer = hf.Tokenizer(hf.models.BPE(vocab, [("a", "b")]))
        tokenizer.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = hf.decoders.ByteLevel()
        tokenizer.save(str(source / "tokenizer.json"))
        capfd.readouterr()
    else:
        (source / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
        (source / "merges.txt").write_text("#version: 0.2\na b\n", encoding="utf-8")
    copy_tokenizer(source, tmp_path / "copy")
    (tmp_path / "text").mkdir()
    (tmp_path / "text/x.txt").write_text("abc", encoding="utf-8")
    store = ensure_store(tmp_path / "text", tmp_path / "copy", tmp_path / "store")
    assert store.tokens.tolist() == [70_000, 3 * 99, 300_000] and store.vocab_size == 300_001
    assert load_tokenizer(tmp_path / "copy").encode("abc", bos=True).tolist() == [300_000, 70_000, 297]
    shown = capfd.readouterr()
    assert len(shown.out + shown.err) < 200


@pytest.mark.parametrize("make", [llama_tokenizer, unigram_tokenizer])
def test_a_llama_type_tokenizer_can_be_copied_and_trained_on(make: Any, tmp_path: Path) -> None:
    copy_tokenizer(make(tmp_path / "source"), tmp_path / "copy")
    tokenizer, end_id = open_tokenizer(tmp_path / "copy")
    assert end_id == 2 and load_tokenizer(tmp_path / "copy").bos_id == 2
    ids = tokenizer.encode("the red", add_special_tokens=False).ids
    assert tokenizer.decode(ids) == "the red" and len(ids) == 2


def test_a_vocabulary_that_is_too_large_for_the_model_names_what_to_set() -> None:
    refuse_small_vocabulary(512, 512, "t")
    refuse_small_vocabulary(512, None, "t")
    with pytest.raises(ConfigError, match=r"513 tokens.*512 rows.*vocab_size to 513.*padded_vocab_size"):
        refuse_small_vocabulary(513, 512, "t")


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

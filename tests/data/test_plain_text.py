"""Special tokens that a text quotes stay text, whatever the kind of tokenizer; ordinary text stays as it was."""

from pathlib import Path

import pytest
import tokenizers as hf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.tokenizers import LETTERS, llama_tokenizer, unigram_tokenizer, word_tokenizer

from litmoe.data.plain_text import PlainText
from litmoe.data.token_store import ensure_store
from litmoe.data.tokenizer import open_tokenizer, train_tokenizer
from litmoe.errors import DataError

MAKERS = {
    "byte-level": lambda folder: train_tokenizer(["the red fox <|endoftext|> "] * 9, 300, folder),
    "llama": llama_tokenizer,
    "unigram": unigram_tokenizer,
}
QUOTES = ["<|endoftext|>", "</s>", "<s>", "a</s>b", "</s></s>", " </s> "]


@pytest.fixture(scope="module", params=MAKERS)
def tokenizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[hf.Tokenizer, int]:
    folder = tmp_path_factory.mktemp("plain") / "t"
    MAKERS[request.param](folder)
    return open_tokenizer(folder)


def special_ids(tokenizer: hf.Tokenizer) -> set[int]:
    added = tokenizer.get_added_tokens_decoder().items()
    return {number for number, token in added if token.special and token.content != "<unk>"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(parts=st.lists(st.one_of(st.sampled_from(QUOTES), st.text(LETTERS + " ", max_size=8)), max_size=8))
def test_quoted_special_tokens_stay_text(tokenizer: tuple[hf.Tokenizer, int], parts: list[str]) -> None:
    text = "".join(parts)
    ids = PlainText(*tokenizer).encode(text)
    assert not special_ids(tokenizer[0]) & set(ids)
    # Metaspace takes the first space for its own, and puts one before text without.
    assert tokenizer[0].decode(ids, skip_special_tokens=False).strip() == text.strip()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text())
def test_ordinary_text_is_encoded_as_ever(tokenizer: tuple[hf.Tokenizer, int], text: str) -> None:
    library = tokenizer[0].encode(text, add_special_tokens=False).ids
    if not special_ids(tokenizer[0]) & set(library):
        assert PlainText(*tokenizer).encode(text) == library


def test_characters_that_the_vocabulary_lacks_are_unknown(tmp_path: Path) -> None:
    tokenizer = open_tokenizer(unigram_tokenizer(tmp_path / "t"))
    assert 0 in PlainText(*tokenizer).encode("the é") and 0 in PlainText(*tokenizer).encode("the é </s>")


def test_a_record_that_quotes_the_end_token_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text/x.jsonl").write_text('{"text": "the </s> red"}\n{"text": "the"}\n', encoding="utf-8")
    store = ensure_store(tmp_path / "text", unigram_tokenizer(tmp_path / "t"), tmp_path / "s")
    assert store.n_documents == 2 and (store.tokens == store.eos_id).sum() == 2


@pytest.mark.parametrize(
    ("words", "end"),
    [(["<unk>", "a", ".", "b"], "."), (["</s>", "a", "b"], "</s>")],
    ids=["an ordinary word", "the unknown token"],
)
def test_an_end_token_that_stands_for_ordinary_text_is_refused(
    tmp_path: Path, words: list[str], end: str
) -> None:
    folder = word_tokenizer(tmp_path / "t", words, end)
    (tmp_path / "text").mkdir()
    (tmp_path / "text/x.txt").write_text("a b", encoding="utf-8")
    assert ensure_store(tmp_path / "text", folder, tmp_path / "s").n_tokens == 3
    (tmp_path / "text/x.txt").write_text("a b . b", encoding="utf-8")
    with pytest.raises(
        DataError, match=r"end token '.*' also stands for ordinary text, here 'a b . b'"
    ) as error:
        ensure_store(tmp_path / "text", folder, tmp_path / "s")
    assert "eos_token" in str(error.value)

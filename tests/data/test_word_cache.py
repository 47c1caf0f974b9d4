"""Ids found word by word are those of the tokenizer library for the whole text."""

import numpy as np
import pytest
import tokenizers as hf
from hypothesis import given, settings
from hypothesis import strategies as st

from litmoe.data.tokenizer import open_tokenizer, train_tokenizer
from litmoe.data.word_cache import WordCache, splits_like_gpt2

TEXT = ["It's what they've seen: 3 foxes, 12½ birds.\n\n  'll  we\tdon't—“naïve café” ... ñandú's!"] * 20

# WordCache, contractions, runs of white space, and every character that is taken as known or is next to those.
_EDGES = "\x1c\x1f\x7f\x80\x85\xa0\xa1\xad\xb2\xbd\u024f\u0250\u2009\u200f\u2010\u2027\u2028\u2029"
_text = st.lists(
    st.one_of(
        st.sampled_from(
            ["'s", "'LL", " don't", "  ", "\n\n", "\r\n", "\t", " 12", "x_y", "<|endoftext|>", "一"]
        ),
        st.characters(min_codepoint=0, max_codepoint=0x260),
        st.sampled_from(_EDGES),
        st.text(max_size=5),
    ),
    max_size=30,
).map("".join)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> hf.Tokenizer:
    folder = tmp_path_factory.mktemp("words")
    train_tokenizer(TEXT, 400, folder, progress=False)
    return open_tokenizer(folder)[0]


@given(text=_text)
@settings(max_examples=400, deadline=None)
def test_the_ids_are_the_librarys(tokenizer: hf.Tokenizer, text: str) -> None:
    ids = WordCache(tokenizer, "<u2").encode(text)
    if ids is not None:
        assert np.frombuffer(ids, "<u2").tolist() == tokenizer.encode(text, add_special_tokens=False).ids


def test_common_text_is_encoded_here_and_the_rest_is_left_to_the_library(tokenizer: hf.Tokenizer) -> None:
    words = WordCache(tokenizer, "<u2")
    assert words.encode(TEXT[0]) == words.encode(TEXT[0]) != b""
    for other in ("日本", "a\xa0b", "one <|endoftext|> two"):
        assert words.encode(other) is None


def test_a_text_of_ever_new_words_does_not_fill_the_memory(tokenizer: hf.Tokenizer) -> None:
    words = WordCache(tokenizer, "<u2", most_words=50)
    text = " ".join(f"w{n}" for n in range(500)) + " " + "x" * 100
    ids = np.frombuffer(words.encode(text) or b"", "<u2").tolist()
    assert ids == tokenizer.encode(text, add_special_tokens=False).ids
    assert len(words._ids) <= 50 and " " + "x" * 100 not in words._ids


def test_other_ways_of_splitting_are_not_taken_for_gpt2s(tokenizer: hf.Tokenizer) -> None:
    assert splits_like_gpt2(tokenizer)
    for change in (
        {"pre_tokenizer": hf.pre_tokenizers.ByteLevel(add_prefix_space=True)},
        {"pre_tokenizer": hf.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)},
        {"pre_tokenizer": hf.pre_tokenizers.Whitespace()},
        {"normalizer": hf.normalizers.NFC()},
        {"model": hf.models.WordLevel({"a": 0}, "a")},
    ):
        other = hf.Tokenizer.from_str(tokenizer.to_str())
        for name, value in change.items():
            setattr(other, name, value)
        assert not splits_like_gpt2(other)
    other = hf.Tokenizer.from_str(tokenizer.to_str())
    other.enable_truncation(5)
    assert not splits_like_gpt2(other)

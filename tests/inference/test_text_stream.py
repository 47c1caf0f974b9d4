"""Text piece by piece is the text of the whole, in time that does not depend on what came before."""

import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litgpt import Tokenizer
from support.tokenizers import LETTERS, llama_tokenizer, unigram_tokenizer

from litmoe.data.tokenizer import copy_tokenizer, load_tokenizer, train_tokenizer
from litmoe.inference.prompts import encode_prompt
from litmoe.inference.text_stream import StopStrings, TextStream, stream_text

LLAMA_TEXT = st.text(LETTERS + " 日本é🦊\n", max_size=40)


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("stream") / "byte"
    train_tokenizer(["one two three, 日本 é "] * 20, 290, folder, progress=False)
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("stream")
    copy_tokenizer(llama_tokenizer(folder / "source"), folder / "llama")
    return load_tokenizer(folder / "llama")


@given(ids=st.lists(st.integers(1, 289), max_size=60), prompt=st.text(max_size=10))
def test_any_ids_of_a_byte_level_tokenizer(byte_level: Tokenizer, ids: list[int], prompt: str) -> None:
    """Most of them are no UTF-8. Characters begin and end anywhere."""
    prompt_ids = encode_prompt(byte_level, prompt).tolist()
    text = "".join(stream_text(byte_level, ids, prompt_ids))
    assert prompt + text == byte_level.processor.decode(prompt_ids + ids)


@given(prompt=LLAMA_TEXT, text=LLAMA_TEXT)
def test_spaces_between_prompt_and_text_of_a_llama_type_tokenizer(
    llama: Tokenizer, prompt: str, text: str
) -> None:
    prompt_ids, whole = (encode_prompt(llama, part).tolist() for part in (prompt, prompt + text))
    if whole[: len(prompt_ids)] == prompt_ids:  # else a word reaches over the end of the prompt
        assert prompt + "".join(stream_text(llama, whole[len(prompt_ids) :], prompt_ids)) == prompt + text


def test_a_word_after_the_prompt_keeps_its_space(llama: Tokenizer, tmp_path: Path) -> None:
    copy_tokenizer(unigram_tokenizer(tmp_path / "source"), tmp_path / "unigram")
    unigram = load_tokenizer(tmp_path / "unigram")
    for tokenizer in (llama, unigram):
        prompt_ids, word = encode_prompt(tokenizer, "the").tolist(), tokenizer.token_to_id("▁red")
        assert "".join(stream_text(tokenizer, [word], prompt_ids)) == " red"
        assert "".join(stream_text(tokenizer, [word], encode_prompt(tokenizer, "").tolist())) == "red"


@given(before=LLAMA_TEXT, wrong=st.sampled_from([b"\x80", b"\xe6\x97", b"\xff" * 9]), after=LLAMA_TEXT)
def test_bytes_that_are_no_text_spoil_nothing_before_them(
    llama: Tokenizer, before: str, wrong: bytes, after: str
) -> None:
    """The library makes nothing of a whole row of bytes in which one is wrong."""
    before_ids, after_ids = (encode_prompt(llama, text).tolist()[1:] for text in (before, after))
    wrong_ids = [llama.token_to_id(f"<0x{byte:02X}>") for byte in wrong]
    red = llama.token_to_id("▁red")
    ids = [*before_ids, *wrong_ids, *after_ids, red]
    text = "".join(stream_text(llama, ids, [llama.bos_id]))
    assert text.startswith(before) and text.endswith(" red")


@given(text=st.text(st.characters(codec="utf-8", min_codepoint=0x80), max_size=30))
def test_a_piece_comes_as_soon_as_its_character_is_whole(byte_level: Tokenizer, text: str) -> None:
    """At most three tokens after it, for what may be the beginning of another character."""
    ids = byte_level.processor.encode(text, add_special_tokens=False).ids
    stream, shown = TextStream(byte_level), ""
    for number, token in enumerate(ids):
        shown += stream.add(token)
        whole = byte_level.processor.decode(ids[: number + 1]).rstrip("\N{REPLACEMENT CHARACTER}")
        assert len(shown) >= len(whole) - 3
    assert shown + stream.end() == byte_level.processor.decode(ids)


@pytest.mark.parametrize("kind", ["byte_level", "llama"])
def test_invalid_bytes_are_shown_at_once_and_cost_the_same_however_many(
    kind: str, request: pytest.FixtureRequest
) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(kind)
    byte = tokenizer.token_to_id({"byte_level": "Ģ", "llama": "<0x80>"}[kind])
    stream, shown = TextStream(tokenizer), []
    times = [time.process_time()]
    for _ in range(4):
        shown += [stream.add(byte) for _ in range(5000)]
        times.append(time.process_time())
    assert "".join(shown) + stream.end() == "\N{REPLACEMENT CHARACTER}" * 20_000
    assert all(shown[3:])
    quarters = [after - before for before, after in pairwise(times)]
    assert quarters[-1] < 3 * quarters[0] + 0.1


def reference(text: str, strings: list[str]) -> tuple[str, bool]:
    """Character by character: where a stop string is complete first, the longest that ends there counts."""
    for end in range(1, len(text) + 1):
        found = [string for string in strings if text[:end].endswith(string)]
        if found:
            return text[: end - max(map(len, found))], True
    return text, False


@settings(max_examples=300)
@given(
    pieces=st.lists(st.text("ab.", max_size=4), max_size=12),
    strings=st.lists(st.text("ab.", min_size=1, max_size=5), max_size=4),
)
def test_stop_strings_are_exact_however_the_text_is_cut(pieces: list[str], strings: list[str]) -> None:
    stops, shown = StopStrings(strings), ""
    expected, is_stopped = reference("".join(pieces), strings)
    for piece in pieces:
        shown += stops.add(piece)
        assert expected.startswith(shown)  # no part of a stop string is ever shown
        if stops.found:
            break
    assert shown + stops.end() == expected and stops.found == is_stopped


def test_only_what_may_begin_a_stop_string_is_held_back() -> None:
    stops = StopStrings(["the end", "\n\n"])
    assert stops.add("this is the") == "this is "
    assert stops.add("re, ") == "there, "
    assert stops.add("a\n") == "a"
    assert stops.add("b") == "\nb"
    assert stops.add("\n") + stops.add("\nc") == "" and stops.found and stops.add("d") == ""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=30))
def test_prompts_are_encoded_as_text_is(byte_level: Tokenizer, text: str) -> None:
    ids = encode_prompt(byte_level, text).tolist()
    assert ids[0] == byte_level.bos_id and byte_level.processor.decode(ids[1:]) == text


def test_special_tokens_in_a_prompt_are_text_unless_asked_for(byte_level: Tokenizer) -> None:
    prompt = "one<|endoftext|>two"
    plain = encode_prompt(byte_level, prompt).tolist()
    assert plain.count(byte_level.eos_id) == 1  # where it begins
    assert byte_level.processor.decode(plain) == prompt
    special = encode_prompt(byte_level, prompt, allow_special=True).tolist()
    assert special.count(byte_level.eos_id) == 2 and len(special) < len(plain)
    assert byte_level.processor.encode_special_tokens is False  # as it was

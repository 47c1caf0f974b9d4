from copy import copy, deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from litgpt import Tokenizer
from support.small import run_settings
from support.tokenizers import llama_tokenizer

from litmoe.config import EvaluateConfig, GenerateConfig, TrainConfig
from litmoe.config.load import parse
from litmoe.data.tokenizer import copy_tokenizer
from litmoe.errors import CheckpointError, ConfigError, DataError, LitMoEError
from litmoe.inference.decode import decode, decode_together
from litmoe.inference.evaluate import evaluate
from litmoe.inference.generate import generate
from litmoe.inference.loading import LoadedModel, load_checkpoint
from litmoe.inference.prompts import encode_prompt
from litmoe.inference.sampling import choose
from litmoe.inference.text_stream import stream_text
from litmoe.training.loop import train


@pytest.fixture(scope="module")
def loaded(trained: Path) -> LoadedModel:
    return load_checkpoint(trained, "cpu")


def test_greedy_text_is_litgpts(loaded: LoadedModel) -> None:
    """The same tokens as LitGPT's own model and generator on the same folder, and as without a cache."""
    import litgpt
    from litgpt.generate.base import generate as litgpt_generate

    prompt = encode_prompt(loaded.tokenizer, "Once upon a time")
    ours = list(decode(loaded.model, prompt, max_new_tokens=40, end_id=None, temperature=0))
    theirs = litgpt.GPT(loaded.model.config)
    theirs.load_state_dict(torch.load(loaded.folder / "lit_model.pth", weights_only=True))
    theirs.eval()
    theirs.set_kv_cache(batch_size=1)
    expected = litgpt_generate(theirs, prompt, len(prompt) + 40, temperature=0.0, top_k=1)
    assert ours == expected[len(prompt) :].tolist()
    tokens = prompt
    for token in ours[:10]:
        with torch.no_grad():
            assert int(loaded.model(tokens[None])[0, -1].argmax()) == token
        tokens = torch.cat([tokens, torch.tensor([token])])


def test_texts_made_together_are_those_made_alone(loaded: LoadedModel) -> None:
    """Prompts of several lengths, some of them equal, one of which fills the context before the others end."""
    prompts = [encode_prompt(loaded.tokenizer, text) for text in ("Once", "One day a fox", "Once", "")]
    prompts.append(torch.arange(50))
    alone = [list(decode(loaded.model, p, max_new_tokens=25, end_id=None, temperature=0)) for p in prompts]
    assert [len(ids) for ids in alone] == [25, 25, 25, 25, 14]
    end_id = alone[1][10]
    together = [
        [token for token in ids if token is not None]
        for ids in zip(
            *decode_together(loaded.model, prompts, max_new_tokens=25, end_id=end_id, temperature=0),
            strict=True,
        )
    ]
    for ids, expected in zip(together, alone, strict=True):
        assert ids == (expected[: expected.index(end_id)] if end_id in expected else expected)
    seeds = [torch.Generator().manual_seed(n) for n in (1, 2)]
    steps = decode_together(loaded.model, prompts[:2], max_new_tokens=9, end_id=None, generators=seeds)
    drawn = list(zip(*steps, strict=True))
    for number in (0, 1):
        seed = torch.Generator().manual_seed(number + 1)
        ids = decode(loaded.model, prompts[number], max_new_tokens=9, end_id=None, generator=seed)
        assert list(ids) == list(drawn[number])


def test_the_text_is_shown_as_it_is_made_and_the_seed_decides(loaded: LoadedModel) -> None:
    shown: list[str] = []
    config = GenerateConfig(prompt="One day", max_new_tokens=30, num_samples=2, seed=3)
    texts = generate(config, shown.append, loaded)
    assert len(shown) > 20 and "".join(shown) == f"{texts[0]}\n---\n{texts[1]}\n"
    assert all(text.startswith("One day") for text in texts) and texts[0] != texts[1]
    assert generate(config, loaded=loaded) == texts
    several = GenerateConfig(prompts=["One day", "A fox"], max_new_tokens=5, temperature=0)
    singles = [GenerateConfig(prompt=prompt, max_new_tokens=5, temperature=0) for prompt in several.prompts]
    assert generate(several, loaded=loaded) == [generate(single, loaded=loaded)[0] for single in singles]
    assert (
        generate(GenerateConfig(prompt="One day", max_new_tokens=30, num_samples=2, seed=4), loaded=loaded)
        != texts
    )


def test_generation_ends_at_the_end_token_and_puts_the_model_back(loaded: LoadedModel) -> None:
    model, prompt = loaded.model, encode_prompt(loaded.tokenizer, "")
    all_tokens = list(decode(model, prompt, max_new_tokens=20, end_id=None, temperature=0))
    end = all_tokens[7]
    assert (
        list(decode(model, prompt, max_new_tokens=20, end_id=end, temperature=0))
        == all_tokens[: all_tokens.index(end)]
    )
    model.train()
    generator = decode(model, prompt, max_new_tokens=20, end_id=None, temperature=0)
    next(generator)
    generator.close()
    assert model.training and model.mask_cache is None
    model.eval()


def test_the_context_is_never_overrun(loaded: LoadedModel) -> None:
    prompt = torch.arange(60)
    assert len(list(decode(loaded.model, prompt, max_new_tokens=500, end_id=None))) == 4
    with pytest.raises(LitMoEError, match="shorten it"):
        list(decode(loaded.model, torch.arange(64), max_new_tokens=5, end_id=None))


def test_choose_follows_the_distribution() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    generator = torch.Generator().manual_seed(0)

    def frequencies(top_k: int | None, top_p: float, temperature: float = 1.0) -> list[float]:
        draws = [choose(logits, temperature, top_k, top_p, generator) for _ in range(4000)]
        return [draws.count(token) / 4000 for token in range(4)]

    assert frequencies(None, 1.0) == pytest.approx(torch.softmax(logits, 0).tolist(), abs=0.03)
    assert frequencies(None, 1.0, 0.5) == pytest.approx(torch.softmax(logits / 0.5, 0).tolist(), abs=0.03)
    assert frequencies(2, 1.0) == pytest.approx([*torch.softmax(logits[:2], 0).tolist(), 0, 0], abs=0.03)
    # 0.64 of the probability lies on the first, 0.88 on two: 0.7 keeps both, 0.6 only one.
    assert frequencies(None, 0.7)[2:] == [0, 0] and frequencies(None, 0.7)[1] > 0.2
    assert frequencies(None, 0.6) == [1, 0, 0, 0]
    assert choose(logits, 0.0, None, 1.0, None) == 0


@given(text=st.text(min_size=1, max_size=60))
def test_streamed_pieces_make_up_the_decoded_text(loaded: LoadedModel, text: str) -> None:
    ids = loaded.tokenizer.processor.encode(text, add_special_tokens=False).ids
    pieces = list(stream_text(loaded.tokenizer, ids))
    assert "".join(pieces) == loaded.tokenizer.decode(torch.tensor(ids))
    assert all(pieces)


def test_a_stop_string_ends_its_text_alone_and_is_never_shown(loaded: LoadedModel) -> None:
    config = GenerateConfig(prompts=["One day", "A fox"], max_new_tokens=40, seed=5)
    free = generate(config, loaded=loaded)
    new = free[0].removeprefix("One day")
    stop = new[len(new) // 2 :][:5]  # over the boundaries of tokens
    shown: list[str] = []
    stopped = generate(replace(config, stop=["never said", stop]), shown.append, loaded)
    assert stopped[0] == "One day" + new[: new.index(stop)]
    assert stopped[1].startswith("A fox") and (stop in free[1] or stopped[1] == free[1])
    assert "".join(shown) == "\n---\n".join(stopped) + "\n"
    assert loaded.model.mask_cache is None


def test_a_prompt_from_a_file_is_the_prompt(loaded: LoadedModel, tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    for content in (b"One day\r\na fox\r\n", "One day\na fox\n".encode("utf-16")):
        path.write_bytes(content)
        assert generate(
            GenerateConfig(prompt_file=path, max_new_tokens=9, temperature=0), loaded=loaded
        ) == generate(GenerateConfig(prompt="One day\na fox", max_new_tokens=9, temperature=0), loaded=loaded)
    path.write_bytes(b"caf\xe9 au lait")
    with pytest.raises(DataError, match=r"prompt.txt is not UTF-8"):
        generate(GenerateConfig(prompt_file=path), loaded=loaded)
    with pytest.raises(DataError, match=r"nowhere.txt"):
        generate(GenerateConfig(prompt_file=tmp_path / "nowhere.txt"), loaded=loaded)


def test_nothing_is_cut_or_without_effect_in_silence(loaded: LoadedModel) -> None:
    said: list[str] = []
    prompts = ["One day", "A fox"]
    config = GenerateConfig(prompts=prompts, max_new_tokens=500, top_k=1000, seed=1)
    generate(config, loaded=replace(loaded, tokenizer=without_end(loaded.tokenizer)), say=said.append)
    assert "--top-k 1000: the vocabulary has only 512 tokens" in said[0]
    assert "the context of 64 tokens" in said[1] and "2 of 2 texts before --max-new-tokens 500" in said[1]
    said.clear()
    generate(GenerateConfig(prompts=prompts, max_new_tokens=5), loaded=loaded, say=said.append)
    assert len(said) == 1 and "10 tokens in" in said[0]
    with pytest.raises(ConfigError, match=r"the prompt has \d+ tokens, the model's context only 64: shorten"):
        generate(GenerateConfig(prompt="word " * 80), loaded=loaded)


def without_end(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with an end token that no model writes."""
    other = copy(tokenizer)
    other.eos_id = 10**6
    return other


def test_weights_that_have_diverged_are_one_line(loaded: LoadedModel) -> None:
    model = deepcopy(loaded.model)
    model.lm_head.weight.data.fill_(float("nan"))
    for temperature in (0.0, 1.0):
        config = GenerateConfig(prompt="One day", temperature=temperature)
        with pytest.raises(CheckpointError, match="diverged"):
            generate(config, loaded=replace(loaded, model=model))
    with pytest.raises(CheckpointError, match="diverged"):
        evaluate(EvaluateConfig(progress=False), replace(loaded, model=model))


def test_a_temperature_next_to_zero_takes_the_likeliest(loaded: LoadedModel) -> None:
    texts = [
        generate(GenerateConfig(prompt="One day", temperature=t, max_new_tokens=20), loaded=loaded)
        for t in (0.0, 1e-45, 1e-9)
    ]
    assert texts[0] == texts[1] == texts[2]


def test_a_llama_type_model_writes_its_spaces(corpus: Path, tmp_path: Path) -> None:
    """In ``generate`` and in the samples of training: a space between the prompt and the word that follows."""
    copy_tokenizer(llama_tokenizer(tmp_path / "source"), tmp_path / "tokenizer")
    text = tmp_path / "data" / "train"
    text.mkdir(parents=True)
    (text / "a.txt").write_text("\n<|endoftext|>\n".join(["Tom the lily red"] * 400), encoding="utf-8")
    (text / "b.txt").write_text("\n<|endoftext|>\n".join(["Tom red lily"] * 40), encoding="utf-8")
    settings = run_settings(tmp_path / "data", tmp_path / "out", num_workers=0) | {
        "tokenizer_dir": str(tmp_path / "tokenizer"),
        "train": {"max_steps": 30, "global_batch_size": 8, "micro_batch_size": 8, "save_interval": None},
        "optimizer": {"class_path": "AdamW", "init_args": {"lr": 0.01}},
        "sample": {"final": 1, "prompts": ["Tom"], "temperature": 0, "max_new_tokens": 3},
    }
    said: list[str] = []
    result = train(parse(TrainConfig, [], settings), say=said.append)
    config = GenerateConfig(
        checkpoint=result.checkpoint, prompt="Tom", temperature=0, max_new_tokens=3, accelerator="cpu"
    )
    (written,) = generate(config)
    assert written in ("Tom the lily red", "Tom red lily")
    assert written in "\n".join(said)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": 0}, "--top-k must be"),
        ({"top_p": 0.0}, "--top-p must be"),
        ({"temperature": -1.0}, "--temperature must be"),
        ({"max_new_tokens": 0}, "--max-new-tokens must be"),
        ({"prompt": "a", "prompts": ["b"]}, "--prompt has no effect"),
        ({"prompts": ["b"], "prompt_file": Path("x")}, "--prompts has no effect with --prompt-file"),
        ({"temperature": float("nan")}, "--temperature must be"),
        ({"seed": 2**63}, "--seed must be"),
        ({"stop": ["a", ""]}, "--stop must be"),
        ({"checkpoint": Path("nowhere")}, "no such checkpoint folder"),
        ({"checkpoint": Path(__file__).parent}, "holds no valid checkpoint"),
    ],
)
def test_what_cannot_work_is_one_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises(LitMoEError, match=message):
        generate(GenerateConfig(**settings))  # type: ignore[arg-type]

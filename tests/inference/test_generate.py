from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from litmoe.config import GenerateConfig
from litmoe.errors import LitMoEError
from litmoe.inference.decode import choose, decode, decode_together, encode_prompt
from litmoe.inference.generate import generate, stream_text
from litmoe.inference.loading import LoadedModel, load_checkpoint


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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": 0}, "--top_k must be"),
        ({"top_p": 0.0}, "--top_p must be"),
        ({"temperature": -1.0}, "--temperature must be"),
        ({"max_new_tokens": 0}, "--max_new_tokens must be"),
        ({"prompt": "a", "prompts": ["b"]}, "--prompt has no effect"),
        ({"checkpoint": Path("nowhere")}, "no such checkpoint folder"),
        ({"checkpoint": Path(__file__).parent}, "holds no valid checkpoint"),
    ],
)
def test_what_cannot_work_is_one_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises(LitMoEError, match=message):
        generate(GenerateConfig(**settings))  # type: ignore[arg-type]

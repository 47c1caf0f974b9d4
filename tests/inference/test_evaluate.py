import gzip
import json
import math
import re
from pathlib import Path
from shutil import copytree

import pytest
import torch
import torch.nn.functional as F

from litmoe.cli.main import main
from litmoe.config import EvaluateConfig
from litmoe.data.token_store import TokenStore
from litmoe.errors import DataError, LitMoEError
from litmoe.inference.evaluate import evaluate, table
from litmoe.inference.loading import load_checkpoint


def quiet(**settings: object) -> EvaluateConfig:
    return EvaluateConfig(progress=False, accelerator="cpu", **settings)  # type: ignore[arg-type]


def test_every_token_is_measured_once(trained: Path, corpus: Path) -> None:
    """Against a plain loop over windows with LitGPT's model and torch's cross-entropy."""
    import litgpt

    result = evaluate(quiet(checkpoint=trained))
    store = TokenStore.open(corpus / "val" / "val")
    model = litgpt.GPT(litgpt.Config.from_file(trained / "model_config.yaml"))
    model.load_state_dict(torch.load(trained / "lit_model.pth", weights_only=True))
    text = [store.eos_id, *store.tokens.tolist()]
    nats = 0.0
    for first in range(0, len(text) - 1, 64):
        window = torch.tensor(text[first : first + 65])
        with torch.no_grad():
            nats += F.cross_entropy(model(window[None, :-1])[0], window[1:], reduction="sum").item()
    assert result.tokens == len(text) - 1 == store.n_tokens
    assert result.loss == pytest.approx(nats / store.n_tokens, rel=1e-5)
    assert result.perplexity == pytest.approx(math.exp(result.loss))
    files = [path.read_bytes() for path in (corpus / "val").glob("*.txt")]
    n_bytes = sum(len(document.strip()) for file in files for document in file.split(b"<|endoftext|>"))
    assert result.bytes == n_bytes
    assert result.bits_per_byte == pytest.approx(nats / math.log(2) / n_bytes, rel=1e-5)
    assert all(sum(load) == pytest.approx(1) for load in result.expert_load) and len(result.expert_load) == 2


def test_batches_and_places_do_not_matter(trained: Path, corpus: Path, tmp_path: Path) -> None:
    expected = evaluate(quiet(checkpoint=trained))
    assert evaluate(quiet(checkpoint=trained, batch_size=1)).loss == pytest.approx(expected.loss, rel=1e-6)
    copytree(corpus / "val", tmp_path / "text")
    (shard,) = (tmp_path / "text").glob("*.txt")
    before = sorted(tmp_path.rglob("*"))
    for data in (corpus, tmp_path / "text", shard):
        assert evaluate(quiet(checkpoint=trained, data=data)).loss == pytest.approx(expected.loss, rel=1e-6)
    assert sorted(tmp_path.rglob("*")) == before  # nothing is left beside the user's text
    assert evaluate(quiet(checkpoint=trained, max_seq_length=16)).loss > expected.loss


def test_the_figures_are_returned_shown_and_written(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = evaluate(quiet(checkpoint=trained, json=tmp_path / "figures.json"))
    assert capsys.readouterr().out == ""  # a function says only what it is asked to
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["loss"] == result.loss and written["expert_load"] == result.expert_load
    assert f"{result.bits_per_byte:.4f}" in table(result)
    assert (
        main(["evaluate", "--checkpoint", str(trained), "--progress", "false", "--accelerator", "cpu"]) == 0
    )
    assert capsys.readouterr().out.endswith(f"{table(result)}\n")


def test_the_same_documents_in_any_form_give_the_same_figures(trained: Path, tmp_path: Path) -> None:
    documents = ["Once upon a time, a fox.", "The end <|endoftext|> is not the end.", "One day, an owl."]
    lines = [json.dumps({"text": document, "title": "other text"}) for document in documents]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "b.json").write_text(f"[{','.join(lines)}]", encoding="utf-8")
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    renamed = [line.replace('"text"', '"body"') for line in lines]
    (tmp_path / "d.jsonl").write_text("\n".join(renamed), encoding="utf-8")
    figures = [
        evaluate(quiet(checkpoint=trained, data=tmp_path / name, **options))
        for name, options in (
            ("a.jsonl", {}),
            ("b.json", {}),
            ("c.jsonl.gz", {}),
            ("d.jsonl", {"text_field": "body"}),
        )
    ]
    assert len({figure.loss for figure in figures}) == 1
    assert figures[0].documents == 3 and figures[0].bytes == sum(map(len, documents))
    assert [Path(figure.data).name for figure in figures] == ["a.jsonl", "b.json", "c.jsonl.gz", "d.jsonl"]
    with pytest.raises(DataError, match=re.escape(str(tmp_path / "d.jsonl"))):
        evaluate(quiet(checkpoint=trained, data=tmp_path / "d.jsonl"))


def test_what_is_left_out_of_a_folder_is_said(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Once upon a time, a fox.", encoding="utf-8")
    (tmp_path / "b.pdf").write_bytes(b"%PDF-1.4")
    said: list[str] = []
    evaluate(quiet(checkpoint=trained, data=tmp_path), say=said.append)
    assert any("b.pdf" in line for line in said)


def test_training_and_evaluation_agree(trained: Path) -> None:
    """The run validated on nearly all windows: the same text but for the tail and the first token."""
    from litmoe import checkpoint

    state = checkpoint.load_trainer(trained)["state"]
    assert evaluate(quiet(checkpoint=trained)).loss == pytest.approx(state["val_loss"], rel=0.01)


def test_what_cannot_work_is_one_line(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(b"caf\xe9 au lait")
    (tmp_path / "empty.txt").write_bytes(b"")
    for settings, message in (
        ({"data": tmp_path / "nowhere"}, "no such file"),
        ({"data": tmp_path / "bad.txt"}, "UTF-8"),
        ({"data": tmp_path / "empty.txt"}, "empty"),
        ({"max_seq_length": 65}, "block_size 64"),
        ({"batch_size": 0}, "--batch-size"),
        ({"json": tmp_path / "no" / "x.json"}, "cannot be written"),
        ({"text_field": "body"}, "--text-field has no effect without --data"),
    ):
        with pytest.raises(LitMoEError, match=message) as error:
            evaluate(quiet(checkpoint=trained, **settings))
        assert "\n" not in str(error.value)


def test_a_checkpoint_loads_as_a_model(trained: Path) -> None:
    loaded = load_checkpoint(trained.parent, "cpu")  # the run's folder stands for its newest checkpoint
    assert loaded.folder == trained and not loaded.model.training
    assert loaded.settings["seed"] == 42

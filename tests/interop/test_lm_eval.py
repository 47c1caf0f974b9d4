"""lm-eval on a task that is defined here, by our command and by LitGPT's."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import log_softmax

from litmoe.errors import LitMoEError
from litmoe.inference.loading import load_checkpoint
from litmoe.interop.lm_eval import evaluate_tasks

lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed (extra: eval)")

QUESTIONS = [
    {"question": "Once upon a", "choices": [" time", " dog", " house"], "answer": 0},
    {"question": "The little girl was very", "choices": [" happy", " of", "."], "answer": 0},
    {"question": "He went to the", "choices": [" and", " park", " was"], "answer": 1},
    {"question": "They", "choices": [" the", " were", ","], "answer": 1},
    {"question": "She said", "choices": [" x", " to", ","], "answer": 2},
]


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A multiple-choice task with its data, both local."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    file = tmp_path / "words.yaml"
    file.write_text(
        "task: litmoe_words\n"
        "dataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: '{data.as_posix()}'}}}}\n"
        "test_split: test\n"
        "output_type: multiple_choice\n"
        "doc_to_text: '{{question}}'\n"
        "doc_to_choice: choices\n"
        "doc_to_target: answer\n"
        "target_delimiter: ''\n"
        "metric_list:\n"
        "- metric: acc\n"
    )
    return file


def ours(folder: Path) -> float:
    """The same task by hand: how often the right choice is the likeliest."""
    loaded = load_checkpoint(folder, "cpu")
    right = 0
    for item in QUESTIONS:
        scores = []
        for choice in item["choices"]:  # type: ignore[attr-defined]
            prompt = loaded.tokenizer.encode(str(item["question"]))
            ids = torch.cat([prompt, loaded.tokenizer.encode(choice, bos=False)]).long()
            with torch.no_grad():
                scores_TV = log_softmax(loaded.model(ids[None, :-1])[0], dim=-1)
            steps = range(len(prompt) - 1, len(ids) - 1)
            scores.append(sum(scores_TV[step, ids[step + 1]].item() for step in steps))
        right += scores.index(max(scores)) == item["answer"]
    return right / len(QUESTIONS)


def test_a_local_task(trained: Path, task: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    results = evaluate_tasks(
        trained, [str(task)], accelerator="cpu", json_file=tmp_path / "new" / "results.json"
    )
    assert results["litmoe_words"]["acc"] == pytest.approx(ours(trained))
    assert json.loads((tmp_path / "new" / "results.json").read_text()) == results
    assert "\r" not in capfd.readouterr().err  # no bars in a pipe


def test_a_place_for_results_that_cannot_be_written_is_found_before_any_work(
    trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path, tmp_path / "file" / "a.json"):
        with pytest.raises(LitMoEError, match="cannot be written: "):
            evaluate_tasks(trained, ["no such task"], json_file=place)


def test_mistakes_are_one_line(trained: Path, task: Path, tmp_path: Path) -> None:
    for tasks, message in (
        (["helaswag"], "did you mean hellaswag"),
        ([str(tmp_path / "no.yaml")], "cannot be read"),
    ):
        with pytest.raises(LitMoEError, match=message):
            evaluate_tasks(trained, tasks, say=lambda _: None)
    (tmp_path / "questions.jsonl").unlink()
    with pytest.raises(LitMoEError, match="lm-eval: litmoe_words") as caught:
        evaluate_tasks(trained, [str(task)], accelerator="cpu", say=lambda _: None)
    assert "\n" not in str(caught.value)


def test_litgpt_evaluates_our_checkpoint(
    trained: Path, task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is: LitGPT's command wants Transformers' config.json in the folder."""
    import functools

    from litgpt.eval.evaluate import convert_and_evaluate

    # LitGPT has no option for tasks of one's own: tell lm-eval where to look.
    manager = functools.partial(lm_eval.tasks.TaskManager, include_path=str(tmp_path), include_defaults=False)
    monkeypatch.setattr("lm_eval.evaluator.TaskManager", manager)
    convert_and_evaluate(trained, tasks="litmoe_words", out_dir=tmp_path / "out", device="cpu", batch_size=1)
    results = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    assert 0 <= results["litmoe_words"]["acc,none"] <= 1


def test_without_lm_eval_the_extra_is_named(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(LitMoEError, match=r"litmoe\[eval\]"):
        evaluate_tasks(trained, ["hellaswag"], say=lambda _: None)

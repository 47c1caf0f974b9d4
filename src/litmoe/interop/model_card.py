"""The README.md of an exported model: what it is and how it came to be, for the Hugging Face hub."""

from litgpt import Config

from litmoe.interop.training_facts import TrainingFacts, section
from litmoe.model.flops import num_active_params, num_params
from litmoe.version import __version__

_USE = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("PATH_OR_HUB_ID")
tokenizer = AutoTokenizer.from_pretrained("PATH_OR_HUB_ID")
inputs = tokenizer("Once upon a time", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=50)[0]))
```
"""


def model_card(config: Config, facts: TrainingFacts, tied: bool) -> str:
    """Markdown with the hub's header; only what is known is said."""
    name = config.name or "litmoe-model"
    shared = config.padded_vocab_size * config.n_embd if tied else 0
    model = {
        "parameters": f"{num_params(config) - shared:,}",
        "active per token": f"{num_active_params(config) - shared:,}",
        "layers": config.n_layer,
        "width": config.n_embd,
        "attention": f"{config.n_head} heads, {config.n_query_groups} key-value groups",
        "experts": f"{config.n_expert} per layer, {config.n_expert_per_token} per token",
        "vocabulary": f"{config.vocab_size:,}",
        "context": f"{config.block_size:,} tokens",
    }
    training = _training(facts)
    origin = "pretrained from scratch with" if facts.step else "exported by"
    parts = [
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- mixtral\n- moe\n- litmoe\n---\n",
        f"# {name}\n",
        f"A Mixture-of-Experts language model of the Mixtral architecture, {origin} litmoe {__version__}.\n",
        "## Model\n",
        _table(model),
    ]
    if training:
        parts += ["## Training\n", _table(training)]
    return "\n".join([*parts, "## Use\n", _USE])


def _training(facts: TrainingFacts) -> dict[str, object]:
    settings, metrics = facts.settings, facts.metrics
    train, moe = section(settings, "train"), section(settings, "moe")
    optimizer = section(settings, "optimizer")
    optimizer_text = str(optimizer.get("class_path", "")).rpartition(".")[2]
    if "lr" in section(optimizer, "init_args"):
        optimizer_text += f", learning rate {section(optimizer, 'init_args')['lr']}"
    known: dict[str, object] = {
        "steps": f"{facts.step:,}" if facts.step else None,
        "tokens": f"{facts.tokens:,}" if facts.tokens else None,
        "windows per step": train.get("global_batch_size"),
        "tokens per window": train.get("max_seq_length"),
        "optimizer": optimizer_text or None,
        "schedule": section(settings, "schedule").get("name"),
        "expert balance": moe.get("balance"),
        "precision": settings.get("precision"),
        "seed": settings.get("seed"),
        "training loss": _rounded(metrics.get("train_loss")),
        "validation loss": _rounded(metrics.get("val_loss")),
        "validation bits per byte": _rounded(metrics.get("val_bits_per_byte")),
        "imported from": settings.get("imported_from"),
    }
    return {name: value for name, value in known.items() if value is not None}


def _rounded(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _table(rows: dict[str, object]) -> str:
    return (
        "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]) + "\n"
    )

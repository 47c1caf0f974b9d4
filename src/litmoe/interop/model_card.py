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


_TRAIN = """\
## Train on

The experts were balanced by a Switch loss with coefficient {coefficient:g}. Transformers adds it
(`router_aux_loss_coef`) to the loss of a model that returns its router's logits; while it generates, it must not:

```python
model = AutoModelForCausalLM.from_pretrained("PATH_OR_HUB_ID", output_router_logits=True)
```
"""


def model_card(
    config: Config, facts: TrainingFacts, tied: bool, router_aux_loss_coef: float | None = None
) -> str:
    """The card in Markdown, with the hub's header. Facts that are not known are left out.

    Args:
        config: the model.
        facts: of its training.
        tied: whether the token embedding is the language-model head too.
        router_aux_loss_coef: of the balance loss, as Transformers counts it; None or 0: none that is known.
    """
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
    parts += ["## Use\n", _USE]
    if router_aux_loss_coef:
        parts.append(_TRAIN.format(coefficient=router_aux_loss_coef * config.n_expert_per_token))
    return "\n".join(parts)


def _training(facts: TrainingFacts) -> dict[str, object]:
    settings, metrics = facts.settings, facts.metrics
    train, moe = section(settings, "train"), section(settings, "moe")
    optimizer = section(settings, "optimizer")
    arguments = {"learning rate" if k == "lr" else k: v for k, v in section(optimizer, "init_args").items()}
    optimizer_text = str(optimizer.get("class_path", "")).rpartition(".")[2]
    optimizer_text += "".join(f", {name} {value}" for name, value in arguments.items())
    known: dict[str, object] = {
        "steps": f"{facts.step:,}" if facts.step else None,
        "tokens": f"{facts.tokens:,}" if facts.tokens else None,
        "windows per step": train.get("global_batch_size"),
        "tokens per window": train.get("max_seq_length"),
        "optimizer": optimizer_text or None,
        "gradient clipping": train.get("max_norm"),
        "schedule": _schedule(settings),
        "expert balance": _balance(moe),
        "router z-loss coefficient": moe.get("z_coefficient") or None,
        "head z-loss coefficient": settings.get("head_z_coefficient") or None,
        "precision": settings.get("precision"),
        "seed": settings.get("seed"),
        "training loss": _rounded(metrics.get("train_loss")),
        "validation loss": _rounded(metrics.get("val_loss")),
        "validation bits per byte": _rounded(metrics.get("val_bits_per_byte")),
        "imported from": settings.get("imported_from"),
    }
    return {name: value for name, value in known.items() if value is not None}


def _schedule(settings: dict[str, object]) -> str | None:
    """Warm-up, shape and end of the learning rate."""
    schedule, train = section(settings, "schedule"), section(settings, "train")
    if "name" not in schedule:
        return None
    text = str(schedule["name"])
    if steps := train.get("lr_warmup_steps"):
        text += f", warm-up over {steps} steps"
    elif fraction := train.get("lr_warmup_fraction"):
        text += f", warm-up over {fraction} of an epoch"
    if schedule["name"] == "wsd" and "decay_fraction" in schedule:
        text += f", decay over the last {schedule['decay_fraction']} of the run"
    if schedule["name"] != "constant" and train.get("min_lr") is not None:
        text += f", down to {train['min_lr']}"
    return text


def _balance(moe: dict[str, object]) -> str | None:
    """How the experts were balanced, and how strongly."""
    balance = moe.get("balance")
    strength = {"switch": "switch_coefficient", "bias": "bias_update_speed"}.get(str(balance))
    if strength is None or moe.get(strength) is None:
        return None if balance is None else str(balance)
    return f"{balance}, {strength.partition('_')[2].replace('_', ' ')} {moe[strength]}"


def _rounded(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _table(rows: dict[str, object]) -> str:
    return (
        "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]) + "\n"
    )

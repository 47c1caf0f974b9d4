"""A model that trains in seconds."""

from pathlib import Path
from typing import Any

MODEL = {
    "name": "MoE-test",
    "block_size": 64,
    "vocab_size": 512,
    "padded_vocab_size": 512,
    "n_layer": 2,
    "n_embd": 32,
    "n_head": 4,
    "n_query_groups": 2,
    "mlp_class_name": "LLaMAMoE",
    "n_expert": 4,
    "n_expert_per_token": 2,
    "intermediate_size": 48,
    "moe_intermediate_size": 48,
    "norm_class_name": "RMSNorm",
    "bias": False,
    "parallel_residual": False,
    "rotary_percentage": 1.0,
}


def run_settings(corpus: Path, out_dir: Path, num_workers: int) -> dict[str, Any]:
    """The training settings for that model on a prepared corpus and the CPU."""
    return {
        "model_config": MODEL,
        "out_dir": str(out_dir),
        "precision": "32-true",
        "accelerator": "cpu",
        "tokenizer_dir": str(corpus / "tokenizer"),
        "data": {
            "class_path": "litmoe.data.TextFiles",
            "init_args": {
                "train_data_path": str(corpus / "train"),
                "val_data_path": str(corpus / "val"),
                "num_workers": num_workers,
            },
        },
    }

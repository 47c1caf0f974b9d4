"""A model that trains in seconds."""

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

"""Parameters and floating-point operations of a model, from its configuration alone, without torch.

All counts are exact for `litmoe.model.gpt.GPT`, with embedding and head untied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from litgpt import Config


def num_params(config: Config) -> int:
    """All parameters."""
    vocabulary, width = config.padded_vocab_size, config.n_embd
    head_bias = vocabulary if config.lm_head_bias else 0
    layers = sum(
        _attention_matrices(config)
        + _mlp_matrices(config, layer, config.n_expert)
        + _layer_vectors(config, layer)
        for layer in range(config.n_layer)
    )
    return 2 * vocabulary * width + head_bias + layers + _norm(config, width)


def num_active_params(config: Config) -> int:
    """Parameters that one token meets, both embedding matrices included."""
    idle = config.n_expert - config.n_expert_per_token
    return num_params(config) - _num_moe_layers(config) * idle * _expert(config)


def num_active_matmul_params(config: Config) -> int:
    """Parameters in the matrix products of one token.

    Without the input embedding, which is a look-up, and without norms and biases.
    """
    layers = sum(
        _attention_matrices(config) + _mlp_matrices(config, layer, config.n_expert_per_token)
        for layer in range(config.n_layer)
    )
    return config.padded_vocab_size * config.n_embd + layers


def flops_per_token(config: Config, seq_length: int) -> int:
    """Forward and backward, by the convention of PaLM (arXiv 2204.02311, appendix B).

    6 per active parameter in matrix products, and `12 * n_layer * n_head * head_size * seq_length` for the two
    products of attention, counted in full: a causal mask or a sliding window does not reduce it, and recomputation
    does not add to it.
    """
    if config.latent_attention:
        query_key, value = config.qk_head_dim, config.v_head_dim
    else:
        query_key = value = config.head_size
    attention = 6 * config.n_layer * config.n_head * (query_key + value) * seq_length
    return 6 * num_active_matmul_params(config) + attention


def _is_moe(config: Config, layer: int) -> bool:
    return config.mlp_class_name == "LLaMAMoE" and layer >= (config.first_k_dense_replace or 0)


def _num_moe_layers(config: Config) -> int:
    return sum(_is_moe(config, layer) for layer in range(config.n_layer))


def _expert(config: Config) -> int:
    return 3 * config.n_embd * (config.moe_intermediate_size or config.intermediate_size)


def _attention_matrices(config: Config) -> int:
    D, H = config.n_embd, config.n_head
    if config.latent_attention:
        query = (D + H * config.qk_head_dim) * config.q_lora_rank
        compress = D * (config.kv_lora_rank + config.qk_rope_head_dim)
        expand = config.kv_lora_rank * config.n_query_groups * (config.qk_nope_head_dim + config.v_head_dim)
        return query + compress + expand + H * config.v_head_dim * D
    return D * _qkv(config) + D * H * config.head_size


def _mlp_matrices(config: Config, layer: int, experts: int) -> int:
    """Weights of the MLP of a layer, with `experts` of the routed experts where it is an MoE layer."""
    if _is_moe(config, layer):
        shared = config.n_shared_expert or 0
        return config.n_expert * config.n_embd + (experts + shared) * _expert(config)
    return (2 if config.mlp_class_name == "GptNeoxMLP" else 3) * config.n_embd * config.intermediate_size


def _layer_vectors(config: Config, layer: int) -> int:
    """Norms and biases of a layer."""
    D = config.n_embd
    norms = [config.norm_1, config.norm_2 and not config.shared_attention_norm]
    norms += [config.post_attention_norm, config.post_mlp_norm]
    total = sum(norms) * _norm(config, D)
    if config.latent_attention:
        total += config.q_lora_rank + config.kv_lora_rank  # always an RMSNorm
        if config.attn_bias:
            total += config.q_lora_rank + config.kv_lora_rank + config.qk_rope_head_dim
        if config.bias:
            heads = config.n_query_groups * (config.qk_nope_head_dim + config.v_head_dim)
            total += config.n_head * config.qk_head_dim + heads + D
    else:
        if config.norm_qk:
            per_head = config.norm_qk_type != "olmo2"
            heads = 2 if per_head else config.n_head + config.n_query_groups
            total += (
                2 * _norm(config, config.head_size) if per_head else _norm(config, heads * config.head_size)
            )
        if config.bias or config.attn_bias:
            total += _qkv(config)
        if config.bias:
            total += D
    if config.bias and not _is_moe(config, layer):
        inner = 1 if config.mlp_class_name == "GptNeoxMLP" else 2
        total += inner * config.intermediate_size + D
    return total


def _qkv(config: Config) -> int:
    """Rows of the query, key and value projection."""
    return (config.n_head + 2 * config.n_query_groups) * config.head_size


def _norm(config: Config, size: int) -> int:
    """Parameters of a norm over `size` features."""
    if config.norm_class_name == "RMSNorm":
        return size
    return 0 if "OLMo" in config.name else 2 * size

"""Weights before the first step: a pure function of the seed."""

import math

import torch
from litgpt.model import CausalSelfAttention, LLaMAMLP
from torch import Tensor, nn

from litmoe.model.gpt import GPT
from litmoe.model.moe.experts import Experts


@torch.no_grad()
def initialize(model: GPT, seed: int) -> None:
    """Draw all weights as `litgpt pretrain` does (GPT-NeoX, arXiv 2204.06745), in place.

    Matrices, including the router, are normal with variance 2/(5 n_embd); those that write to the residual
    stream (the `proj` of attention and of gated MLPs) have standard deviation 1/(n_layer sqrt(n_embd)). Norms
    are 1, biases and correction biases 0.

    One generator on the CPU draws in fp32, parameter by parameter in the order of the model's names, so that
    neither device nor type changes a draw. About 10 ns per parameter. Call it before a model is sharded.
    """
    config = model.config
    std = math.sqrt(2 / (5 * config.n_embd))
    std_out = 1 / math.sqrt(config.n_embd) / config.n_layer
    outputs = {id(weight) for module in model.modules() for weight in _output_weights(module)}
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            draw = torch.empty(parameter.shape, dtype=torch.float32)
            draw.normal_(0.0, std_out if id(parameter) in outputs else std, generator=generator)
            parameter.copy_(draw)
        else:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.zero_()
    model.reset_parameters()  # the rotary tables, which a model from the meta device has no values for


def _output_weights(module: nn.Module) -> list[Tensor]:
    if isinstance(module, CausalSelfAttention | LLaMAMLP):
        return [module.proj.weight]
    if isinstance(module, Experts):
        return [module.w2_EDI]
    return []

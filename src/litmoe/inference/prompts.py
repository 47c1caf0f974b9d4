"""Prompts as token ids."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from litmoe.data.plain_text import PlainText

if TYPE_CHECKING:
    from litgpt import Tokenizer

    from litmoe.data.tokenizer_folder import TextTokenizer


def encode_prompt(
    tokenizer: "Tokenizer | TextTokenizer", prompt: str, *, allow_special: bool = False
) -> Tensor:
    """A prompt's token ids after the begin-of-text token, (T,), int64.

    The text is encoded as the text of a document is: special tokens that stand in it, such as
    ``<|endoftext|>``, are the characters they are written in.

    Args:
        tokenizer: its begin token comes first, where it has one.
        prompt: any text; an empty one starts a new document.
        allow_special: encode special tokens in the text as what they stand for.
    """
    processor = tokenizer.processor
    before = processor.encode_special_tokens
    processor.encode_special_tokens = not allow_special
    try:
        ids = processor.encode(prompt, add_special_tokens=False).ids
        if not allow_special:
            ids = PlainText(processor, tokenizer.eos_id).plain(prompt, ids)
    finally:
        processor.encode_special_tokens = before
    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    return torch.tensor(begin + ids, dtype=torch.long)

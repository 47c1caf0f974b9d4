"""The model: LitGPT's GPT with litmoe's expert layer and losses."""

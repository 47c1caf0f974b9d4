"""The model: LitGPT's GPT with our expert layer and losses."""

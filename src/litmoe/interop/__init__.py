"""At home in the ecosystem: Hugging Face, LitGPT, Weights & Biases, llama.cpp, lm-eval."""

"""The kinds of tokenizers that llama.cpp has."""

"""Hugging Face folders as what llama.cpp loads: names, rows, metadata and tokenizers."""

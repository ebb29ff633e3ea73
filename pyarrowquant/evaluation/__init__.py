"""How well quantized language models predict text."""

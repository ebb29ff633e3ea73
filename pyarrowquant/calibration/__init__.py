"""How large the inputs of a model's layers are, measured by running it on text."""

"""Which layer is quantized how: rules, recipes, presets, and fitting to a budget."""

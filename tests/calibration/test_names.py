"""Parameters of transformers by the names that folders have for them."""

from __future__ import annotations

import pytest

from pyarrowquant.calibration.names import FolderName, folder_names

LAYER = "model.layers.1."


@pytest.mark.parametrize(
    ("parameter", "tensors", "expected"),
    [
        ("a.weight", ["a.weight", "b.a.weight"], [("a.weight", None)]),
        ("bert.encoder.layer.0.x.weight", ["encoder.layer.0.x.weight"], "encoder.layer.0.x.weight"),
        ("layers.0.x.weight", ["model.layers.0.x.weight"], "model.layers.0.x.weight"),
        (
            "model.language_model.layers.0.x.weight",
            ["language_model.model.layers.0.x.weight", "vision.layers.1.x.weight"],
            "language_model.model.layers.0.x.weight",
        ),
        (  # as of Gemma 3, whose part that sees has layers of the same names
            "model.language_model.layers.0.x.weight",
            ["vision_tower.layers.0.x.weight", "language_model.model.layers.0.x.weight"],
            "language_model.model.layers.0.x.weight",
        ),
        ("layers.0.x.weight", ["a.layers.0.x.weight", "b.layers.0.x.weight"], []),
        ("model.layers.0.x.weight", ["model.layers.10.x.weight"], []),
        (
            f"{LAYER}mlp.experts.gate_up_proj",
            [
                f"{LAYER}mlp.experts.0.gate_proj.weight",
                f"{LAYER}mlp.experts.1.up_proj.weight",
                f"{LAYER}mlp.experts.1.down_proj.weight",
                "model.layers.11.mlp.experts.0.gate_proj.weight",
            ],
            [
                (f"{LAYER}mlp.experts.0.gate_proj.weight", 0),
                (f"{LAYER}mlp.experts.1.up_proj.weight", 1),
            ],
        ),
        (
            f"{LAYER}mlp.experts.down_proj",
            [f"{LAYER}block_sparse_moe.experts.3.w{i}.weight" for i in (1, 2, 3)],
            [(f"{LAYER}block_sparse_moe.experts.3.w2.weight", 3)],
        ),
    ],
)
def test_names(
    parameter: str, tensors: list[str], expected: str | list[tuple[str, int | None]]
) -> None:
    wanted = [(expected, None)] if isinstance(expected, str) else expected
    assert folder_names(parameter, tensors) == [FolderName(*each) for each in wanted]

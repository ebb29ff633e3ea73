"""Modules that config.json says have no codes, and blocks of FP8 that are none."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from kinds_of_codes import (
    EXPERTS,
    FIRST,
    FP8,
    MLX,
    SECOND,
    Tensors,
    float_quantized,
    fp8,
    gpt_oss,
    groups,
    int8,
    mlx,
    model,
    nf4,
    nvfp4,
    packed,
)
from quantized_models import assert_same, folder, read

import pyarrowquant

MODULE = FIRST.removesuffix(".weight")
CONVERTED, SKIPPED = "modules_to_not_convert", "llm_int8_skip_modules"
BITSANDBYTES: dict[str, Any] = {"quantization_config": {"quant_method": "bitsandbytes"}}
COMPRESSED = groups()


def saying(config: dict[str, Any], **more: Any) -> dict[str, Any]:
    ((key, said),) = config.items()
    return {key: {**said, **more}}


@pytest.mark.parametrize(
    ("kind", "config", "key", "entry"),
    [
        (packed, COMPRESSED, "ignore", MODULE),
        (packed, COMPRESSED, "ignore", "re:.*layers.0.*"),
        (int8, COMPRESSED, "ignore", MODULE),
        (float_quantized, COMPRESSED, "ignore", "re:model.*up$"),
        (nvfp4, COMPRESSED, "ignore", MODULE),
        (nf4, BITSANDBYTES, SKIPPED, MODULE),
        (nf4, BITSANDBYTES, SKIPPED, "model.layers.0"),
    ],
)
def test_codes_of_a_module_that_has_none(
    tmp_path: Path,
    kind: Callable[[str], Tensors],
    config: dict[str, Any],
    key: str,
    entry: str,
) -> None:
    place = model(tmp_path / "wrong", kind, saying(config, **{key: ["lm_head", entry]}), {})
    with pytest.raises(ValueError, match="Fetch the files again") as caught:
        pyarrowquant.read_weights(place)
    error = str(caught.value)
    assert error.startswith(f"{place}/model.safetensors: '{FIRST}")
    assert f"config.json says that it has none: {key} '{entry}'" in error
    assert len(error.splitlines()) == 1
    loaded = saying(config, **{key: [entry]}, dequantize=True)  # whatever modules are said
    assert read(model(tmp_path / "right", kind, loaded, {})).keys() == {FIRST, SECOND}


@pytest.mark.parametrize(
    ("key", "entry", "named"),
    [
        (CONVERTED, MODULE, [FIRST]),
        (CONVERTED, "model.layers.0", [FIRST]),
        (CONVERTED, "0.up", [FIRST]),
        (CONVERTED, "up", [FIRST, SECOND]),
        (CONVERTED, "model.layers.*.up", [FIRST, SECOND]),
        ("ignored_layers", MODULE, [FIRST]),
    ],
)
def test_codes_of_fp8_that_are_decoded_where_there_is_no_gpu(
    tmp_path: Path, key: str, entry: str, named: list[str]
) -> None:
    place = model(tmp_path / "m", fp8, saying(FP8, **{key: ["lm_head", entry]}), {})
    (text,) = told(place)
    assert text.startswith(f"{place}/config.json lists in {key} what has codes, which engines")
    listed = ", ".join(f"'{name}'" for name in named)
    assert f" while loading: {listed}. They are decoded all the same. Take the" in text
    loaded = saying(FP8, **{key: [entry]}, dequantize=True)
    assert not told(model(tmp_path / "loaded", fp8, loaded, {}))


def test_codes_of_a_module_that_mlx_has_as_floats(tmp_path: Path) -> None:
    place = model(tmp_path / "m", mlx, saying(MLX, **{MODULE: False}), {})
    with pytest.raises(ValueError, match=f"says that it has none: {MODULE} false"):
        pyarrowquant.read_weights(place)


@pytest.mark.parametrize(
    ("kind", "config", "key", "entries"),
    [
        (packed, COMPRESSED, "ignore", ["lm_head", "model.layers.0", "up", "re:layers", "re:("]),
        (packed, COMPRESSED, "ignore", "model.layers.0.up"),
        (packed, COMPRESSED, "ignore", [None, 1, ""]),
        (fp8, FP8, CONVERTED, ["lm_head", "model.layers.0.u", "ayers.0.up", "layers.0", "(", "p"]),
        (nf4, BITSANDBYTES, SKIPPED, ["lm_head", "model.layer", "model.layers.01", "0.u"]),
    ],
)
def test_entries_of_other_modules(
    tmp_path: Path, kind: Callable[[str], Tensors], config: dict[str, Any], key: str, entries: Any
) -> None:
    place = model(tmp_path / "m", kind, saying(config, **{key: entries}), {})
    assert read(place).keys() == {FIRST, SECOND}


@pytest.mark.parametrize(
    ("kind", "config", "key", "entry"),
    [(packed, COMPRESSED, "ignore", "re:^(?!.*language).*"), (fp8, FP8, CONVERTED, "model.layers")],
)
def test_models_of_parts_have_modules_by_other_names(
    tmp_path: Path, kind: Callable[[str], Tensors], config: dict[str, Any], key: str, entry: str
) -> None:
    said = {**saying(config, **{key: [entry]}), "text_config": {}}
    assert read(model(tmp_path / "m", kind, said, {})).keys() == {FIRST, SECOND}


def floats(kind: Callable[[str], Tensors]) -> dict[str, np.ndarray | None]:
    """The second layer as floats."""
    left: dict[str, np.ndarray | None] = dict.fromkeys(kind(SECOND))
    return {**left, SECOND: np.ones((8, 32), ml_dtypes.bfloat16)}


def told(place: Path) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert read(place).keys() == {FIRST, SECOND}
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    ("kind", "config", "key"),
    [
        (packed, saying(groups(), config_groups={}), "ignore"),
        (float_quantized, saying(groups(), config_groups={}), "ignore"),
        (fp8, FP8, CONVERTED),
        (nf4, BITSANDBYTES, SKIPPED),
    ],
)
def test_floats_in_the_place_of_codes(
    tmp_path: Path, kind: Callable[[str], Tensors], config: dict[str, Any], key: str
) -> None:
    place = model(tmp_path / "m", kind, saying(config, **{key: ["lm_head"]}), floats(kind))
    (text,) = told(place)
    assert text.startswith(f"{place}/config.json does not list in {key} what is of floats")
    assert f": '{SECOND}'. They are taken as they are." in text
    for number, entry in enumerate((SECOND.removesuffix(".weight"), "re:.*layers.1.up")):
        said = saying(config, **{key: [entry.removeprefix("re:") if key != "ignore" else entry]})
        assert not told(model(tmp_path / f"named-{number}", kind, said, floats(kind)))
    for number, more in enumerate(({"num_hidden_layers": 1}, {"vision_config": {}})):
        said = {**config, **more}
        assert not told(model(tmp_path / f"other-{number}", kind, said, floats(kind)))


@pytest.mark.parametrize("name", ["lm_head.weight", "model.layers.1.other.up.weight"])
def test_floats_that_are_linear_by_their_names(tmp_path: Path, name: str) -> None:
    tensors = {**packed(FIRST), **packed(SECOND), name: np.ones((8, 32), np.float32)}
    for number, (config, count) in enumerate(
        (
            (saying(COMPRESSED, config_groups={}), 1),
            (saying(COMPRESSED, config_groups={}, ignore=[name.removesuffix(".weight")]), 0),
        )
    ):
        place = folder(tmp_path / str(number), tensors, **config)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert len(read(place)) == 3
        assert [f": '{name}'. They are" in str(each.message) for each in caught] == [True] * count


@pytest.mark.parametrize(("listed", "count"), [(None, 0), ([], 1), (["lm_head"], 0)])
def test_heads_of_bitsandbytes_are_floats_where_nothing_is_listed(
    tmp_path: Path, listed: Any, count: int
) -> None:
    tensors = {**nf4(FIRST), "lm_head.weight": np.ones((8, 32), np.float32)}
    place = folder(tmp_path / "m", tensors, **saying(BITSANDBYTES, **{SKIPPED: listed}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert read(place).keys() == {FIRST, "lm_head.weight"}
    assert len(caught) == count


def test_a_stack_of_floats_beside_those_of_codes(tmp_path: Path) -> None:
    tensors: Tensors = {**gpt_oss(EXPERTS.format(0)), **gpt_oss(EXPERTS.format(1))}
    float_stack = EXPERTS.format(2)
    tensors[float_stack] = np.ones((2, 96, 6), np.float32)
    said = {"model_type": "gpt_oss", "quantization_config": {"quant_method": "mxfp4"}}
    with pytest.warns(UserWarning, match=f"does not list in {CONVERTED} .*: '{float_stack}'"):
        assert len(read(folder(tmp_path / "m", tensors, **said))) == 3


def test_experts_that_are_no_linear_layers(tmp_path: Path) -> None:
    """As bitsandbytes leaves them beside layers of the same name."""
    expert = "model.layers.1.mlp.experts.0.up.weight"
    tensors = {**nf4(FIRST), **nf4(SECOND), expert: np.ones((8, 32), np.float32)}
    place = folder(tmp_path / "m", tensors, **BITSANDBYTES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(place).keys() == tensors.keys() & {FIRST, SECOND, expert}


def test_floats_that_no_group_means(tmp_path: Path) -> None:
    weights = {"num_bits": 4, "group_size": 32}
    group = {"weights": weights, "targets": ["re:.*layers.0.*"]}
    said = saying(COMPRESSED, config_groups={"group_0": group})
    assert not told(model(tmp_path / "named", packed, said, floats(packed)))
    group["targets"] = ["Linear"]
    assert told(model(tmp_path / "linear", packed, said, floats(packed)))


@pytest.mark.parametrize(
    "size",
    [["128", "128"], 128, "128", [0, 128], [128, -1], [128], [128, 128, 1], [], [True, 2], {}],
)
def test_blocks_that_are_none(tmp_path: Path, size: Any) -> None:
    place = model(tmp_path / "m", fp8, saying(FP8, weight_block_size=size), {})
    with pytest.raises(ValueError, match="Fetch the files again") as caught:
        pyarrowquant.read_weights(place)
    told = f"config.json says weight_block_size {size!r}, which must be two whole numbers"
    assert told in str(caught.value)


@pytest.mark.parametrize("size", [None, [128.0, 128.0]])
def test_blocks_that_transformers_takes(tmp_path: Path, size: Any) -> None:
    place = model(tmp_path / "m", fp8, saying(FP8, weight_block_size=size), {})
    assert_same(read(place)[FIRST], np.ones((8, 32), np.float32))


def test_exponents_have_the_blocks_that_are_said(tmp_path: Path) -> None:
    tensors = {
        FIRST: np.ones((8, 64), ml_dtypes.float8_e4m3fn),
        f"{FIRST}_scale_inv": np.full((8, 2), 127, np.uint8),
    }
    right, wrong = saying(FP8, weight_block_size=[1, 32]), saying(FP8, weight_block_size=[8, 32])
    assert read(folder(tmp_path / "right", tensors, **right)).keys() == {FIRST}
    place = folder(tmp_path / "wrong", tensors, **wrong)
    with pytest.raises(ValueError, match=r"weight_block_size \[8, 32\]: \[1, 2\]"):
        pyarrowquant.read_weights(place)

"""Folders that transformers saved, as GGUF files that llama.cpp computes the same with.

`make test-llama-cpp` runs these, in an environment that has both.
"""

from __future__ import annotations

import base64
import ctypes
import json
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hf_folders
import llama_cpp
import numpy as np
import pytest
import torch
import transformers
from commands import succeeded
from safetensors.numpy import save_file
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import Unigram
from transformers.convert_slow_tokenizer import bytes_to_unicode

from pyarrowquant.llama_cpp.pre_tokenizers import KNOWN

ROWS = 600
TOKENS = np.arange(5, 45)
SIZES: dict[str, Any] = {
    "vocab_size": ROWS,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
LLAMA_3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
BASE = {"rope_theta": 10000.0}
YARN = {**BASE, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LINEAR = {**BASE, "rope_type": "linear", "factor": 4.0}
LONG = {
    "max_position_embeddings": 512,
    "original_max_position_embeddings": 256,  # of which llama.cpp takes the short factors here
    "rope_parameters": {
        **BASE,
        "rope_type": "longrope",
        "short_factor": [1 + 0.05 * i for i in range(16)],
        "long_factor": [1.5 + 0.2 * i for i in range(16)],
        "original_max_position_embeddings": 256,
    },
}
GEMMA = {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16}
ROUNDING = 1e-5  # of the largest logit
TABLES = 5e-4  # ggml looks GELU up in a table of float16
TEXTS = (
    "Hello World, it's we'll I'D they'RE don't",
    "a  b   c    d\te\t\tf \n g\n\nh \r\n i\r\rj   ",
    "1 12 123 1234 12345 3.14 1,000,000 v2 x1y2 \u0663\u0664 \u00bd\u00b2",
    "camelCase PascalCase \u00c9t\u00e9 stra\u00dfe \u0130",
    'if (x==1){return a[i]+b->c;} // end\n#include <stdio.h>\n\tfoo_bar("s");/*x*/\n/\n//\n',
    "...!!!??? --- === *** <<>> $100 50% #tag @user",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22 "
    "\u0627\u0644\u0639\u064e\u0631 e\u0301",
    "\u6211\u60f3\u5728apple\u5de5\u4f5c1314151\u5929\uff5e \u3053\u3093\u306b \ud55c\uad6d\uc5b4",
    "\U0001f680 (normal) \U0001f636\u200d\U0001f32b\ufe0f \u2705 a\u00a0b \u3000\u2026\u201cq",
    " lead  two\n  indent\n    four \n\n\n end \n",
    "<|begin|>x<|end|> <s> </s> <unk> <0x41> \u2581 a\u2581b",
    "",
    " ",
    "\n",
    "\u200b\ufeff\x00z",
)


@contextmanager
def loaded(path: Path, vocabulary_only: bool = False) -> Iterator[Any]:
    parameters = llama_cpp.llama_model_default_params()
    parameters.use_extra_bufts = False  # 0.3.36 crashes with them where a CPU has AMX
    parameters.vocab_only = vocabulary_only
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
    assert model, f"llama.cpp does not load {path}"
    yield model
    llama_cpp.llama_model_free(model)


def computed(path: Path, tokens: np.ndarray, width: int, embeddings: bool = False) -> np.ndarray:
    """Logits, or embeddings of tokens, that llama.cpp computes in float32."""
    count = len(tokens)
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = 256
    parameters.n_threads = parameters.n_threads_batch = 2
    parameters.flash_attn_type = 0
    parameters.type_k = parameters.type_v = 0  # float32
    parameters.embeddings = embeddings
    if embeddings:
        parameters.pooling_type = 0
    batch = llama_cpp.llama_batch_init(count, 0, 1)
    batch.n_tokens = count
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i] = int(token), i, 1
        batch.seq_id[i][0], batch.logits[i] = 0, 1
    take = llama_cpp.llama_get_embeddings_ith if embeddings else llama_cpp.llama_get_logits_ith
    with loaded(path) as model:
        context = llama_cpp.llama_init_from_model(model, parameters)
        assert llama_cpp.llama_decode(context, batch) == 0
        rows = [np.ctypeslib.as_array(take(context, i), shape=(width,)) for i in range(count)]
        found = np.stack(rows)
        llama_cpp.llama_free(context)
    llama_cpp.llama_batch_free(batch)
    return found


def check_logits(
    tmp_path: Path, model_class: str, config: Any, bound: float, left_out: Sequence[str] = ()
) -> None:
    """Compare llama.cpp with transformers, of random weights and without some keys."""
    torch.manual_seed(0)
    model = getattr(transformers, model_class)(config).float().eval()
    for weights in model.parameters():
        size = 0.1 if weights.ndim == 1 else 0.05
        mean = weights.ndim == 1 and "Gemma" not in model_class  # whose code adds 1
        weights.data = torch.randn_like(weights) * size + mean
    folder = tmp_path / "random"
    model.save_pretrained(folder)
    if left_out:
        said = json.loads((folder / "config.json").read_text())
        kept = {key: value for key, value in said.items() if key not in left_out}
        (folder / "config.json").write_text(json.dumps(kept))
        model = getattr(transformers, model_class).from_pretrained(folder).float().eval()
    hf_folders.bpe(rows=ROWS).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}))
    with torch.no_grad():
        wanted = model(input_ids=torch.tensor(TOKENS)[None]).logits[0].numpy()
    succeeded("dequantize", folder, tmp_path / "random.gguf")
    found = computed(tmp_path / "random.gguf", TOKENS, wanted.shape[1])
    assert np.abs(found - wanted).max() < bound * np.abs(wanted).max()


def test_gemma_3_that_sees_leaves_out_what_transformers_has_a_default_for(tmp_path: Path) -> None:
    sizes = {"vocab_size": ROWS, "hidden_size": 256, "intermediate_size": 512}
    layers = {"num_hidden_layers": 7, "sliding_window": 16}
    seeing = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
    }
    torch.manual_seed(0)
    model = transformers.Gemma3ForConditionalGeneration(
        transformers.Gemma3Config(text_config={**sizes, **layers}, vision_config=seeing)
    )
    model = model.float().eval()
    for weights in model.parameters():
        weights.data = torch.randn_like(weights) * (0.1 if weights.ndim == 1 else 0.05)
    folder = tmp_path / "seeing"
    model.save_pretrained(folder)
    said = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3"}
    text = {"model_type": "gemma3_text", **sizes, **layers}
    (folder / "config.json").write_text(json.dumps({**said, "text_config": text}))
    hf_folders.bpe(rows=ROWS).save(str(folder / "tokenizer.json"))
    with torch.no_grad():
        wanted = model(input_ids=torch.tensor(TOKENS)[None]).logits[0].numpy()
    succeeded("dequantize", folder, tmp_path / "seeing.gguf")
    found = computed(tmp_path / "seeing.gguf", TOKENS, wanted.shape[1])
    assert np.abs(found - wanted).max() < TABLES * np.abs(wanted).max()


def test_fused_experts_of_mixtral(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.MixtralConfig(**SIZES, num_local_experts=4)
    model = transformers.MixtralForCausalLM(config).float().eval()
    folder = tmp_path / "random"
    model.save_pretrained(folder)
    tensors = {name: array.contiguous().numpy() for name, array in model.state_dict().items()}
    assert "model.layers.0.mlp.experts.gate_up_proj" in tensors
    save_file(tensors, folder / "model.safetensors")
    hf_folders.bpe(rows=ROWS).save(str(folder / "tokenizer.json"))
    with torch.no_grad():
        wanted = model(input_ids=torch.tensor(TOKENS)[None]).logits[0].numpy()
    succeeded("dequantize", folder, tmp_path / "random.gguf")
    found = computed(tmp_path / "random.gguf", TOKENS, wanted.shape[1])
    assert np.abs(found - wanted).max() < ROUNDING * np.abs(wanted).max()


def test_a_folder_whose_name_is_that_of_phi_3(tmp_path: Path) -> None:
    succeeded("dequantize", hf_folders.write(tmp_path / "phi-3-tiny"), tmp_path / "a.gguf")
    with loaded(tmp_path / "a.gguf") as model:
        assert llama_cpp.llama_model_n_layer(model) == 2


def ids(path: Path, text: str) -> list[int]:
    data, buffer = text.encode(), (ctypes.c_int32 * 4096)()
    with loaded(path, vocabulary_only=True) as model:
        vocabulary = llama_cpp.llama_model_get_vocab(model)
        count = llama_cpp.llama_tokenize(
            vocabulary, data, len(data), buffer, len(buffer), False, True
        )
    return list(buffer[:count])


def check_ids(tmp_path: Path, tokenizer: Tokenizer) -> None:
    folder = hf_folders.write(tmp_path / "model", hf_folders.llama(rows=ROWS), tokenizer)
    succeeded("dequantize", folder, tmp_path / "model.gguf")
    for text in TEXTS:
        wanted = tokenizer.encode(text, add_special_tokens=False).ids
        assert ids(tmp_path / "model.gguf", text) == wanted, text


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.name)
def test_tokens_of_bytes(tmp_path: Path, known: Any) -> None:
    split = hf_folders.split(*known.expressions)
    check_ids(tmp_path, hf_folders.bpe(split, ROWS, ignore_merges=known.whole_words))


def test_tokens_of_tekken(tmp_path: Path) -> None:
    special = 20
    known = next(each for each in KNOWN if each.name == "tekken")
    split = hf_folders.split(*known.expressions)
    tokenizer = hf_folders.bpe(split, ROWS, ignore_merges=True)
    bytes_of = {letter: byte for byte, letter in bytes_to_unicode().items()}
    texts = tokenizer.get_vocab(with_added_tokens=False)
    words = [
        bytes(map(bytes_of.__getitem__, text)) for text in sorted(texts, key=texts.__getitem__)
    ]
    config = {
        "pattern": known.expressions[0],
        "default_vocab_size": special + len(words),
        "default_num_special_tokens": special,
    }
    ranks = [
        {"rank": rank, "token_bytes": base64.b64encode(word).decode()}
        for rank, word in enumerate(words)
    ]
    tensors = hf_folders.llama(rows=special + len(words))
    folder = hf_folders.write(tmp_path / "model", tensors, architectures=["MistralForCausalLM"])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    (folder / "tekken.json").write_text(json.dumps({"config": config, "vocab": ranks}))
    succeeded("dequantize", folder, tmp_path / "model.gguf")
    for text in TEXTS:
        if "<|" not in text:  # which are tokens of the other one
            wanted = [special + number for number in tokenizer.encode(text).ids]
            assert ids(tmp_path / "model.gguf", text) == wanted, text


QWEN_2 = next(each for each in KNOWN if each.name == "qwen2")


@pytest.mark.parametrize("kind", ["GPT2Tokenizer", "Qwen2TokenizerFast"])
def test_tokens_of_vocabulary_and_merges(tmp_path: Path, kind: str) -> None:
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False)
    split = hf_folders.split(*QWEN_2.expressions) if kind.startswith("Qwen2") else bytes_
    tokenizer = hf_folders.bpe(split, ROWS)
    folder = hf_folders.write(tmp_path / "model", hf_folders.llama(rows=ROWS), tokenizer)
    (folder / "tokenizer.json").unlink()
    tokenizer.model.save(str(folder))
    special = {tokenizer.token_to_id(text): {"content": text} for text in hf_folders.SPECIAL}
    named = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<|end|>")
    said = {"tokenizer_class": kind, "added_tokens_decoder": special, **named}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    wanted = transformers.AutoTokenizer.from_pretrained(folder)
    succeeded("dequantize", folder, tmp_path / "model.gguf")
    for text in (unicodedata.normalize("NFC", each) for each in TEXTS):
        assert ids(tmp_path / "model.gguf", text) == wanted.encode(text), text


def test_tokens_of_digits_and_bytes(tmp_path: Path) -> None:
    digits = pre_tokenizers.Digits(individual_digits=True)
    split = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    check_ids(tmp_path, hf_folders.bpe(split, ROWS))


@pytest.mark.parametrize("prepend", [True, False])
def test_tokens_of_pieces(tmp_path: Path, prepend: bool) -> None:
    tokenizer = hf_folders.pieces(ROWS, prepend)
    assert isinstance(tokenizer.normalizer, normalizers.Sequence)
    check_ids(tmp_path, tokenizer)


def unigram() -> Tokenizer:
    """A tokenizer of pieces with scores, whose first tokens are those of XLM-RoBERTa."""
    first = ["<s>", "<pad>", "</s>", "<unk>"]
    letters = sorted({letter for text in hf_folders.TEXT for letter in text.replace(" ", "\u2581")})
    pieces = [(text, 0.0) for text in first] + [(text, -8.0) for text in letters]
    pieces += [("\u2581The", -3.0), ("ick", -4.0), ("\u2581fox", -3.5)]
    tokenizer = Tokenizer(Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.add_special_tokens(first)
    return tokenizer


ENCODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertModel", "BertConfig", {}),
    "roberta": ("RobertaModel", "RobertaConfig", {"pad_token_id": 1, "type_vocab_size": 1}),
    "xlmr": ("XLMRobertaModel", "XLMRobertaConfig", {"pad_token_id": 1, "type_vocab_size": 1}),
    "nomic": ("NomicBertModel", "NomicBertConfig", {}),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_embeddings_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    model_class, config_class, changes = ENCODERS[name]
    torch.manual_seed(0)
    sizes = {key: SIZES[key] for key in ("vocab_size", "hidden_size", "intermediate_size")}
    config = getattr(transformers, config_class)(
        **{**sizes, "num_hidden_layers": 2, "num_attention_heads": 4, **changes}
    )
    model = getattr(transformers, model_class)(config).float().eval()
    folder = tmp_path / "random"
    model.save_pretrained(folder)
    unigram().save(str(folder / "tokenizer.json"))
    with torch.no_grad():
        wanted = model(input_ids=torch.tensor(TOKENS)[None]).last_hidden_state[0].numpy()
    succeeded("dequantize", folder, tmp_path / "random.gguf")
    found = computed(tmp_path / "random.gguf", TOKENS, wanted.shape[1], embeddings=True)
    assert np.abs(found - wanted).max() < TABLES * np.abs(wanted).max()


def test_tokens_of_unigram(tmp_path: Path) -> None:
    tokenizer = unigram()
    folder = hf_folders.write(tmp_path / "model", hf_folders.llama(rows=ROWS), tokenizer)
    succeeded("dequantize", folder, tmp_path / "model.gguf")
    for text in ("The quick brown fox", "a fox", "foxThe", "12 dogs; it's", "The  fox"):
        wanted = tokenizer.encode(text, add_special_tokens=False).ids
        assert ids(tmp_path / "model.gguf", text) == wanted, text

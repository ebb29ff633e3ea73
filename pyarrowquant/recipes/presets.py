"""The rules that come with the package, and the settings of its profiles."""

from __future__ import annotations

from pyarrowquant.recipes.rule import Rule

# Fewer bits need less memory and, as scales weigh more in it then, larger groups.
PROFILES: dict[str, dict[str, int | str]] = {
    "edge": {"bit_width": 2, "group_size": 256, "method": "mse"},
    "local": {"bit_width": 4, "group_size": 128, "method": "mse"},
    "cloud": {"bit_width": 8, "group_size": 64, "method": "mse"},
}

_HEADS = "output heads"
_INPUTS = "layers that make the input into tokens, and back"

# Small, and read by every token or pixel: biases, norms, embeddings. The name of the tensor, or
# of the module whose weight it is, has the word; what lies deeper in a module of such a name is
# none: the linear layer of an adaptive norm, or an encoder in a model called "embedder".
_BIASES = Rule(match=("*bias", "*_bias.weight", "*bias_table"), skip=True, reason="biases")
_NORMS_AND_EMBEDDINGS = Rule(
    regex=r"(?i)(norm|embe?d|pos_emb)[^.]*(\.\d+)?(\.weight)?$",
    skip=True,
    reason="norms and embeddings",
)
_VECTORS = Rule(ndim=(0, 1), skip=True, reason="of fewer than two dimensions")
# No layers: what computation or other tensors need.
_BUFFERS = Rule(
    match=("*attn_mask", "*attention_mask", "*causal_mask", "*masked_bias", "*inv_freq"),
    skip=True,
    reason="buffers",
)
_SCALES = Rule(
    regex=r"(weight|input|output|[kqv])_(global_)?(scale(_inv|_2)?|zero_point|shape)$|\.qzeros$",
    skip=True,
    reason="scales of other tensors",
)
_COMMON = (_VECTORS, _BIASES, _NORMS_AND_EMBEDDINGS, _BUFFERS, _SCALES)

# The output head of the model. A proj_out within a numbered block is an inner layer.
_FINAL_PROJECTION = Rule(regex=r"^(?!.*\.\d+\.)(.*\.)?proj_out\.", skip=True, reason=_HEADS)

# Heads of language models by other names than those of most.
_OTHER_HEADS = Rule(
    regex=r"^(?!.*\.\d+\.)(.*\.)?(head|lm_loss|output_projection|pred_layer|unembedding_projection|"
    r"vocab_projector)\.|^decoder\.(weight|bias)$",
    skip=True,
    reason=_HEADS,
)

_TEXT_EMBEDDINGS = Rule(
    match=(
        "*wte.weight",
        "*wpe.weight",
        "shared.weight",
        "*.shared.weight",
        "emb.weight",
        "*.emb.weight",
    ),
    skip=True,
    reason="norms and embeddings",
)
# An error of these sends a token to another expert.
_ROUTERS = Rule(
    match=(
        "*.gate.weight",
        "*.gate.wg.weight",
        "*router*",
        "*shared_expert_gate.weight",
        "*ffn_gate_inp*",
        "*ffn_gate_tid2eid*",
    ),
    skip=True,
    reason="routers",
)

# Matrices of a text model that are no linear layers, and those that may be none.
EMBEDDINGS = (_BIASES, _NORMS_AND_EMBEDDINGS, _TEXT_EMBEDDINGS)
NOT_LINEAR = (*EMBEDDINGS, _ROUTERS)

# Small, and what all of a model goes through. Names are those of Hugging Face and of llama.cpp.
_SMALL = (
    Rule(
        regex=r"(?i)(^|[._])((pos|position|positional)_?emb\w*|token_?types?(_?emb\w*)?|emb\w*_positions)"
        r"(\.\d+)?(\.weight)?$|(^|\.)wpe\.weight$|(cls|class|mask|register)_tokens?$",
        skip=True,
        reason="embeddings of positions and token types",
    ),
    Rule(
        match=("*relative_attention_bias*", "*relative_position_bias*", "*attn_rel_b*"),
        skip=True,
        reason="relative-attention biases",
    ),
    _ROUTERS,
    Rule(
        match=(
            "*.A_log",
            "*mixer.conv1d.*",
            "*mamba.conv1d.*",
            "*linear_attn.conv1d.*",
            "*shortconv.conv*",
            "*ssm_a",
            "*ssm_conv1d*",
            "*ssm_d",
            "*indexer.[kq]_proj.weight",
            "*time_maa*",
            "*time_decay*",
            "*time_faaaa*",
            "*time_first*",
        ),
        skip=True,
        reason="state-space and time-mix parameters",
    ),
    # Not the matrices of RWKV: those of keys, values, receptance, gates and outputs.
    Rule(
        regex=r"time_mix_(first|[wva]\d|g\d|decay\w*|lerp\w*)(\.weight)?$|time_mix_\w+$|"
        r"\.(att|attn|ffn)\.(x_[rwkvag]|[wvag]\d|[kr]_[ka])$|\.attn\.[wvag]_lora\.",
        skip=True,
        reason="state-space and time-mix parameters",
    ),
    Rule(
        match=(
            "*sam.neck.*",
            "*sam.net_*",
            "*.rel_pos*",
            "*.patch_embd*",
            "*.patch_merger*",
            "*a.rvq.codebook*",
            "mm.a.code_embd*",
        ),
        skip=True,
        reason="what makes images and sound into tokens",
    ),
    Rule(
        match=("*altup*", "*laurel*", "*per_layer_model_proj*"),
        skip=True,
        reason="small projections beside the layers",
    ),
)

# What no engine quantizes, and what costs more quality than it saves room: left out of every format
# where nobody says another recipe, and by every preset.
SENSITIVE = (
    _VECTORS,
    _BIASES,
    _BUFFERS,
    _SCALES,
    Rule(regex=r"(?i)norm_?\d*(\.\d+)?(\.weight)?$", skip=True, reason="norms"),
    *_SMALL,
)

_TEXT = (
    _TEXT_EMBEDDINGS,
    _ROUTERS,
    Rule(
        match=(
            "*lm_head.*",
            "*lm_heads.*",
            "*codec_head.*",
            "output.weight",
            "*cls.predictions.*",
            "*cls.seq_relationship.*",
            "*pooler.*",
            "*classifier.*",
            "*score.weight",
            "*qa_outputs.*",
        ),
        skip=True,
        reason=_HEADS,
    ),
    _FINAL_PROJECTION,
    _OTHER_HEADS,
    # What comes before the blocks of a speech encoder.
    Rule(match=("*encoder.conv1.*", "*encoder.conv2.*"), skip=True, reason=_INPUTS),
)

_DIFFUSION = (
    # Time step, guidance, size and pooled text.
    Rule(
        match=(
            "*time_embedding.*",
            "*add_embedding.*",
            "*class_embedding.*",
            "*time_emb_proj.*",
            "*time_text_embed.*",
            "*timestep_embedder.*",
            "*condition_embedder.*",
            "*adaln_single.*",
        ),
        skip=True,
        reason="embeddings of time, size and text",
    ),
    # What makes latents and texts into tokens, and tokens into latents.
    Rule(
        match=("*pos_embed.*", "*patch_embed.*", "*caption_projection.*"),
        skip=True,
        reason=_INPUTS,
    ),
    Rule(regex=r"(^|\.)((img|txt)_in|conv_in|conv_out)\.", skip=True, reason=_INPUTS),
    Rule(match=("*norm_out.*", "*scale_shift_table"), skip=True, reason=_HEADS),
    _FINAL_PROJECTION,
    # The modulation of adaptive norms scales whole blocks, but is up to a third of the weights.
    Rule(match=("*.norm*.linear.weight", "*.img_mod.*", "*.txt_mod.*"), bit_width=8),
)

_VISION = (
    Rule(match=("*patch_embed*", "*_token", "*_tokens"), skip=True, reason=_INPUTS),
    # conv_proj is the patch embedding of torchvision.
    Rule(match=("*classifier.*", "*visual_projection.*", "*pooler.*"), skip=True, reason=_HEADS),
    Rule(regex=r"(^|\.)(heads?|conv_proj)\.", skip=True, reason=_HEADS),
)

PRESETS: dict[str, tuple[Rule, ...]] = {
    "text": (*_COMMON, *_TEXT, *_SMALL),
    "diffusion": (*_COMMON, *_DIFFUSION, *_SMALL),
    "vision": (*_COMMON, *_VISION, *_SMALL),
}

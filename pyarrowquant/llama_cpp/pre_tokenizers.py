"""Which of the ways to split a text into words, that llama.cpp knows by names, is a tokenizer's.

It is found by what the tokenizer does to texts: a name stands for expressions, whose matches are
the words. The expressions are those of llama.cpp's src/llama-vocab.cpp, or where it has simpler
ones, those that it says they stand for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_CONTRACTIONS = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LINES = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LINES_AND_SLASHES = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s"
_PUNCTUATED = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"""
    r" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class PreTokenizer:
    """One that llama.cpp knows.

    Attributes
    ----------
    name : str
    expressions : tuple of str
        Each splits what the ones before have left in one piece.
    whole_words : bool
        Whether a word that is a token is taken as such, whatever merges say.
    """

    name: str
    expressions: tuple[str, ...]
    whole_words: bool = False


# Of several with the same expressions, the one that does least besides.
KNOWN = (
    PreTokenizer("gpt-2", (_GPT_2,)),
    PreTokenizer("smollm", (r"\p{N}", _GPT_2)),
    PreTokenizer("qwen2", (rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}|{_LINES}",)),
    PreTokenizer("llama-bpe", (rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}{{1,3}}|{_LINES}",), True),
    PreTokenizer("smaug-bpe", (rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}{{1,3}}|{_LINES}",)),
    PreTokenizer(
        "qwen35",
        (
            rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}|"
            r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
    ),
    PreTokenizer("tekken", (rf"{_CASED % ('', '')}|\p{{N}}|{_LINES_AND_SLASHES}",), True),
    PreTokenizer(
        "gpt-4o",
        (
            rf"{_CASED % (f'{_CONTRACTIONS}?', f'{_CONTRACTIONS}?')}|\p{{N}}{{1,3}}|"
            rf"{_LINES_AND_SLASHES}",
        ),
    ),
    PreTokenizer(
        "deepseek-v3", (r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", _PUNCTUATED)
    ),
    PreTokenizer(
        "deepseek-coder",
        (
            r"[\r\n]",
            r"\s?\p{L}+",
            r"\s?\p{P}+",
            "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
            r"\p{N}",
        ),
    ),
    PreTokenizer(
        "seed-coder",
        (rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",),
    ),
    PreTokenizer("falcon", (r"[\p{P}\$\+<=>\^~\|`]+", _GPT_2, "[0-9][0-9][0-9]")),
    PreTokenizer("bloom", (" ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+",)),
    PreTokenizer(
        "viking", (" ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+", r"\p{N}")
    ),
)

# Others of which llama.cpp knows the names; they can be said.
_OTHERS = (
    "a.x-4.0 afmoe bailingmoe bailingmoe2 chameleon chatglm-bpe codeshell cohere2moe command-r "
    "dbrx "
    "deepseek-llm deepseek-r1-qwen default exaone exaone-moe exaone4 f2llmv2 falcon-h1 "
    "falcon3 gemma4 gigachat glm4 gpt3-finnish granite-docling grok-2 hunyuan hunyuan-dense "
    "jais jais-2 jina-de jina-es jina-v1-en jina-v2-code jina-v2-de jina-v2-es joyai-llm "
    "kanana2 kimi-k2 kormo laguna lfm2 llada-moe llama-v3 llama3 llama4 megrez mellum mellum2 "
    "midm-2.0 minerva-7b minicpm5 minimax-m2 modern-bert mpt olmo phi-2 pixtral poro-chat "
    "refact roberta-bpe sarvam-moe solar-open stablelm2 starcoder superbpe talkie tiny_aya "
    "trillion youtu"
)
NAMES = frozenset(known.name for known in KNOWN) | frozenset(_OTHERS.split())

# What ways to split differ in: digits, spaces before words, lines, case, apostrophes, marks,
# scripts without spaces, punctuation before letters, symbols.
TEXTS = (
    "Hello World, it's we'll I'D they'RE don't 'tis",
    "a  b   c    d\te\t\tf \n g\n\nh \r\n i\r\rj   ",
    "1 12 123 1234 12345 3.14 1,000,000 v2 2nd x1y2 \u0663\u0664\u0665\u0666 \u00bd\u00b2",
    "camelCase PascalCase UPPERCASE mixedCASEWord \u01c5ungla \u00c9t\u00e9 stra\u00dfe \u0130",
    'if (x==1){return a[i]+b->c;} // end\n#include <stdio.h>\n\tfoo_bar("s");/*x*/\n/\n//\n',
    "...!!!??? --- === *** <<>> $100 50% #tag @user a.b .c ,d (e) [f] {g} ~h `i` ^j |k",
    "e\u0301 n\u0303o \u0915\u093f\u0924\u093e\u092c \u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22 "
    "\u0627\u0644\u0639\u064e\u0631 \u05e9\u05b8\u05c1",
    "\u6211\u60f3\u5728apple\u5de5\u4f5c1314151\u5929\uff5e \u3053\u3093\u306b\u3061\u306f "
    "\u4e16\u754c \ud55c\uad6d\uc5b4 \u0431\u044a\u043b\u0433\u0430\u0440\u0441\u043a\u0438\u3002"
    "\uff0c\u3001\u0964",
    "\U0001f680 (normal) \U0001f636\u200d\U0001f32b\ufe0f \u2705 \U0001f999\U0001f999 a\u00a0b "
    "\u3000\u5168\u89d2 \u2026\u201cq\u201d \u2019s x\u2019s \u20ac5 \u00a9",
    " lead  two\n  indent\n    four \n\n\n end \n",
    "''''''```````\"\"\"\"......!!!!!!?????? I've been 'told he's there, 'RE 'M 'D We'Ve a'lL",
)


def pre_tokenizer_of(tokenizer: Any, whole_words: bool) -> str | None:
    """Return the name of what splits texts as a tokenizer does, or None.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
    whole_words : bool
        Whether it takes words that are tokens as such.
    """
    wanted = [_places(tokenizer.pre_tokenizer, text) for text in TEXTS]
    fitting = [known for known in KNOWN if _splits(known.expressions) == wanted]
    exact = [known.name for known in fitting if known.whole_words == whole_words]
    return exact[0] if exact else None


def _splits(expressions: Sequence[str]) -> list[list[tuple[int, int]]]:
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import Sequence as InTurn
    from tokenizers.pre_tokenizers import Split

    splits = InTurn([Split(Regex(each), "isolated") for each in expressions])
    return [_places(splits, text) for text in TEXTS]


def _places(pre_tokenizer: Any, text: str) -> list[tuple[int, int]]:
    return [place for _, place in pre_tokenizer.pre_tokenize_str(text)]

"""Language models: any causal or encoder-decoder model of `transformers`, behind one small contract.

What a vision-language model needs of one, and nothing else:

* ``hidden_size`` W of what it reads, ``vocab_size`` V, ``is_encoder_decoder``, ``tokenizer``;
* ``embed(input_ids)`` → (B, T, W), to be mixed with the tokens of pictures;
* ``language_model(inputs_embeds, attention_mask, labels=...)`` → logits and loss.

`transformers` is an extra (``pip install 'nunbit[vlm]'``) and imported when a model is made. Weights are read from
safetensors and GGUF only, nothing is fetched, and code that a model folder brings along is never run.
"""

from nunbit.language_model.loading import NAMES, load_language_model
from nunbit.language_model.model import LanguageModel, LanguageModelOutput, LanguageTokenizer
from nunbit.language_model.transformers_model import Precision, make_language_model

__all__ = [
    "NAMES",
    "LanguageModel",
    "LanguageModelOutput",
    "LanguageTokenizer",
    "Precision",
    "load_language_model",
    "make_language_model",
]

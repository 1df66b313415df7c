"""Learning from a few examples: one ladder on the same embeddings, from words alone to trained heads."""

from nunbit.adapt.examples import Example, Examples, embed_examples, read_examples
from nunbit.adapt.fitting import Fitted, class_texts, fit_head
from nunbit.adapt.ladder import ON_EMBEDDINGS, RUNGS, Ladder, RungResult, Shots, climb
from nunbit.adapt.prompts import PromptTuning
from nunbit.adapt.rung import ClassTexts, Rung
from nunbit.adapt.trained import Adapter, LinearProbe, TipAdapterTrained
from nunbit.adapt.training_free import NearestMean, TipAdapter, ZeroShot

__all__ = [
    "ON_EMBEDDINGS",
    "RUNGS",
    "Adapter",
    "ClassTexts",
    "Example",
    "Examples",
    "Fitted",
    "Ladder",
    "LinearProbe",
    "NearestMean",
    "PromptTuning",
    "Rung",
    "RungResult",
    "Shots",
    "TipAdapter",
    "TipAdapterTrained",
    "ZeroShot",
    "class_texts",
    "climb",
    "embed_examples",
    "fit_head",
    "read_examples",
]

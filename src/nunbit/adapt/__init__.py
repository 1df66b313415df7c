"""Learning from a few examples: one ladder on the same embeddings, from words alone to trained heads."""

from nunbit.adapt.concept import Concept, learn_concept
from nunbit.adapt.concept_report import ConceptPictures, concept_page
from nunbit.adapt.descriptions import read_descriptions, write_questions
from nunbit.adapt.examples import Example, Examples, embed_examples, read_examples
from nunbit.adapt.fitting import FitOptions, Fitted, class_texts, fit_head, save_fitted
from nunbit.adapt.ladder import ON_EMBEDDINGS, RUNGS, Ladder, RungResult, Shots, climb
from nunbit.adapt.promises import Measured, Promises
from nunbit.adapt.prompts import PromptTuning
from nunbit.adapt.report import report_page
from nunbit.adapt.rung import ClassTexts, Rung
from nunbit.adapt.study import Study, make_study
from nunbit.adapt.towers import FineTuning, LowRankTuning, Towers, TunedHead
from nunbit.adapt.trained import Adapter, LinearProbe, TipAdapterTrained
from nunbit.adapt.training_free import Described, NearestMean, TipAdapter, ZeroShot

__all__ = [
    "ON_EMBEDDINGS",
    "RUNGS",
    "Adapter",
    "ClassTexts",
    "Concept",
    "ConceptPictures",
    "Described",
    "Example",
    "Examples",
    "FineTuning",
    "FitOptions",
    "Fitted",
    "Ladder",
    "LinearProbe",
    "LowRankTuning",
    "Measured",
    "NearestMean",
    "Promises",
    "PromptTuning",
    "Rung",
    "RungResult",
    "Shots",
    "Study",
    "TipAdapter",
    "TipAdapterTrained",
    "Towers",
    "TunedHead",
    "ZeroShot",
    "class_texts",
    "climb",
    "concept_page",
    "embed_examples",
    "fit_head",
    "learn_concept",
    "make_study",
    "read_descriptions",
    "read_examples",
    "report_page",
    "save_fitted",
    "write_questions",
]

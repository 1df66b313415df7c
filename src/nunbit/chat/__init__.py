"""Talking with any vision-language model: of this machine, of `transformers`, or behind an endpoint.

::

    messages ─ a talker ─┬─ our model folder ─ generate
                         ├─ a folder of transformers
                         └─ an OpenAI-compatible endpoint
"""

from nunbit.chat.messages import Message, Talker, answer_each
from nunbit.chat.opening import open_talker

__all__ = ["Message", "Talker", "answer_each", "open_talker"]

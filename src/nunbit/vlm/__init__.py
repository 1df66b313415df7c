"""Vision-language models, put together: an eye, a projector, a language model.

::

    picture ─ preprocessing ─ eye (K, P, D) ─ projector (K, Q, W) ─┐
    words ─ tokenizer ─ ids ─ embedding (B, T, W) ─────────────────┴─ language model ─ logits, loss
"""

"""Questions about pictures → answers."""

from __future__ import annotations

from collections import abc
from collections.abc import Sequence

from nunbit.generate.answer_text import AnswerText, endings_of
from nunbit.generate.config import GenerationConfig
from nunbit.generate.decoding import CausalDecoding, Decoding, EncoderDecoderDecoding
from nunbit.generate.openvino_engine import OpenVinoEngine, OpenVinoSession
from nunbit.generate.prefix import PrefixCache
from nunbit.generate.sampling import Sampler
from nunbit.generate.sessions import Session, TorchSession
from nunbit.vlm.batching import Sample, SampleReader
from nunbit.vlm.model import VisionLanguageModel


class Generator:
    """Lets a vision-language model answer. It serves one thread at a time.

    Args:
        model: Answers, from the device that it is on.
        reader: Of the model's conversations; made when it is not given.
        kept: So many conversations are remembered: a further question about the same pictures, or a further turn, is
            read from where it differs. The answers are the same but for rounding. 0: none. Encoder-decoders have no
            use for it.
        engine: Computes the language model in place of torch, on the processor. It remembers one conversation at most,
            and answers one question after another: of two streams that are read in turn, the first ends with an error.

    Example:
        >>> generator = Generator(model)
        >>> sample = generator.reader.read([Turn("user", (PICTURE, "What is it?"))], [image], answer=True)
        >>> "".join(generator.stream(sample, GenerationConfig(max_new_tokens=20)))
        'A cat.'
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        reader: SampleReader | None = None,
        *,
        kept: int = 2,
        engine: OpenVinoEngine | None = None,
    ) -> None:
        self.model, self.reader, self._engine, self._kept = model, reader or SampleReader(model), engine, kept
        self._prefixes = PrefixCache(kept)

    def stream(self, sample: Sample, config: GenerationConfig) -> abc.Generator[str, None, bool]:
        """Answer one question.

        Args:
            sample: A conversation that ends with it (``SampleReader.read(..., answer=True)``).
            config: How.

        Yields:
            Pieces of the answer, none of them empty, as soon as they are certain: no character comes in parts, and
            nothing of what ends the answer comes at all.

        Returns:
            Whether the answer was cut, after ``max_new_tokens`` or where the model reads no further.

        Raises:
            UsageError: The conversation is longer than the model can read.
        """
        pieces = self._run([sample], config)
        while True:
            try:
                (piece,) = next(pieces)
            except StopIteration as end:
                return bool(end.value[0])
            if piece:
                yield piece

    def answer(self, samples: Sequence[Sample], config: GenerationConfig) -> list[str]:
        """Answer several questions side by side; each as it would be answered alone.

        Args:
            samples: Conversations that end with a question.
            config: How.

        Raises:
            UsageError: A conversation is longer than the model can read.
        """
        if not samples:
            return []
        return ["".join(pieces) for pieces in zip(*self._run(samples, config), strict=True)]

    def _run(self, samples: Sequence[Sample], config: GenerationConfig) -> abc.Generator[list[str], None, list[bool]]:
        """A piece of each answer at every step, many of them empty; at the end, which answers were cut."""
        tokenizer = self.reader.tokenizer
        endings = endings_of(self.model.config.chat, tokenizer, config.stop)
        decoding = self._decoding(samples)
        limits = [min(config.max_new_tokens, room) for room in decoding.rooms]
        texts = [AnswerText(tokenizer, endings, limit) for limit in limits]
        sampler = Sampler(config, len(samples))
        try:
            logits = decoding.first()
            while True:
                tokens = sampler(logits)
                yield ["" if text.done else text.add(token) for text, token in zip(texts, tokens, strict=True)]
                if all(text.done for text in texts):
                    return [text.cut for text in texts]
                logits = decoding.next(
                    [None if text.done else token for text, token in zip(texts, tokens, strict=True)]
                )
        finally:  # also when whoever reads a stream stops reading
            decoding.close()

    def _decoding(self, samples: Sequence[Sample]) -> Decoding:
        language_model = self.model.language_model
        if language_model.is_encoder_decoder:
            return EncoderDecoderDecoding(self.model, samples)
        session: Session = (
            TorchSession(language_model, self._prefixes) if self._engine is None else OpenVinoSession(self._engine)
        )
        return CausalDecoding(self.model, samples, session, remember=self._kept > 0)

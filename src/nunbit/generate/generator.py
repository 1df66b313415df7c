"""Questions about pictures → answers."""

from __future__ import annotations

from collections import abc
from collections.abc import Sequence

from nunbit.generate.answer_text import AnswerText, endings_of
from nunbit.generate.config import GenerationConfig
from nunbit.generate.decoding import CausalDecoding, Decoding, EncoderDecoderDecoding
from nunbit.generate.openvino_decoding import OpenVinoDecoding, OpenVinoEngine
from nunbit.generate.prefix import PrefixCache
from nunbit.generate.sampling import Sampler
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
        engine: Computes the language model in place of torch, on the processor. It remembers one conversation.

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
        self.model, self.reader, self._engine = model, reader or SampleReader(model), engine
        self._prefixes = PrefixCache(kept) if kept and not model.language_model.is_encoder_decoder else None

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
        pieces = self._run([sample], config, self._prefixes)
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
        alone = self._prefixes if len(samples) == 1 else None
        return ["".join(pieces) for pieces in zip(*self._run(samples, config, alone), strict=True)]

    def _run(
        self, samples: Sequence[Sample], config: GenerationConfig, prefixes: PrefixCache | None
    ) -> abc.Generator[list[str], None, list[bool]]:
        """A piece of each answer at every step, many of them empty; at the end, which answers were cut."""
        tokenizer = self.reader.tokenizer
        endings = endings_of(self.model.config.chat, tokenizer, config.stop)
        texts = [AnswerText(tokenizer, endings) for _ in samples]
        sampler = Sampler(config, len(samples))
        decoding = self._decoding(samples, prefixes)
        steps = min(config.max_new_tokens, decoding.room)
        try:
            logits = decoding.first()
            for step in range(1, steps + 1):
                tokens = sampler(logits)
                yield ["" if text.done else text.add(token) for text, token in zip(texts, tokens, strict=True)]
                if all(text.done for text in texts) or step == steps:
                    break
                logits = decoding.next(tokens)
        finally:  # also when whoever reads a stream stops reading
            decoding.close()
        cut = [not text.done for text in texts]
        yield [text.finish() for text in texts]
        return cut

    def _decoding(self, samples: Sequence[Sample], prefixes: PrefixCache | None) -> Decoding:
        if self.model.language_model.is_encoder_decoder:
            return EncoderDecoderDecoding(self.model, samples)
        if self._engine is not None:
            return OpenVinoDecoding(self.model, samples, self._engine)
        return CausalDecoding(self.model, samples, prefixes)

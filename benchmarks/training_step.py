"""A step of contrastive training beside open_clip's: the same tiny model, the same batch, the same machine.

Usage: python benchmarks/training_step.py [--page] [--batch 256] [--large 4096] [--chunk 256]

A step is what each library's own loop does with a batch that is in memory: forward, loss, backward, clipping,
optimizer, clamping of the scale. open_clip's is the body of `open_clip_train.train.train_one_epoch` with its
`ClipLoss` and its grouping of parameters. Both start from one folder and must begin at the same loss. The model:
64-pixel pictures in patches of 8, six blocks 256 wide; texts of 32 tokens, four blocks 256 wide. Memory is that of a
process of its own, of a smaller model, since open_clip keeps the activations of all pairs: 32-pixel pictures, four
blocks 192 wide; texts of 16 tokens, two blocks 128 wide.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pages import Page, bar, compared, megabytes, table
from resident import peak_mb, resident_mb
from side_by_side import Peer, Turn, parser, pin, ratio, take_turns, tell, whole_process

STEPS = 3
"""Steps of one turn."""
OURS = "nunbit"
MODEL: dict[str, Any] = {"image_size": 64, "context_length": 32}
SMALL: dict[str, Any] = {
    "image_size": 32,
    "context_length": 16,
    "vision": {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 4},
    "text": {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
}


def main() -> None:
    """Measure."""
    made = parser(__doc__, rounds=5)
    made.add_argument("--batch", type=int, default=256, help="pairs of a step whose time is taken")
    made.add_argument("--large", type=int, default=4096, help="pairs of a step whose memory is measured")
    made.add_argument("--chunk", type=int, default=256, help="pairs that pass the towers at a time in that step, here")
    made.add_argument("--cores", type=int, default=2, help="to compute with")
    made.add_argument("--alone", nargs=3, help=argparse.SUPPRESS)
    arguments = made.parse_args()
    pin(arguments.cores)
    if arguments.alone:
        name, count, chunk = arguments.alone
        measure_alone(model_folder(arguments.scratch, SMALL), name, int(count), int(chunk))
        return
    folder = model_folder(arguments.scratch, MODEL)
    page = Page("training-step", f"A contrastive training step of {arguments.batch} pairs, beside open_clip's")
    images, ids = batch_of(arguments.batch, MODEL)
    names = ["open_clip fp32", "open_clip amp_bf16", f"{OURS} float32", f"{OURS} bfloat16"]
    steps = {name: open_step(name, folder, None) for name in names}
    first = {name: step(images, ids) for name, step in steps.items()}
    for name, loss in first.items():
        if abs(loss - first["open_clip fp32"]) > 0.02:
            page.wrong.append(f"{name} begins at a loss of {loss:.4f}, open_clip at {first['open_clip fp32']:.4f}")
    results = take_turns([Peer(name, turn(steps[name], images, ids)) for name in names], arguments.rounds)
    page.add(compared(results, results[0], "pairs"))
    page.add(bar("pairs a second, beside open_clip fp32, its default on a CPU", ratio(results[3], results[0]), 2.3))
    page.add(f"Beside open_clip amp_bf16: {ratio(results[3], results[1])} times.")
    page.add("Losses of the first step: " + ", ".join(f"{name} {loss:.4f}" for name, loss in first.items()) + ".")
    page.add(memory(arguments))
    page.close(to_file=arguments.page)


def model_folder(scratch: Path, sizes: dict[str, Any]) -> Path:
    """A model with random weights that both libraries open, made when it is not there."""
    import torch
    from nunbit.config import from_plain
    from nunbit.contrastive.config import ModelConfig, ScratchConfig
    from nunbit.contrastive.start import make_student

    folder = scratch / f"training-step-{sizes['image_size']}"
    if not (folder / "nunbit.json").is_file():
        torch.manual_seed(0)
        words = [f"a picture of number {number}" for number in range(3000)]
        config = ModelConfig(scratch=from_plain(ScratchConfig, sizes))
        make_student(config, words, name="tiny", license="").save(folder, {})
    return folder


def batch_of(count: int, sizes: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (N, S, S, 3) uint8, and ids (N, T) int64."""
    rng = np.random.default_rng(0)
    side = sizes["image_size"]
    return rng.integers(0, 256, (count, side, side, 3), np.uint8), rng.integers(
        1, 500, (count, sizes["context_length"])
    )


def turn(step: Callable[[np.ndarray, np.ndarray], float], images: np.ndarray, ids: np.ndarray) -> Callable[[], Turn]:
    """A few steps."""

    def go() -> Turn:
        start = time.perf_counter()
        for _ in range(STEPS):
            step(images, ids)
        return Turn(STEPS * len(images), time.perf_counter() - start)

    return go


def open_step(name: str, folder: Path, chunk: int | None) -> Callable[[np.ndarray, np.ndarray], float]:
    """A function that makes one step on pictures and ids, and gives the loss."""
    library, precision = name.split()
    if library == OURS:
        return our_step(folder, precision, chunk)
    return open_clip_step(folder, precision)


def our_step(folder: Path, precision: Any, chunk: int | None) -> Callable[[np.ndarray, np.ndarray], float]:
    """As `nunbit.training.loop` does it."""
    import torch
    from nunbit.contrastive.batches import Batch, BatchMaker
    from nunbit.contrastive.config import ContrastiveConfig, DataConfig, ModelConfig
    from nunbit.contrastive.start import make_student
    from nunbit.contrastive.task import ContrastiveTask
    from nunbit.data import SourceConfig
    from nunbit.losses import Identities
    from nunbit.training.config import TrainingConfig
    from nunbit.training.distributed import World
    from nunbit.training.loop import Stepper

    config = ContrastiveConfig(
        model=ModelConfig(start=str(folder)),
        data=DataConfig(train=(SourceConfig("none"),), chunk_size=chunk),
        training=TrainingConfig(learning_rate=1e-4, warmup_steps=0, precision=precision),
    )
    student = make_student(config.model, [], name="tiny", license="")
    maker: BatchMaker = None  # type: ignore[assignment]  # batches are made here
    task = ContrastiveTask(student, maker, (), config, precision, World())
    stepper = Stepper(task, config.training, World())
    end = student.settings.tokenizer.config.end_token_id  # type: ignore[attr-defined]

    def step(images: np.ndarray, ids: np.ndarray) -> float:
        ids = ids.copy()
        ids[:, -1] = end
        numbers = torch.arange(len(images))
        batch = Batch(torch.from_numpy(images), torch.from_numpy(ids), Identities(numbers, numbers), None)
        return stepper.step(0, batch)["loss"]

    return step


def open_clip_step(folder: Path, precision: str) -> Callable[[np.ndarray, np.ndarray], float]:
    """As `open_clip_train` does it: its precision, loss, groups, clipping and clamping."""
    import math

    import torch
    from nunbit.vision_encoder.timm_backbone import import_timm

    import_timm()  # before open_clip asks for torchvision, whose compiled part may not fit here
    import open_clip
    from open_clip_train.precision import get_autocast

    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}", precision=precision, output_dict=True)
    model.train()
    loss = open_clip.ClipLoss()
    autocast = get_autocast(precision, device_type="cpu")
    end = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]["text_cfg"]["eos_id"]
    named = list(model.named_parameters())
    plain = [p for n, p in named if p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n]
    chosen = {id(parameter) for parameter in plain}
    rest = [parameter for _, parameter in named if id(parameter) not in chosen]
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": rest, "weight_decay": 0.1}]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.98), eps=1e-6)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (model.visual.image_mean, model.visual.image_std))

    def step(images: np.ndarray, ids: np.ndarray) -> float:
        ids = ids.copy()
        ids[:, -1] = end
        pixels = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean) / std
        optimizer.zero_grad()
        with autocast():
            total = sum(loss(**model(pixels, torch.from_numpy(ids)), output_dict=True).values())
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, norm_type=2.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        return float(total.detach())

    return step


def measure_alone(folder: Path, name: str, count: int, chunk: int) -> None:
    """Two steps of one library in this process, reported as JSON."""
    step = open_step(name, folder, chunk or None)
    small, large = batch_of(8, SMALL), batch_of(count, SMALL)
    step(*small)
    base = resident_mb()
    start = time.perf_counter()
    step(*large)
    step(*large)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds / 2, "peak": peak_mb() * 1.048576, "extra": (peak_mb() - base) * 1.048576}))


def memory(arguments: argparse.Namespace) -> str:
    """A table, with the bar."""
    cases = [
        ("open_clip fp32", 0),
        ("open_clip amp_bf16", 0),
        (f"{OURS} bfloat16", 0),
        (f"{OURS} bfloat16", arguments.chunk),
    ]
    rows, peaks = [], []
    for name, chunk in cases:
        tell(f"memory of {name}, {arguments.large:,} pairs, chunk {chunk or 'none'}")
        case = ["--alone", name, str(arguments.large), str(chunk)]
        command = [
            sys.executable,
            __file__,
            "--cores",
            str(arguments.cores),
            "--scratch",
            str(arguments.scratch),
            *case,
        ]
        said: dict[str, Any] = whole_process(command)[0]
        peaks.append(said["peak"])
        shown = name + (f", {chunk} at a time" if chunk else "")
        extra, share = megabytes(said["extra"]), f"{said['peak'] / peaks[0]:.2f}"
        rows.append([shown, megabytes(said["peak"]), extra, share, f"{said['seconds']:.1f}"])
    share = peaks[-1] / peaks[0]
    met = "met" if share <= 0.5 else "not met"
    head = ["", "peak MB", "of it by the step", "times open_clip fp32", "s a step"]
    limit = f"Bar, peak memory at {arguments.large:,} pairs: at most 0.5 times. Found {share:.2f}: {met}."
    return f"## Memory, {arguments.large:,} pairs\n\n{table(head, rows)}\n\n{limit}"


if __name__ == "__main__":
    main()

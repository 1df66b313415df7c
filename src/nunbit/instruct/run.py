"""A run that teaches a vision-language model, from files of conversations to a model folder and a report."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from nunbit.config import read_config, to_plain
from nunbit.contrastive.run import choose_precision, package_versions
from nunbit.errors import UsageError
from nunbit.instruct.config import ConversationSource, InstructConfig, InstructModelConfig
from nunbit.instruct.formats import Conversation, read_conversations
from nunbit.instruct.lessons import Lessons
from nunbit.instruct.pictures import Pictures
from nunbit.instruct.task import InstructTask
from nunbit.language_model import NAMES, load_language_model
from nunbit.packaged_files import sha256_of
from nunbit.training.distributed import World, join_world
from nunbit.training.feature_store import FeatureStore
from nunbit.training.loop import Watcher, train
from nunbit.training.report import write_report
from nunbit.training.run_folder import RunFolder
from nunbit.types import Rejected
from nunbit.vlm.assembly import assemble, read_preset
from nunbit.vlm.batching import SampleReader
from nunbit.vlm.folder import VlmDescription, read_description, read_vlm, write_vlm
from nunbit.vlm.model import VisionLanguageModel
from nunbit.vlm.stages import set_stage


@dataclass(frozen=True, slots=True)
class InstructResult:
    """What a run gave.

    Attributes:
        model: The model folder.
        report: The page.
    """

    model: Path
    report: Path


def load_config(path: Path, overrides: Sequence[str] = ()) -> InstructConfig:
    """Read a configuration; paths in it start from the folder of its file.

    Raises:
        ConfigError: A setting that does not exist, or has a value of the wrong kind.
    """
    config = read_config(InstructConfig, path, overrides)
    here = path.resolve().parent

    def absolute(name: str) -> str:
        return str(here / name) if name and (here / name).exists() else name

    sources = [
        tuple(replace(one, path=str(here / one.path), images=absolute(one.images)) for one in group)
        for group in (config.data.train, config.data.validation)
    ]
    model = config.model
    return replace(
        config,
        model=replace(model, start=absolute(model.start), language_model=absolute(model.language_model)),
        data=replace(config.data, train=sources[0], validation=sources[1]),
    )


def run_instruct(config: InstructConfig, into: Path, watcher: Watcher, *, command: str = "") -> InstructResult | None:
    """Train, or go on with a run that was interrupted.

    Args:
        config: All of it.
        into: The run's folder.
        watcher: Told of each step.
        command: What the user typed, for the report.

    Returns:
        What came of it; None on all processes but the first.

    Raises:
        UsageError: The folder holds another run, or a file is not there.
        TrainingError: No sample can be used, or the loss is no number any more.
    """
    with join_world(config.training.device) as world:
        folder = RunFolder(into, rank=world.rank)
        precision = config.training.precision or choose_precision(world.device)
        if not world.leads:
            world.wait()  # until the folder is known to be ours
            return _Run(config, folder, world).finish(precision, watcher)
        plain: dict[str, Any] = to_plain(config)
        plain["training"] |= {"precision": precision}
        resolved = plain | {
            "command": command or " ".join(sys.argv),
            "data_fingerprint": _fingerprint([*config.data.train, *config.data.validation]),
            "versions": package_versions(),
        }
        with folder.opened(resolved):
            world.wait()
            return _Run(config, folder, world).finish(precision, watcher)


class _Run:
    """The parts of one run."""

    def __init__(self, config: InstructConfig, folder: RunFolder, world: World) -> None:
        self.config, self.folder, self.world = config, folder, world
        torch.manual_seed(config.training.seed)
        self.model, self.described = make_model(config.model)
        self.reader = SampleReader(self.model)
        self.stage = config.model.learns or self.model.config.stage(config.model.stage)
        if self.stage.plain:
            self.reader = self.reader.plain()

    def finish(self, precision: Any, watcher: Watcher) -> InstructResult | None:
        """Write the samples down, train, save, report."""
        config, world = self.config, self.world
        files = [[self._read(source) for source in group] for group in (config.data.train, config.data.validation)]
        train_set, held_out = (_repeat(group) for group in files)
        if self.stage.plain:
            train_set, held_out = ([one.captioned() for one in group] for group in (train_set, held_out))
        pictures = self._pictures([*train_set, *held_out])
        set_aside = self.folder.set_aside
        lessons = Lessons(train_set, self.reader, pictures, config.data, set_aside)
        measured = Lessons(held_out, self.reader, pictures, config.data, set_aside) if held_out else None
        if world.leads:
            self.folder.check_start(_start_fingerprint(config.model))
        names = set_stage(self.model, self.stage)
        self.model.to(world.device)
        if precision == "bfloat16" and self.described.language_model is not None:
            _lower_frozen(self.model)
        task = InstructTask(
            self.model, self.stage, lessons, measured, config.training, precision=precision, world=world
        )
        train(task, config.training, self.folder, world, watcher)
        world.wait()
        if not world.leads:
            return None
        self.folder.gather_ledgers()
        return self._save(len(lessons), names)

    def _read(self, source: ConversationSource) -> tuple[list[Conversation], float]:
        images = Path(source.images) if source.images else None
        return list(read_conversations(Path(source.path), self.folder.set_aside, images=images)), source.share

    def _pictures(self, conversations: Sequence[Conversation]) -> Pictures:
        pictures = Pictures(self.model, self.reader.looker)
        kind, eye = self.config.data.cache, self.model.eye
        learns = any(name.split(".")[0] == "eye" for name in self.stage.train)
        if kind is None or learns or self.model.config.tiles is not None:
            return pictures
        places = self.folder.path / "features"
        if not self.world.leads:
            self.world.wait()
        store = FeatureStore(places, "eye", eye.num_patches * eye.hidden_size, kind)
        shown = [image for one in conversations for image in one.images]
        pictures.look_once(shown, store, self.folder.set_aside if self.world.leads else _ignore)
        if self.world.leads:
            self.world.wait()
        return pictures

    def _save(self, samples: int, names: Sequence[str]) -> InstructResult:
        config = self.config
        provenance = {
            "nunbit": version("nunbit"),
            "stage": config.model.stage,
            "seed": config.training.seed,
            "steps": config.training.steps,
            "samples": samples,
            "files": ", ".join(Path(source.path).name for source in config.data.train),
            "parameters that learned": sum(
                parameter.numel() for name, parameter in self.model.named_parameters() if name in set(names)
            ),
        }
        described = replace(self.described, lora=self.stage.lora, license=config.license, provenance=provenance)
        write_vlm(self.folder.model, self.model, described, card=_card(config, described))
        return InstructResult(self.folder.model, write_report(self.folder.path))


def make_model(config: InstructModelConfig) -> tuple[VisionLanguageModel, VlmDescription]:
    """The model that a run begins with, and what a folder of it will say.

    Raises:
        ConfigError: No such preset.
        UsageError: A preset in its real size without weights.
    """
    if config.start:
        start = Path(config.start)
        described = read_description(start)
        if described.lora is not None:  # they are part of its weights by now, which no package has
            described = replace(described, lora=None, language_model=None)
        return read_vlm(start).requires_grad_(True), described
    parts = config.parts or read_preset(config.preset, tiny=config.tiny)
    if not config.language_model:
        hint = "model.language_model: a folder, a .gguf file, or one of " + ", ".join(NAMES)
        raise UsageError("there are no weights of a language model to begin with", hint=hint)
    model = assemble(parts, load_language_model(config.language_model))
    named = config.language_model if config.language_model in NAMES else None
    return model, VlmDescription(config=model.config, language_model=named)


def _repeat(sources: Sequence[tuple[list[Conversation], float]]) -> list[Conversation]:
    """All samples, as often as their source says; of a part of a source every so many-th."""
    found: list[Conversation] = []
    for conversations, share in sources:
        whole, rest = divmod(share, 1)
        found += conversations * int(whole)
        count = round(rest * len(conversations))
        found += [conversations[number * len(conversations) // count] for number in range(count)]
    return found


def _lower_frozen(model: VisionLanguageModel) -> None:
    """Keep matrices that never change in what they are multiplied in, so that no step rounds them anew."""
    for part in model.language_model.modules():
        for name, parameter in part.named_parameters(recurse=False):
            if not parameter.requires_grad and parameter.ndim == 2:
                setattr(part, name, torch.nn.Parameter(parameter.detach().bfloat16(), requires_grad=False))


def _fingerprint(sources: Sequence[ConversationSource]) -> str:
    """Of the files of conversations; that of a picture is not read."""
    digest = hashlib.sha256()
    for source in sources:
        path = Path(source.path)
        if not path.is_file():
            raise UsageError(f"there is no {path}")
        digest.update(f"{sha256_of(path)} {source.share}\n".encode())
    return digest.hexdigest()


def _start_fingerprint(config: InstructModelConfig) -> str:
    """Of the weights that a run begins with: packages have theirs verified, folders and files are read."""
    digest = hashlib.sha256(f"{config.preset} {config.language_model}".encode())
    for place in map(Path, filter(None, (config.start, config.language_model))):
        files = sorted(place.rglob("*.safetensors")) if place.is_dir() else [place] if place.is_file() else []
        for file in files:
            digest.update(sha256_of(file).encode())
    return digest.hexdigest()


def _card(config: InstructConfig, described: VlmDescription) -> str:
    lines = "\n".join(f"- {name}: {value}" for name, value in described.provenance.items())
    front = f"---\nlicense: {config.license or 'unknown'}\n---\n"
    return f"{front}# {config.name}\n\nA vision-language model, trained with nunbit.\n\n{lines}\n"


def _ignore(_: Rejected) -> None:
    """Another process tells of it."""

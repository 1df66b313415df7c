"""The one training loop.

A task brings a module, batches and their gradients; the loop brings everything else: the optimizer and its schedule,
averages, clipping, several processes, checkpoints and exact resume, the log, the diagnosis.

Nothing random is carried from step to step: every step starts torch's generators from the seed and its own number,
and a task makes its batches from the number of the step. So a checkpoint after step k holds all that step k + 1 needs,
and a run that was killed ends as one that was not, bit for bit on the same kind of CPU.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from nunbit.errors import TrainingError, UsageError
from nunbit.training.averaging import WeightAverage, trained_parameters
from nunbit.training.checkpoint import Checkpoint, list_checkpoints, load_checkpoint, save_checkpoint
from nunbit.training.config import TrainingConfig, rate_factor
from nunbit.training.diagnosis import Diagnosis, Finding
from nunbit.training.distributed import World, forget_gathered, gradient_norm, sum_gradients, whole
from nunbit.training.metrics import MetricLog
from nunbit.training.parameters import make_optimizers
from nunbit.training.run_folder import RunFolder

B = TypeVar("B")
_GIVE_UP = 20  # steps without numbers, one after the other
_SEED_STRIDE = 1_000_003  # between the seeds of steps; a prime, so that seeds of near runs do not meet


class Task(Protocol[B]):
    """What is learned."""

    @property
    def module(self) -> nn.Module:
        """Holds everything that is trained."""

    def rate_factor(self, name: str) -> float:
        """A parameter's share of the learning rate."""

    def batches(self, start: int) -> Generator[B]:
        """One batch a step, from step ``start`` on, the same whenever it is asked."""

    def backward(self, batch: B) -> dict[str, float]:
        """Add the gradients of this rank's share to the parameters.

        Returns:
            ``loss``, the same on all ranks; whatever `Diagnosis.observe` knows; and what else is worth a curve.
        """

    def constrain(self) -> None:
        """Bring parameters back to where they may be, after each step."""

    def evaluate(self, step: int) -> dict[str, float]:
        """Measure the module as it is, on rank 0 alone unless it is divided; names begin with ``validation/``."""


class Watcher(Protocol):
    """Whoever watches a run."""

    def progress(self, step: int, values: Mapping[str, float]) -> None:
        """Be told of each step, counted from 1."""

    def found(self, finding: Finding) -> None:
        """Be told what goes wrong."""


def train(task: Task[B], config: TrainingConfig, folder: RunFolder, world: World, watcher: Watcher) -> None:
    """Train to the last step, from the newest checkpoint if there is one.

    The module ends with the averaged weights, where there is an average.

    Raises:
        TrainingError: Twenty steps one after the other gave no numbers.
        StoreError: A checkpoint cannot be read.
    """
    _Run(task, config, folder, world, watcher).run()


class Stepper:
    """Makes steps: gradients of a task, their sum over the ranks, clipping, the optimizers, the average.

    Args:
        task: What is learned.
        config: How parameters move.
        world: This process among others.
    """

    def __init__(self, task: Task[Any], config: TrainingConfig, world: World) -> None:
        self._task, self._config, self._world = task, config, world
        self.optimizers = make_optimizers(task.module, config, task.rate_factor)
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        self._trained = [parameter for group in groups for parameter in group["params"]]
        self.average = WeightAverage(task.module, config.ema_decay) if config.ema_decay else None
        self.without_numbers = 0

    def step(self, step: int, batch: Any) -> dict[str, float]:
        """Make one.

        Args:
            step: Its number, from 0; with the seed it decides every random choice.
            batch: As the task makes it.

        Returns:
            The task's numbers, ``learning_rate`` and ``gradient_norm``.

        Raises:
            TrainingError: Twenty steps one after the other gave no numbers.
        """
        train_mode(self._task.module)
        torch.manual_seed((self._config.seed * _SEED_STRIDE + step) * self._world.size + self._world.rank)
        rate = rate_factor(step, self._config)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group["peak_rate"]
            optimizer.zero_grad(set_to_none=True)
        values = self._task.backward(batch)
        sum_gradients(self._trained, self._world)
        norm = self._clip()
        if math.isfinite(values["loss"]) and math.isfinite(norm):
            for optimizer in self.optimizers:
                optimizer.step()
            self._task.constrain()
            self.without_numbers = 0
            if self.average is not None:
                self.average.update(step)
        else:
            self._note_without_numbers(step)
        return values | {"learning_rate": rate * self._config.learning_rate, "gradient_norm": norm}

    def averaged(self, *, keep: bool = False) -> AbstractContextManager[None]:
        """Have the module carry the averages, where there are any, while the block runs, or for good."""
        return nullcontext() if self.average is None else self.average.applied(keep=keep)

    def _clip(self) -> float:
        norm = float(gradient_norm(self._trained))
        limit = self._config.gradient_clip
        if limit and norm > limit:
            for parameter in self._trained:
                if parameter.grad is not None:
                    parameter.grad.mul_(limit / norm)
        return norm

    def _note_without_numbers(self, step: int) -> None:
        self.without_numbers += 1
        if self.without_numbers == _GIVE_UP:
            raise TrainingError(
                f"the last {_GIVE_UP} steps before step {step + 1} gave no numbers",
                hint="lower learning_rate, keep gradient_clip at 1, or set precision: float32; "
                "the last checkpoint may carry the damage already: delete it",
            )


class _Run:
    def __init__(
        self, task: Task[Any], config: TrainingConfig, folder: RunFolder, world: World, watcher: Watcher
    ) -> None:
        self.task, self.config, self.folder, self.world, self.watcher = task, config, folder, world, watcher
        self.stepper = Stepper(task, config, world)
        self.metrics = MetricLog(folder.path, tensorboard=config.tensorboard) if world.leads else None
        self.diagnosis = Diagnosis(config.warmup_steps)

    def run(self) -> None:
        start = self._restore()
        if self.metrics is not None:
            self.metrics.truncate(start)
        clock = _Clock(self.metrics)
        with closing(self.task.batches(start)) as batches:  # its threads end before the processes part
            for step in range(start, self.config.steps):
                values = self.stepper.step(step, next(batches))
                self._report(step + 1, values | clock.read(values, self.world.device))
                self._keep(step + 1)
        with self.stepper.averaged(keep=True):
            pass

    def _keep(self, done: int) -> None:
        last = done == self.config.steps
        if last or (self.config.evaluate_every and done % self.config.evaluate_every == 0):
            self._evaluate(done)
        if last or done % self.config.checkpoint_every == 0:
            self._save(done)

    def _report(self, step: int, values: dict[str, float]) -> None:
        if not self.world.leads or self.metrics is None:
            return
        for finding in self.diagnosis.observe(step, values):
            self.folder.note(finding)
            self.watcher.found(finding)
        if step % self.config.log_every == 0 or step == self.config.steps:
            self.metrics.write(step, **values)
        self.watcher.progress(step, values)

    def _evaluate(self, step: int) -> None:
        if self.world.leads or self.config.fsdp:
            self.task.module.eval()
            with self.stepper.averaged(), torch.no_grad():
                found = self.task.evaluate(step)
            forget_gathered(self.task.module)
            if self.metrics is not None and found:
                self.metrics.write(step, **found)
        self.world.wait()

    def _save(self, step: int) -> None:
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        states: tuple[Any, Any] = get_state_dict(self.task.module, self.stepper.optimizers, options=options)
        averages = (
            {}
            if self.stepper.average is None
            else {n: whole(value) for n, value in self.stepper.average.averages.items()}
        )
        if self.world.leads:  # the others were given nothing
            module, optimizer = states
            frozen = self._frozen()
            tensors = {f"module/{name}": value for name, value in module.items() if name not in frozen}
            for name, state in optimizer["state"].items():
                tensors |= {f"optimizer/{name}/{key}": value for key, value in state.items()}
            tensors |= {f"average/{name}": value for name, value in averages.items()}
            plain = {"groups": optimizer["param_groups"], "without_numbers": self.stepper.without_numbers}
            checkpoint = Checkpoint(step, tensors, plain)
            save_checkpoint(self.folder.checkpoints, checkpoint, keep=self.config.keep_checkpoints)
        self.world.wait()

    def _restore(self) -> int:
        """Take the newest checkpoint, if there is one; its step."""
        found = list_checkpoints(self.folder.checkpoints)
        if not self.world.agree(int(found[-1].name.rpartition("-")[2]) if found else 0):
            message = f"the processes see different checkpoints in {self.folder.path}"
            raise UsageError(message, hint="the folder of a run must lie on a disk that all of them share")
        if not found:
            return 0
        checkpoint = load_checkpoint(found[-1])
        tensors = checkpoint.tensors
        states: dict[str, dict[str, Tensor]] = {}
        for name, value in _below(tensors, "optimizer/").items():
            owner, _, key = name.rpartition("/")
            states.setdefault(owner, {})[key] = value
        optimizer: Any = {"state": states, "param_groups": checkpoint.plain["groups"]}
        options = StateDictOptions(full_state_dict=True, strict=False)
        module: dict[str, Any] = _below(tensors, "module/")
        set_state_dict(
            self.task.module,
            self.stepper.optimizers,
            model_state_dict=module,
            optim_state_dict=optimizer,
            options=options,
        )
        if self.stepper.average is not None:
            self.stepper.average.load(_below(tensors, "average/"))
        self.stepper.without_numbers = int(checkpoint.plain["without_numbers"])
        return checkpoint.step

    def _frozen(self) -> set[str]:
        """Names of what never changes: the start has it."""
        trained = trained_parameters(self.task.module)
        return {name for name, _ in self.task.module.named_parameters() if name not in trained}


class _Clock:
    """Seconds, samples a second and memory of a run; seconds go on where an interrupted run had stopped."""

    def __init__(self, metrics: MetricLog | None) -> None:
        rows = [] if metrics is None else metrics.rows()
        self._before = max((float(row["seconds"]) for row in rows if row.get("seconds") is not None), default=0.0)
        self._begin = self._last = time.perf_counter()

    def read(self, values: Mapping[str, float], device: torch.device) -> dict[str, float]:
        """What to add to the numbers of a step; ``samples`` in it says how many it saw."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()
        return {
            "samples_per_second": values.get("samples", 0.0) / max(seconds, 1e-9),
            "memory_mb": memory / 1e6,
            "seconds": self._before + now - self._begin,
        }


def peak_memory() -> int:
    """The most memory that this process has had resident, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def train_mode(module: nn.Module) -> None:
    """As `nn.Module.train`, but that batch norms which learn nothing keep their running statistics."""
    module.train()
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and not any(p.requires_grad for p in part.parameters()):
            part.eval()


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

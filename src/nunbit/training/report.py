"""The run report: what a run folder holds, as one page that needs nothing beside it.

Place in the river: after training, or during it: the page shows what there is so far. Everything that comes from a file
is escaped, cut to a bounded length, and shown in a bounded number, so that a page has at most 5 MB whatever the run.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nunbit.durable import replace_file
from nunbit.pages.charts import draw_chart, shown_number
from nunbit.pages.page import headline, make_page, section, shown_text
from nunbit.training.report_curves import VALIDATION, column, make_charts, recalls_at_1
from nunbit.training.report_examples import draw_matrices, draw_retrieval
from nunbit.training.report_run import Diagnosis, Run, read_run
from nunbit.types import Rejected

REPORT = "report.html"

_MOST_ROWS, _MOST_REASONS, _MOST_BOXES, _MOST_NOTES = 300, 30, 12, 20
_EXAMPLE_PATHS = 3
_DEEPEST = 6  # levels of the configuration
_LONG = 400


def write_report(folder: Path) -> Path:
    """Write ``folder/report.html`` from what the folder holds; the page is whole or not there.

    Read are ``config.json`` (any names and values; ``name``, ``command``, a text or a list of words, and ``versions``
    have places of their own), ``metrics.jsonl``, ``ledger.jsonl``, ``diagnosis.jsonl`` and ``examples/step-*.json``.
    What is missing is left out; what cannot be understood is told in the page. The same folder gives the same page.

    Args:
        folder: Of the run, which may be at work.

    Returns:
        The page's path.

    Raises:
        UsageError: It holds neither a configuration nor a metric log.
    """
    run = read_run(folder)
    page = make_page(f"{run.name}: training run", _body(run))
    replace_file(folder / REPORT, lambda file: file.write(page))
    return folder / REPORT


def _body(run: Run) -> Iterator[str]:
    charts, left_out = make_charts(run.rows)
    if left_out:
        run.notes.append(f"{len(left_out):,} further numbers of the log have no chart, such as {left_out[0]}")
    yield from _head(run)
    yield from _diagnoses(run.diagnoses)
    yield from _headline(run.rows)
    yield from section("Curves", (f'<div class="charts">{"".join(map(draw_chart, charts))}</div>\n',) if charts else ())
    yield from section("Similarity of pictures and texts", draw_matrices(run.examples))
    yield from section("Retrieval", draw_retrieval(run.examples[-1]) if run.examples else ())
    yield from section("Set aside", _set_aside(run.rejected))
    yield from section("To repeat it", _command(run.config))
    yield from section("Configuration", _configuration(run.config))
    yield from section("Notes", _notes(run.notes))


def _head(run: Run) -> Iterator[str]:
    facts = []
    versions = run.config.get("versions")
    if isinstance(versions, dict) and "nunbit" in versions:
        facts.append(f"nunbit {versions['nunbit']}")
    training = run.config.get("training")
    seed = run.config.get("seed", training.get("seed") if isinstance(training, dict) else None)
    if isinstance(seed, int):
        facts.append(f"seed {seed}")
    shown = " · ".join(shown_text(fact) for fact in facts)
    yield f'<header><p class="kind">Training run</p><h1>{shown_text(run.name, 120)}</h1><p>{shown}</p></header>\n'


def _diagnoses(diagnoses: list[Diagnosis]) -> Iterator[str]:
    """A box for each problem, with the words that were said last."""
    steps: dict[str, list[int]] = defaultdict(list)
    for item in diagnoses:
        steps[item.problem].append(item.step)
    last = {item.problem: item for item in diagnoses}
    for problem, item in list(last.items())[:_MOST_BOXES]:
        at = steps[problem]
        when = f"step {at[0]:,}" if len(at) == 1 else f"{len(at):,} times, steps {min(at):,} to {max(at):,}"
        words, remedy = _with_code(item.words), _with_code(item.remedy)
        helps = f"<p><b>What helps:</b> {remedy}</p>" if item.remedy else ""
        yield (
            f'<aside class="problem"><h3>{shown_text(problem)}<small>{when}</small></h3><p>{words}</p>{helps}</aside>\n'
        )
    if len(last) > _MOST_BOXES:
        yield f"<p>and {len(last) - _MOST_BOXES:,} further problems in diagnosis.jsonl</p>\n"


def _with_code(words: str) -> str:
    """Escaped, with what stands between backticks set as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", shown_text(words, _LONG))


def _headline(rows: list[dict[str, Any]]) -> Iterator[str]:
    if not rows:
        yield '<p class="lead">No step has been written yet.</p>\n'
        return
    _, losses = column(rows, "loss")
    seconds, speed, memory = (_finite(rows, name) for name in ("seconds", "samples_per_second", "memory_mb"))
    tiles = (
        ("Steps", f"{rows[-1]['step']:,}", ""),
        ("Time", _duration(seconds.max()) if len(seconds) else "", ""),
        ("Last loss", shown_number(losses[-1]) if len(losses) else "", ""),
        _best_validation(rows),
        ("Speed", shown_number(float(np.median(speed))) if len(speed) else "", "pairs a second, median"),
        ("Memory", _memory(memory.max()) if len(memory) else "", "at most"),
    )
    yield headline(tiles)


def _finite(rows: list[dict[str, Any]], name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    _, values = column(rows, name)
    return values[np.isfinite(values)]


def _best_validation(rows: list[dict[str, Any]]) -> tuple[str, str, str]:
    """The best recall at 1, as `recalls_at_1` means it; without one, the lowest loss."""
    steps, recalls = recalls_at_1(rows)
    if np.isfinite(recalls).any():
        place = int(np.nanargmax(recalls))
        return "Best recall at 1", f"{recalls[place]:.1f} %", f"mean, at step {steps[place]:,.0f}"
    steps, losses = column(rows, f"{VALIDATION}loss")
    if np.isfinite(losses).any():
        place = int(np.nanargmin(losses))
        return "Best validation loss", shown_number(losses[place]), f"at step {steps[place]:,.0f}"
    return "Best validation", "", ""


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    days, hours = divmod(minutes // 60, 24)
    return f"{days:,} d {hours} h" if days else f"{hours} h {minutes % 60} min"


def _memory(megabytes: float) -> str:
    return shown_number(megabytes, "MB") if megabytes < 1000 else shown_number(megabytes / 1000, "GB")


def _set_aside(rejected: list[Rejected]) -> Iterator[str]:
    """Pictures by reason, the most frequent first, each with a few of them."""
    if not rejected:
        return
    counts = Counter(item.reason for item in rejected)
    some: dict[str, list[Rejected]] = defaultdict(list)
    for item in rejected:
        if len(some[item.reason]) < _EXAMPLE_PATHS:
            some[item.reason].append(item)
    plural = "picture was" if len(rejected) == 1 else "pictures were"
    yield f'<p class="lead">{len(rejected):,} {plural} set aside and took no part.</p>\n<table class="ledger">'
    yield '<thead><tr><th scope="col">Reason</th><th scope="col">Pictures</th><th scope="col">Such as</th></tr></thead>'
    yield "<tbody>\n"
    for reason, count in counts.most_common(_MOST_REASONS):
        such = "".join(
            f"<li><code>{shown_text(item.path)}</code> {shown_text(item.detail.removeprefix(f'{item.path}: '))}</li>"
            for item in some[reason]
        )
        share = f'<i style="--share:{100 * count / len(rejected):.1f}%"></i>'
        yield f'<tr><th scope="row">{shown_text(reason)}</th><td>{count:,}{share}</td><td><ul>{such}</ul></td></tr>\n'
    yield "</tbody></table>\n"
    if len(counts) > _MOST_REASONS:
        yield f"<p>and {len(counts) - _MOST_REASONS:,} further reasons in ledger.jsonl</p>\n"


def _command(config: dict[str, Any]) -> Iterator[str]:
    command = config.get("command")
    if isinstance(command, list):
        command = shlex.join(map(str, command))
    if isinstance(command, str) and command.strip():
        yield f"<pre><code>{shown_text(command, 4000)}</code></pre>\n"


def _configuration(config: dict[str, Any]) -> Iterator[str]:
    """A table for each group of names, those that stand alone first, versions last."""
    groups: dict[str, list[tuple[str, str]]] = {"": []}
    for name, value in sorted(config.items(), key=lambda item: item[0] == "versions"):
        if members := _members(value):
            groups[name] = list(_flat(members))
        elif name not in ("command", "name"):
            groups[""].append((name, _shown_value(value)))
    left = _MOST_ROWS
    for group, rows in groups.items():
        if rows[:left]:
            title = f"<caption>{shown_text(group)}</caption>" if group else ""
            body = "".join(
                f'<tr><th scope="row">{shown_text(name)}</th><td>{shown_text(value, _LONG)}</td></tr>\n'
                for name, value in rows[:left]
            )
            yield f'<table class="config">{title}<tbody>\n{body}</tbody></table>\n'
        left = max(0, left - len(rows))
    if not left:
        yield "<p>The rest is in config.json.</p>\n"


def _flat(members: dict[str, Any], above: str = "", depth: int = 1) -> Iterator[tuple[str, str]]:
    for name, value in members.items():
        if depth < _DEEPEST and (inner := _members(value)):
            yield from _flat(inner, f"{above}{name}.", depth + 1)
        else:
            yield f"{above}{name}", _shown_value(value)


def _members(value: Any) -> dict[str, Any]:
    """What is to be shown by name: of a list that holds others, each by its place."""
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        return {str(place): item for place, item in enumerate(value)}
    return value if isinstance(value, dict) else {}


def _shown_value(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and not _members(value):
        return ", ".join(map(_shown_value, value))
    return "…" if value and isinstance(value, (dict, list)) else json.dumps(value)


def _notes(notes: list[str]) -> Iterator[str]:
    if notes:
        more = [f"and {len(notes) - _MOST_NOTES:,} further ones"] if len(notes) > _MOST_NOTES else []
        items = "".join(f"<li>{shown_text(note, _LONG)}</li>" for note in [*notes[:_MOST_NOTES], *more])
        yield f"<ul>{items}</ul>\n"

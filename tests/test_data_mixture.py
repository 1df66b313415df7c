"""The mixed stream: every record once a pass, shares by weight, and the same whoever reads it, from wherever."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nunbit.data import Mixture, SourceConfig
from nunbit.data.source import Draft, Source
from nunbit.errors import ConfigError, UsageError
from nunbit.types import ImageText, Rejected
from picture_sources import members, png, rows, write_folder, write_jsonl, write_parquet, write_tar

SIZES = {"lines": 23, "groups": 11, "shards": 18, "album": 7}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SourceConfig]:
    """One of every kind that divides itself in another way; a row of ``lines`` is bad."""
    folder = tmp_path_factory.mktemp("sources")
    lines = rows(24)
    lines[5]["text"] = ""
    write_jsonl(folder / "lines.jsonl", lines)
    write_parquet(folder / "groups.parquet", [row | {"image": png(row["n"])} for row in rows(11)], group=4)
    (folder / "shards").mkdir()
    for number in range(3):
        mode = "w:gz" if number == 1 else "w"
        name = f"{number}.tar.gz" if number == 1 else f"{number}.tar"
        write_tar(folder / "shards" / name, members(rows(6, number * 6)), mode)
    write_folder(folder / "album", rows(7))
    paths = {"lines": "lines.jsonl", "groups": "groups.parquet", "shards": "shards/?.tar*", "album": "album"}
    return {name: SourceConfig(str(folder / path), name=name) for name, path in paths.items()}


chosen = st.lists(st.sampled_from(list(SIZES)), min_size=1, max_size=4, unique=True)
several = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def keys(stream: Iterator[tuple[int, ImageText]], count: int) -> list[str]:
    return [record.key for _, record in islice(stream, count)]


@several
@given(names=chosen, seed=st.integers(), buffer=st.integers(1, 40), passes=st.integers(1, 3))
def test_every_record_comes_exactly_once_a_pass(
    sources: dict[str, SourceConfig], names: list[str], seed: int, buffer: int, passes: int
) -> None:
    rejected: list[Rejected] = []
    mixture = Mixture(
        [sources[name] for name in names],
        seed=seed,
        shuffle_buffer=buffer,
        passes=passes,
        on_rejected=rejected.append,
    )
    found = list(mixture.stream())
    assert [position for position, _ in found] == list(range(passes * sum(SIZES[name] for name in names)))
    for name in names:
        own = [record.key for _, record in found if record.source == name]
        turns = [own[turn * SIZES[name] : (turn + 1) * SIZES[name]] for turn in range(passes)]
        assert all(len(set(turn)) == SIZES[name] for turn in turns)
        assert len({frozenset(turn) for turn in turns}) == 1
    assert [item.path for item in rejected] == ["lines:lines.jsonl:6"] * ("lines" in names)
    list(mixture.stream())
    assert len(rejected) == ("lines" in names)


@several
@given(
    names=chosen,
    seed=st.integers(0, 99),
    start=st.integers(0, 150),
    passes=st.sampled_from([None, 1, 2, 4]),
    buffer=st.sampled_from([1, 5, 100]),
)
def test_a_start_is_the_same_stream_further_on(
    sources: dict[str, SourceConfig], names: list[str], seed: int, start: int, passes: int | None, buffer: int
) -> None:
    configs = [sources[name] for name in names]
    mixture = Mixture(configs, seed=seed, shuffle_buffer=buffer, passes=passes)
    whole = list(islice(mixture.stream(), start + 30))
    fresh = Mixture(configs, seed=seed, shuffle_buffer=buffer, passes=passes)
    assert list(islice(fresh.stream(start), 30)) == whole[start:]


@several
@given(world=st.integers(1, 5), seed=st.integers(0, 99))
def test_readers_that_take_turns_see_the_whole_stream(sources: dict[str, SourceConfig], world: int, seed: int) -> None:
    mixture = Mixture(list(sources.values()), seed=seed, shuffle_buffer=10)
    shares = [list(islice(mixture.stream(wanted=lambda p, rank=rank: p % world == rank), 20)) for rank in range(world)]
    assert sorted(item for share in shares for item in share) == list(islice(mixture.stream(), 20 * world))


def test_what_is_not_wanted_or_lies_before_the_start_is_not_read(
    sources: dict[str, SourceConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    load = Draft.load
    monkeypatch.setattr(Draft, "load", lambda draft, name: loaded.append(draft.key) or load(draft, name))
    stream = Mixture(list(sources.values()), seed=3).stream(40, wanted=lambda p: p % 10 == 0)
    assert keys(stream, 3) == loaded


def test_whole_passes_before_the_start_cost_nothing(
    sources: dict[str, SourceConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    drafts = type(Mixture([sources["groups"]], seed=0).sources[0]).drafts
    monkeypatch.setattr(
        "nunbit.data.tables.ParquetSource.drafts", lambda self, part: opened.append(part) or drafts(self, part)
    )
    mixture = Mixture([sources["groups"]], seed=0)
    assert next(mixture.stream(11 * 1000 + 2))[0] == 11 * 1000 + 2
    assert len(opened) <= 3 * 3  # the first pass, the second that tells of its end, and the one that it is in


def test_passes_differ_and_so_do_seeds_and_sources(sources: dict[str, SourceConfig]) -> None:
    for name, size in SIZES.items():
        found = keys(Mixture([sources[name]], seed=1).stream(), size * 5)
        turns = {tuple(found[turn * size : (turn + 1) * size]) for turn in range(5)}
        assert len(turns) == 5
        assert tuple(keys(Mixture([sources[name]], seed=2).stream(), size)) not in turns
    twin = SourceConfig(sources["lines"].path, name="twin")
    found = keys(Mixture([twin], seed=1).stream(), 23)
    assert [key.split(":")[2] for key in found] != [
        key.split(":")[2] for key in keys(Mixture([sources["lines"]], seed=1).stream(), 23)
    ]


def test_the_first_record_may_be_any_and_parts_change_places(sources: dict[str, SourceConfig]) -> None:
    first = Counter(keys(Mixture([sources["lines"]], seed=seed).stream(), 1)[0] for seed in range(200))
    assert len(first) > 18
    unbuffered = [keys(Mixture([sources["shards"]], seed=seed, shuffle_buffer=1).stream(), 18) for seed in range(20)]
    orders = {tuple(dict.fromkeys(key.split(":")[1] for key in found)) for found in unbuffered}
    assert len(orders) == 6


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(weights=st.lists(st.sampled_from([0.25, 1.0, 2.0, 3.5]), min_size=2, max_size=2), seed=st.integers(0, 50))
@pytest.mark.parametrize(("other", "counted"), [("groups", True), ("shards", False)])
def test_shares_follow_weights(
    sources: dict[str, SourceConfig], weights: list[float], seed: int, other: str, counted: bool
) -> None:
    names = ["lines", other]
    configs = [SourceConfig(sources[n].path, name=n, weight=w) for n, w in zip(names, weights, strict=True)]
    mixture = Mixture(configs, seed=seed)
    counts = [24, 11] if counted else [1, 1]
    parts = [weight * count for weight, count in zip(weights, counts, strict=True)]
    share = parts[0] / sum(parts)
    assert mixture.shares() == pytest.approx([share, 1 - share])
    total = 1500
    drawn = sum(key.startswith("lines:") for key in keys(mixture.stream(), total))
    assert abs(drawn - total * share) < 5 * math.sqrt(total * share * (1 - share))


def test_epochs_are_known_where_counts_are(sources: dict[str, SourceConfig]) -> None:
    assert Mixture([sources["lines"], sources["groups"]], seed=0).epoch_size() == 24 + 11
    assert Mixture([sources["lines"], sources["shards"]], seed=0).epoch_size() is None


def test_the_signature_covers_sources_and_weights(sources: dict[str, SourceConfig]) -> None:
    def signature(*configs: SourceConfig) -> str:
        return Mixture(configs, seed=0).signature()

    lines, groups = sources["lines"], sources["groups"]
    heavier = SourceConfig(lines.path, name="lines", weight=2.0)
    assert signature(lines, groups) == signature(lines, groups)
    assert len({signature(lines), signature(groups), signature(lines, groups), signature(heavier)}) == 4


def test_bytes_bound_the_buffer(sources: dict[str, SourceConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nunbit.data.mixture.BUFFER_BYTES", 3 * len(png()))
    ahead: list[int] = []
    drafts = type(Mixture([sources["groups"]], seed=0).sources[0]).drafts

    def counted(self: Source, part: int) -> Iterator[Any]:
        for draft in drafts(self, part):
            ahead.append(1)
            yield draft

    monkeypatch.setattr("nunbit.data.tables.ParquetSource.drafts", counted)
    stream = Mixture([sources["groups"]], seed=0, passes=1).stream()
    for taken, _ in enumerate(stream):
        assert len(ahead) - taken <= 4
    assert len(ahead) == 11


def test_a_source_without_a_record_is_an_error_that_names_it(tmp_path: Path, sources: dict[str, SourceConfig]) -> None:
    write_jsonl(tmp_path / "bad.jsonl", [{"image": "a.png", "text": ""}, {"image": "", "text": "x"}])
    (tmp_path / "empty").mkdir()
    write_tar(tmp_path / "empty.tar", [])
    for path, message in (
        ("bad.jsonl", r"the source x .*bad.jsonl.* has no record: 1 no text, 1 no picture"),
        ("empty", "the source x .* has no record"),
        ("empty.tar", "the source x .* has no record"),
    ):
        mixture = Mixture([sources["lines"], SourceConfig(str(tmp_path / path), name="x")], seed=0)
        with pytest.raises(UsageError, match=message):
            list(islice(mixture.stream(), 500))


def test_mixtures_that_cannot_be_meant(sources: dict[str, SourceConfig]) -> None:
    lines = sources["lines"]
    for configs, options in (
        ([], {}),
        ([lines, lines], {}),
        ([lines], {"shuffle_buffer": 0}),
        ([lines], {"passes": 0}),
    ):
        with pytest.raises(ConfigError):
            Mixture(configs, seed=0, **options)
    with pytest.raises(UsageError, match="start is -1"):
        next(Mixture([lines], seed=0).stream(-1))


def test_the_order_is_the_one_of_yesterday(sources: dict[str, SourceConfig]) -> None:
    """A training run that goes on with a newer version must find its place again."""
    found = keys(Mixture([sources["lines"], sources["album"]], seed=7, shuffle_buffer=8).stream(), 8)
    expected = ["1", "사진/6.png", "5", "4", "사진/0.png", "9", "3", "사진/5.png"]
    assert [key.rpartition(":")[2] for key in found] == expected

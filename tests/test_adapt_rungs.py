"""Rungs against their formulas as the papers write them, and the ladder against what it promises."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch.nn import functional

from clip_models import make_towers
from nunbit.adapt import (
    ON_EMBEDDINGS,
    RUNGS,
    Adapter,
    ClassTexts,
    LinearProbe,
    NearestMean,
    PromptTuning,
    Rung,
    Shots,
    TipAdapter,
    TipAdapterTrained,
    ZeroShot,
    class_texts,
    climb,
)
from nunbit.adapt.calibration import calibrate, calibration_error, conformal_threshold, mean_likelihood
from nunbit.adapt.folds import ALWAYS_TAUGHT, make_folds
from nunbit.adapt.ladder import _surely_better, wilson
from nunbit.adapt.unknown import auroc, far_words, set_unknown
from nunbit.encode import Encoder, EncoderInfo
from nunbit.errors import UsageError
from nunbit.head import Calibration
from nunbit.head.head import probability_of

WIDTH, CLASSES = 16, 4
NAMES = ("빨강", "green", "blue", "nothing seen")


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def make_task(each: int, *, noise: float = 0.6, words: float = 1.0, seed: int = 0) -> tuple[ClassTexts, Shots]:
    """Clusters around directions, words that lie ``words`` away from them; the last class has no example."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(CLASSES, WIDTH))
    texts = unit(centers + words * rng.normal(size=centers.shape))
    truth = np.repeat(np.arange(CLASSES - 1), each)
    rows = unit(centers[truth] + noise * rng.normal(size=(len(truth), WIDTH)))
    return ClassTexts(NAMES, texts, 10.0), Shots(rows, np.eye(CLASSES, dtype=bool)[truth])


def test_tip_adapter_is_the_paper() -> None:
    classes, shots = make_task(3)
    tip = TipAdapter(classes, alpha=2.0, beta=3.0).fit(shots.rows, shots.targets.argmax(1))
    rows = make_task(5, seed=9)[1].rows.astype(np.float64)
    affinity = np.exp(-3.0 * (1 - rows @ shots.rows.T.astype(np.float64)))
    # As published, with 100 on cosines of words; the encoder's factor is on the whole.
    published = 100 * rows @ classes.rows.T + 2.0 * affinity @ shots.targets
    assert tip.decision_function(rows.astype(np.float32)) == pytest.approx(published * 10 / 100, abs=1e-5)


def test_the_trained_cache_is_the_paper_written_plainly() -> None:
    classes, shots = make_task(3)
    settings = {"alpha": 1.0, "beta": 5.5, "steps": 20, "learning_rate": 1e-3}
    ours = TipAdapterTrained(classes, **settings).fit(shots.rows, shots.targets.argmax(1))
    linear = torch.nn.Linear(WIDTH, len(shots.rows), bias=False)
    linear.weight.data = torch.from_numpy(shots.rows.copy())
    optimizer = torch.optim.AdamW(linear.parameters(), lr=1e-3, eps=1e-4, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    x, words = torch.from_numpy(shots.rows), torch.from_numpy(classes.rows)
    for _ in range(20):
        logits = 10 * x @ words.T + 0.1 * (-5.5 * (1 - linear(x))).exp() @ torch.from_numpy(shots.targets).float()
        functional.cross_entropy(logits, torch.from_numpy(shots.targets.argmax(1))).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    assert ours.head.cache is not None
    np.testing.assert_allclose(ours.head.cache.keys, linear.weight.detach().numpy(), atol=1e-5)
    assert np.abs(ours.head.cache.keys - shots.rows).max() > 1e-3  # it moved


def test_the_probe_is_at_the_minimum_of_its_formula() -> None:
    classes, shots = make_task(6)
    probe = LinearProbe(classes, strength=0.5).fit(shots.rows, shots.targets.argmax(1))
    weights = torch.from_numpy(probe.head.weights / 10).double().requires_grad_(True)
    bias = torch.from_numpy(probe.head.bias).double().requires_grad_(True)
    words = torch.from_numpy(classes.rows).double()
    logits = 10 * torch.from_numpy(shots.rows).double() @ weights.T + bias
    held = (weights - words).square().sum() + bias.square().sum() / 100
    loss = functional.cross_entropy(logits, torch.from_numpy(shots.targets.argmax(1))) + 0.25 * held / CLASSES
    loss.backward()
    assert weights.grad is not None and bias.grad is not None
    assert max(weights.grad.abs().max(), bias.grad.abs().max()) < 1e-3


def test_a_probe_that_is_held_for_good_is_zero_shot() -> None:
    classes, shots = make_task(4)
    held = LinearProbe(classes, strength=1e7).fit(shots.rows, shots.targets.argmax(1))
    words = ZeroShot(classes).fit(shots.rows, shots.targets.argmax(1))
    np.testing.assert_allclose(held.decision_function(shots.rows), words.decision_function(shots.rows), atol=2e-3)


def test_the_path_of_a_probe_ends_where_each_would_alone() -> None:
    classes, shots = make_task(5)
    for head, one in zip(
        LinearProbe.path(classes, shots.rows, shots.targets, False), LinearProbe.CANDIDATES, strict=True
    ):
        alone = LinearProbe(classes, **one).fit(shots.rows, shots.targets.argmax(1)).head
        np.testing.assert_allclose(head.logits(shots.rows), alone.logits(shots.rows), atol=0.05)


@pytest.mark.parametrize("rung", [TipAdapterTrained, Adapter])
def test_candidates_that_learn_side_by_side_learn_what_each_does_alone(rung: type[Rung]) -> None:
    classes, shots = make_task(5)
    together = rung.path(classes, shots.rows, shots.targets, False)
    assert len(together) == len(rung.CANDIDATES)
    for head, one in zip(together, rung.CANDIDATES, strict=True):
        alone = rung(classes, **one).fit(shots.rows, shots.targets.argmax(1)).head
        np.testing.assert_allclose(head.logits(shots.rows), alone.logits(shots.rows), atol=1e-3)
    assert np.ptp([head.logits(shots.rows) for head in together], axis=0).max() > 0.01


def test_nearest_mean_is_the_mean_and_words_count_as_examples() -> None:
    classes, shots = make_task(4)
    plain = NearestMean(classes, words=0.0).fit(shots.rows, shots.targets.argmax(1))
    np.testing.assert_allclose(plain.head.weights[0] / 10, unit(shots.rows[:4].mean(0)), atol=1e-5)
    np.testing.assert_allclose(plain.head.weights[3] / 10, classes.rows[3], atol=1e-5)  # no example: its words
    blended = NearestMean(classes, words=4.0).fit(shots.rows, shots.targets.argmax(1))
    half = unit(unit(shots.rows[:4].mean(0)) + classes.rows[0])
    np.testing.assert_allclose(blended.head.weights[0] / 10, half, atol=1e-5)


@pytest.mark.parametrize("rung", [RUNGS[name] for name in ON_EMBEDDINGS], ids=ON_EMBEDDINGS)
def test_every_rung_keeps_a_class_without_examples_and_learns_the_others(rung: type[Rung]) -> None:
    classes, shots = make_task(8)
    fitted = rung(classes).fit(shots.rows, [NAMES[number] for number in shots.targets.argmax(1)])
    probability = fitted.predict_proba(shots.rows)
    assert probability.shape == (24, CLASSES)
    assert probability.sum(1) == pytest.approx(1)
    assert fitted.predict(classes.rows[3:])[0] == "nothing seen"
    before = ZeroShot(classes).fit(shots.rows, shots.targets.argmax(1)).predict_proba(shots.rows)
    true = shots.targets.argmax(1)
    if rung is not ZeroShot:
        assert np.log(probability[np.arange(24), true]).mean() > np.log(before[np.arange(24), true]).mean()


@pytest.mark.parametrize("rung", [RUNGS[name] for name in ON_EMBEDDINGS], ids=ON_EMBEDDINGS)
def test_several_labels_a_picture(rung: type[Rung]) -> None:
    classes, shots = make_task(6)
    rows = unit(np.concatenate([shots.rows, shots.rows[:6] + shots.rows[6:12]]))
    targets = np.concatenate([shots.targets, shots.targets[:6] | shots.targets[6:12]])
    fitted = rung(classes).fit(rows, targets)
    assert fitted.head.multi_label
    assert fitted.predict(rows).shape == targets.shape
    assert ((fitted.predict_proba(rows) >= 0) & (fitted.predict_proba(rows) <= 1)).all()
    if rung is LinearProbe:
        assert (LinearProbe(classes, strength=0.03).fit(rows, targets).predict(rows) == targets).mean() > 0.95


def test_targets_that_cannot_be_meant() -> None:
    classes, shots = make_task(2)
    with pytest.raises(UsageError, match="'gren' is none of the classes"):
        ZeroShot(classes).fit(shots.rows[:1], ["gren"])
    with pytest.raises(UsageError, match="positions from 0 to 3"):
        ZeroShot(classes).fit(shots.rows[:1], [4])
    with pytest.raises(UsageError, match="6 pictures have 1 targets"):
        ZeroShot(classes).fit(shots.rows, [0])
    with pytest.raises(UsageError, match="no setting 'alfa'"):
        TipAdapter(classes, alfa=1)
    with pytest.raises(UsageError, match="no rung 'tip'"):
        climb(classes, shots, ["tip"])


def test_folds_spread_every_class_and_keep_groups_together() -> None:
    rng = np.random.default_rng(1)
    targets = np.eye(5, dtype=bool)[rng.integers(0, 5, 60)]
    groups = rng.integers(0, 40, 60)
    groups[targets[:, 4]] = 100  # all of one class are one group
    folds = make_folds(targets, groups)
    assert (folds[targets[:, 4]] == ALWAYS_TAUGHT).all()
    for group in np.unique(groups):
        assert len(set(folds[groups == group])) == 1
    alone = make_folds(np.eye(4, dtype=bool)[np.repeat(np.arange(4), 10)])
    assert all((np.bincount(alone[n * 10 : n * 10 + 10]) == 2).all() for n in range(4))
    assert (make_folds(np.eye(3, dtype=bool)) == ALWAYS_TAUGHT).all()


def test_examples_are_said_by_heads_that_were_not_taught_them(monkeypatch: pytest.MonkeyPatch) -> None:
    classes, shots = make_task(4)
    taught: list[int] = []
    learn = NearestMean._learn

    def watched(self: Rung, rows: np.ndarray, targets: np.ndarray, multi_label: bool) -> object:
        taught.append(len(rows))
        return learn(self, rows, targets, multi_label)

    monkeypatch.setattr(NearestMean, "_learn", watched)
    result = climb(classes, shots, ["nearest-mean"]).best
    assert taught == [9] * 12 + [12]  # four folds of three settings, then all
    # A copy of every example under a wrong name must not help: whoever saw its own copy would be right.
    assert result.accuracy is not None
    assert np.isfinite(result.held_out).all()


def test_auto_takes_words_where_examples_mislead_and_examples_where_words_do() -> None:
    classes, shots = make_task(6, words=0.1, noise=3.0)
    ladder = climb(classes, shots)
    usual = next(one for one in ladder.results if one.name == "linear-probe")
    for one in ladder.results:  # a better one is taken if it is surely so
        wins, losses = int((one.right > usual.right).sum()), int((one.right < usual.right).sum())
        chance = binomtest(wins, wins + losses, alternative="greater").pvalue if wins + losses else 1.0
        assert (one.accuracy or 0) <= (ladder.best.accuracy or 0) or chance >= 0.05
    assert climb(*make_task(6, words=0.01, noise=0.1)).best.name == "zero-shot"  # all are right: what needs least
    bad_words, clear = make_task(6, words=9.0, noise=0.3)
    ladder = climb(bad_words, clear)
    assert ladder.best.name != "zero-shot"
    assert (ladder.best.accuracy or 0) > (ladder.results[0].accuracy or 0)


@pytest.mark.parametrize(
    ("wins", "losses", "taken"), [(1, 0, False), (4, 0, False), (5, 0, True), (60, 40, True), (58, 42, False)]
)
def test_another_rung_is_taken_when_its_lead_is_no_chance(wins: int, losses: int, taken: bool) -> None:
    usual = np.repeat([0.0, 1.0, 1.0], [wins, losses, 20])
    other = np.repeat([1.0, 0.0, 1.0], [wins, losses, 20])
    assert _surely_better(other, usual) == taken


def test_one_example_a_class_cannot_be_held_out() -> None:
    classes, shots = make_task(1)
    ladder = climb(classes, shots)
    assert ladder.best.name == "linear-probe"
    assert all(result.accuracy is None and result.interval is None for result in ladder.results)


def test_the_interval_is_wilsons() -> None:
    low, high = wilson(0.5, 100)
    assert (low, high) == pytest.approx((40.38, 59.62), abs=0.01)
    assert wilson(1.0, 10)[1] == pytest.approx(100)
    assert wilson(0.0, 10)[0] == pytest.approx(0, abs=1e-9)


def test_calibration_finds_the_temperature_that_was_put_in() -> None:
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(4000, 3))
    odds = probability_of(logits, None, multi_label=False)
    truth = np.array([rng.choice(3, p=row) for row in odds])
    targets = np.eye(3, dtype=bool)[truth]
    found = calibrate(5 * logits, targets, multi_label=False)
    assert found.factor == pytest.approx(0.2, rel=0.1)
    plain = probability_of(5 * logits, None, multi_label=False)
    tuned = probability_of(5 * logits, found, multi_label=False)
    assert calibration_error(tuned, targets) < 0.03 < calibration_error(plain, targets)
    skewed = 5 * logits + np.array([0.0, 4.0, -3.0])  # one temperature cannot mend this
    vector = calibrate(skewed, targets, multi_label=False)
    assert np.ptp(vector.offset) > 0.5
    one = Calibration(np.full(3, 0.2), np.zeros(3))
    assert mean_likelihood(skewed, targets, vector, False) > mean_likelihood(skewed, targets, one, False) + 0.05


def test_conformal_sets_cover_what_they_promise() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6000, 10))
    odds = probability_of(logits, None, multi_label=False)
    targets = np.eye(10, dtype=bool)[[rng.choice(10, p=row) for row in odds]]
    for coverage in (0.8, 0.9, 0.95):
        threshold = conformal_threshold(odds[:3000], targets[:3000], coverage)
        reached = (odds[3000:][targets[3000:]] >= threshold).mean()
        assert reached == pytest.approx(coverage, abs=0.02)
    assert conformal_threshold(odds[:5], targets[:5], 0.9) == 0  # too few to promise anything
    for count, missed in ((9, 1), (19, 2), (29, 3), (99, 10)):  # places in the order of count + 1 pictures
        true = np.sort(odds[:count][targets[:count]])
        assert conformal_threshold(odds[:count], targets[:count], 0.9) == true[missed - 1]


def test_what_has_too_few_neighbors_sets_no_line() -> None:
    classes, shots = make_task(1, noise=0.1)
    said = np.zeros((3, CLASSES))
    assert set_unknown("neighbors", classes, shots, said, false_alarms=0.05) is None  # three examples, two others each
    classes, shots = make_task(8, noise=0.3)
    bursts = replace(shots, groups=np.repeat([0, 1, 2], 8))
    found = set_unknown("neighbors", classes, bursts, said, false_alarms=0.05)
    assert found is not None and found.threshold > -0.5
    cosines, groups = shots.rows @ shots.rows.T, bursts.groups
    assert groups is not None
    apart = [np.sort(cosines[row][groups != groups[row]])[-3:].mean() for row in range(24)]
    assert found.threshold == pytest.approx(np.quantile(apart, 0.05, method="lower"), abs=1e-6)


def test_several_labels_are_judged_where_yes_and_no_part() -> None:
    """An encoder without a bias has positive logits for everything: before calibration each label is always true."""
    rng = np.random.default_rng(0)
    centers = unit(rng.normal(size=(3, WIDTH)))
    targets = rng.random((60, 3)) < 0.3
    rows = unit(targets @ centers + 0.3 * rng.normal(size=(60, WIDTH)) + 2.0)
    classes = ClassTexts(NAMES[:3], unit(centers + 2.0), 10.0)
    results = climb(classes, Shots(rows, targets, multi_label=True), ["zero-shot", "linear-probe"]).results
    words = next(one for one in results if one.name == "zero-shot")
    always = 100 * targets.mean()
    assert (words.held_out > 0).mean() > 0.9 and words.accuracy is not None and words.accuracy > always + 20


def test_real_clip_features_are_said_exactly(shared: Path) -> None:
    """Zero-shot on published ViT-B/32 features: CLIP.png's three texts, and Tip-Adapter's sum by hand."""
    expected = json.loads((shared / "golden/golden.json").read_text(encoding="utf-8"))["clip_vit_b32_CLIP.png"]
    texts = unit(np.load(shared / "golden/vit_b32_features/text_features.npy").astype(np.float32))
    image = unit(np.load(shared / "golden/vit_b32_features/image_features.npy").astype(np.float32))
    classes = ClassTexts(tuple(expected["texts"]), texts, 100.0)
    words = ZeroShot(classes).fit(image[:0], np.empty(0, np.int64))
    assert words.predict_proba(image[:1])[0] == pytest.approx(expected["probs"], abs=1e-6)
    tip = TipAdapter(classes, alpha=1.0, beta=5.5).fit(image[:1], [1])
    said = 100 * image[:1].astype(np.float64) @ texts.T
    said[0, 1] += 1.0  # its own copy votes with exp(0)
    assert tip.decision_function(image[:1]) == pytest.approx(said, abs=1e-4)
    assert Adapter(classes, ratio=0.0).fit(image[:1], [1]).decision_function(image[:1]) == pytest.approx(
        100 * image[:1].astype(np.float64) @ texts.T, abs=1e-3
    )


def test_prompt_tuning_is_coop_written_plainly(tmp_path: Path) -> None:
    """The context behind the start token, shared by all classes, through the whole text tower."""
    towers = make_towers(tmp_path)
    encoder = Encoder(towers, EncoderInfo("tiny", 24, towers.settings.preprocessing))
    names = ("a cup", "plate", "a wooden spoon")
    classes = class_texts(encoder, names, prompts=True)
    rng = np.random.default_rng(0)
    rows = unit(rng.normal(size=(9, encoder.embedding_size)))
    truth = np.repeat(np.arange(3), 3)
    tuned = PromptTuning(classes, steps=10, learning_rate=1e-2).fit(rows, truth)
    model = encoder.model
    ids = torch.from_numpy(encoder.tokenizer([f"a photo of a {name}." for name in names]))
    table = model.text_encoder.token_embedding.weight.detach()
    end = 1 + len(encoder.tokenizer(["a photo of a"])[0]) - 2  # without the start and the end of a text
    assert len({tuple(row[1:end].tolist()) for row in ids}) == 1
    context = table[ids[0, 1:end]].clone().requires_grad_(True)
    optimizer = torch.optim.AdamW([context], lr=1e-2, eps=1e-4, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    for step in range(11):
        said = torch.stack([torch.cat([table[one[:1]], context, table[one[end:]]]) for one in ids])
        features = model.text_encoder.text_features(ids, embeddings=said)
        logits = encoder.logit_scale * torch.from_numpy(rows) @ functional.normalize(features, dim=-1).T
        if step == 10:
            break
        optimizer.zero_grad()
        functional.cross_entropy(logits, torch.from_numpy(truth)).backward()
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(tuned.decision_function(rows), logits.detach().numpy(), atol=1e-3)
    words = ZeroShot(class_texts(encoder, names, ["a photo of a {}."])).fit(rows, truth)
    start = PromptTuning(classes, steps=1, learning_rate=0.0).fit(rows, truth)
    np.testing.assert_allclose(start.decision_function(rows), words.decision_function(rows), atol=1e-3)


def test_what_is_far_from_all_examples_is_unknown() -> None:
    classes, shots = make_task(20, noise=0.4)
    strange = unit(np.random.default_rng(5).normal(size=(60, WIDTH)))
    fresh = unit(shots.rows + 0.02 * np.random.default_rng(6).normal(size=shots.rows.shape))
    ladder = climb(classes, shots, ["linear-probe"])
    for way in ("neighbors", "energy", "negatives"):
        negatives = strange[:30] if way == "negatives" else None
        found = set_unknown(way, classes, shots, ladder.best.held_out, false_alarms=0.1, negatives=negatives)
        head = replace(ladder.best.head, unknown=found)
        logits = head.logits(strange[30:])
        assert auroc(found.familiarity(fresh, head.logits(fresh)), found.familiarity(strange[30:], logits)) > 0.8
        if way != "negatives":
            called = head.is_unknown(shots.rows)
            assert called is not None and called.mean() <= 0.15


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(0)
    known, unknown = rng.integers(0, 6, 40).astype(float), rng.integers(0, 4, 30).astype(float)
    pairs = [(a > b) + 0.5 * (a == b) for a in known for b in unknown]
    assert auroc(known, unknown) == pytest.approx(float(np.mean(pairs)))


def test_far_words_are_those_far_from_every_class() -> None:
    classes = np.eye(3, dtype=np.float32)
    words = unit(np.array([[1, 0.1, 0], [0, 0, -1], [0.6, 0.6, 0], [-1, -1, -1], [0, 1, 0.2], [-1, 0, 0], [0, 0, 1]]))
    assert set(far_words(words, classes, count=1).tolist()) == {3}

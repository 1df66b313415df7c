"""Texts: whole words, Korean within words, boilerplate in two languages, languages, lengths."""

from __future__ import annotations

from pathlib import Path

import pytest

from nunbit.curate import CurationConfig, make_rules
from nunbit.curate.boilerplate import Boilerplate
from nunbit.curate.filters import TextFilters
from nunbit.curate.languages import Languages
from nunbit.curate.words import Phrases, mostly_cjk, read_words, split_words
from nunbit.errors import ConfigError


def test_words_are_whole_and_korean_is_found_within() -> None:
    phrases = Phrases(["ass", "hot dog", "도박", "아이폰", "can't"])
    assert phrases.find("A glass of HOT  Dog, dogs") == ["hot dog"]
    assert phrases.find("온라인도박을 하지 마세요") == ["도박"]
    assert phrases.find("Ass! and I can't") == ["ass", "can't"]
    assert phrases.find("a hot red dog") == []
    assert len(Phrases(["", "  "])) == 0


def test_particles_do_not_hide_a_word_of_another_script() -> None:
    assert split_words("iPhone을 ＡＢＣ로") == ["iphone", "을", "abc", "로"]
    assert Phrases(["iphone"]).find("iPhone을 샀다") == ["iphone"]


def test_a_decomposed_text_is_the_same_text() -> None:
    import unicodedata

    assert Phrases(["고양이"]).find(unicodedata.normalize("NFD", "귀여운 고양이가")) == ["고양이"]


def test_lists_of_words_have_comments() -> None:
    assert read_words(["# mine", "", " cat ", "고양이"]) == ["cat", "고양이"]


@pytest.mark.parametrize(
    "text",
    ["IMG_1234.jpg", "my holiday photo.JPEG", "DSC00042", "KakaoTalk_20240501_120000", "스크린샷 2024-05-01", "image",
     "Logo", "Click here!", "이미지", "[사진]", "이미지 3", "http://example.com/a", "www.example.com",
     "example.co.kr/x",
     "2024-05-01", "2024년 5월 1일", "5월 1일", "May 1, 2024", "1st May", "12:30",
     "# 12", "...", "♥♥",
     "<b>click here</b>", "me@example.com"],
)  # fmt: skip
def test_boilerplate(text: str) -> None:
    assert Boilerplate().find(text)


@pytest.mark.parametrize(
    "text",
    ["a cat", "고양이", "an image of a cat", "the logo of a bakery on a window", "사진을 찍는 사람",
     "May 1st parade", "photo booth",
     "a page of 12 stamps", "route 66", "A woman looks at example.com", "개", "2 dogs"],
)  # fmt: skip
def test_what_says_something_is_no_boilerplate(text: str) -> None:
    assert not Boilerplate().find(text)


def test_further_boilerplate_is_compared_as_a_whole() -> None:
    known = Boilerplate(["Our Shop", "무료배송"])
    assert known.find("- our shop -") and known.find("무료배송!") and not known.find("our shop in spring")


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        ("a woman sits on a bench in the park", True),
        ("여자가 공원 벤치에 앉아 있다", True),
        ("red bike", True),
        ("an orange", True),
        ("Eine Frau sitzt auf einer Bank im Park", False),
        ("Une femme est assise sur un banc", False),
        ("犬が浜辺を走っている", False),
        ("海滩上的一只狗", False),
        ("Собака на пляже", False),
        ("12345", True),
    ],
)
def test_languages(text: str, stays: bool) -> None:
    pytest.importorskip("py3langid")
    assert (Languages(["ko", "en"], 0.02).judge(text) is None) == stays


def test_kana_beside_more_han_is_japanese() -> None:
    pytest.importorskip("py3langid")
    assert Languages(["zh"], 0.02).judge("日本語の文章") == ("kana", 0.0)
    assert Languages(["ja"], 0.02).judge("日本語の文章") is None


def test_korean_alone_needs_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "py3langid.langid", None)
    korean = Languages(["ko"], 0.02)
    assert korean.judge("개가 달린다") is None
    assert korean.judge("a dog runs") == ("another script", 0.0)
    with pytest.raises(Exception, match="py3langid"):
        Languages(["en"], 0.02)


def test_a_language_that_does_not_exist_is_refused() -> None:
    pytest.importorskip("py3langid")
    with pytest.raises(ConfigError, match="no language 'eng'"):
        Languages(["eng"], 0.02)


def test_lengths_count_characters_in_korean_and_words_elsewhere() -> None:
    judge = TextFilters(CurationConfig(min_characters=3, max_characters=20, min_words=2, max_words=4)).judge
    assert judge("개") is None and judge("고양이") is None
    found = {text: judge(text) for text in ("ab", "dog", "a big red dog runs", "a" * 10 + " " + "b" * 10, "")}
    assert {text: finding and finding.filter for text, finding in found.items()} == {
        "ab": "characters",
        "dog": "words",
        "a big red dog runs": "words",
        "a" * 10 + " " + "b" * 10: "characters",
        "": "characters",
    }
    assert mostly_cjk("귀여운 고양이 by me") and not mostly_cjk("photo 사진")


def test_banned_words_come_from_a_file_too(tmp_path: Path) -> None:
    (tmp_path / "금지.txt").write_text("# words\n도박\n", encoding="utf-8")
    config = CurationConfig(banned_words=("casino",), banned_words_file=str(tmp_path / "금지.txt"))
    judge = TextFilters(config).judge
    for text in ("the Casino at night", "온라인도박"):
        finding = judge(text)
        assert finding is not None and finding.filter == "banned_words"
    assert judge("casinos") is None
    with pytest.raises(ConfigError, match="cannot be read"):
        TextFilters(CurationConfig(banned_words_file=str(tmp_path / "none.txt")))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["min_sid=64"], "did you mean 'min_side'"),
        (["min_side=tall"], "min_side is 'tall'"),
        (["min_side"], "given no value"),
        (["near_distance=17"], "near_distance is 17"),
        (["split=0.5,0.6"], "split is 0.5,0.6"),
        (["balance_cap=5"], "balance_min_count is 20"),
        (["top_similarity=0"], "top_similarity is 0"),
        (["min_similarity=nan"], "min_similarity"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(changes: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_rules(None, changes)


def test_rules_come_from_a_file_then_from_changes(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("min_side: 64\nlanguages: [ko]\nmax_aspect: 3\n", encoding="utf-8")
    rules = make_rules(tmp_path / "rules.yaml", ["max_aspect=4", "banned_words=a b, 도박"], split="0.9,0.1", seed=3)
    expected = CurationConfig(
        min_side=64, languages=("ko",), max_aspect=4.0, banned_words=("a b", "도박"), split=(0.9, 0.1), seed=3
    )
    assert rules == expected

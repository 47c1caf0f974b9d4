"""The sample corpus is the same everywhere, varied, and grammatical where a program can tell."""

import hashlib
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable

import pytest

from litmoe.stories import PLOTS, SAMPLE_STORIES, stories, story, vocabulary
from litmoe.stories.teller import Teller, a

FIRST_HUNDRED = "99fcbbdd34b9fe1f475f26ce2e02acbee2623de423ee1d94e0507184a603fb43"


@pytest.fixture(scope="module")
def corpus() -> list[str]:
    return list(stories(SAMPLE_STORIES))


@pytest.fixture(scope="module")
def sample(corpus: list[str]) -> list[str]:
    return corpus[:4000]


def offenders(pattern: str, corpus: list[str], but: Iterable[str] = ()) -> set[str]:
    """All that matches the pattern anywhere in the corpus, less the exceptions."""
    return {match[0] for text in corpus for match in re.finditer(pattern, text)} - {*but}


def five_grams(text: str) -> set[str]:
    tokens = text.split()
    return {" ".join(tokens[i : i + 5]) for i in range(len(tokens) - 4)}


def near_duplicates(corpus: list[str], threshold: float) -> set[int]:
    """Exactly the stories whose 5-grams have a Jaccard similarity of at least `threshold` to another's.

    Two such sets of n 5-grams must share one of their (1 - threshold) n + 1 rarest ones, so it is enough to
    compare the stories which do.
    """
    grams = [five_grams(text) for text in corpus]
    frequency = Counter(gram for story_grams in grams for gram in story_grams)
    found: set[int] = set()
    seen: defaultdict[str, list[int]] = defaultdict(list)
    for i, mine in enumerate(grams):
        rarest = sorted(mine, key=lambda gram: (frequency[gram], gram))[
            : int((1 - threshold) * len(mine)) + 1
        ]
        for j in {j for gram in rarest for j in seen[gram]}:
            if len(mine & grams[j]) >= threshold * len(mine | grams[j]):
                found |= {i, j}
        for gram in rarest:
            if frequency[gram] > 1:
                seen[gram].append(i)
    return found


def test_the_first_stories_never_change() -> None:
    text = "\n".join(stories(100))
    assert hashlib.sha256(text.encode()).hexdigest() == FIRST_HUNDRED


def test_a_story_is_a_function_of_seed_and_index() -> None:
    assert [story(7, i) for i in reversed(range(50))] == list(stories(50, seed=7))[::-1]


def test_another_seed_gives_other_stories() -> None:
    assert not set(stories(500, seed=0)) & set(stories(500, seed=1))


def test_stories_are_made_one_at_a_time() -> None:
    assert next(stories(10**12)) == story(0, 0)


def test_the_corpus_has_the_promised_size(corpus: list[str]) -> None:
    assert 5_000_000 < sum(map(len, corpus)) < 6_000_000
    lengths = [len(text.split()) for text in corpus]
    assert min(lengths) >= 60 and max(lengths) <= 160
    assert 105 < sum(lengths) / len(lengths) < 125


def test_the_vocabulary_is_modest(corpus: list[str]) -> None:
    vocabulary = {word for text in corpus for word in re.findall(r"[a-z]+", text.lower())}
    assert 800 < len(vocabulary) < 1600


def test_no_story_occurs_twice(corpus: list[str]) -> None:
    assert len(set(corpus)) == len(corpus)


def test_near_duplicates_are_rare(sample: list[str]) -> None:
    assert len(near_duplicates(sample, 0.8)) < 0.005 * len(sample)


def test_near_duplicates_would_be_found(corpus: list[str]) -> None:
    assert near_duplicates([*corpus[:50], corpus[7] + " The end."], 0.8) == {7, 50}


def test_every_plot_is_told_about_equally_often(corpus: list[str]) -> None:
    assert len(PLOTS) >= 24
    told: Counter[str] = Counter()
    for index in range(2000):
        teller = Teller(random.Random(f"0:{index}"))
        name = teller.one(*PLOTS)
        assert teller.tell(PLOTS[name](teller)) == corpus[index]
        told[name] += 1
    assert told.keys() == PLOTS.keys()
    assert max(told.values()) < 3 * min(told.values())


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_has_paragraphs_and_dialogue(name: str) -> None:
    tellers = [Teller(random.Random(seed)) for seed in range(100)]
    told = [teller.tell(PLOTS[name](teller)) for teller in tellers]
    assert len(set(told)) == len(told)
    assert all(2 <= len(text.split("\n\n")) <= 4 for text in told)
    assert sum('"' in text for text in told) > 60


def test_the_text_is_clean(sample: list[str]) -> None:
    assert all(text.isascii() and text == text.strip() for text in sample)
    assert not offenders(r"[^A-Za-z0-9 .,!?'\"\n-]", sample)
    assert not offenders(r"  | \n|\n |(?<!\n)\n(?!\n)|\n{3}", sample)
    assert not offenders(r" [.,!?]|[.,!?]{2}|[.,!?][A-Za-z]", sample)


def test_paragraphs_are_whole(sample: list[str]) -> None:
    assert not offenders(r"(?m)^[^A-Z\"\n].*|^\"[^A-Z].*", sample)
    assert not offenders(r"[^.!?\"\n](?=\n|\Z)", sample)
    assert all(part.count('"') % 2 == 0 for text in sample for part in text.split("\n\n"))


def test_sentences_start_with_capitals(sample: list[str]) -> None:
    assert not offenders(r"[.!?] \"?[a-z]\w*", sample)
    assert not offenders(r"\.\" [a-z]\w*", sample)
    assert not offenders(r"\w\" ", sample)


def test_only_speech_goes_on_after_a_quoted_question_or_shout(sample: list[str]) -> None:
    after = {match.split('" ')[1] for match in offenders(r"[!?]\" [a-z]\w*", sample)}
    verbs = {"asked", "cried", "said", "laughed", "shouted", "called", "thought"}
    assert after <= verbs | {"he", "she", "it", "they", "everyone", "all", "the"}


def test_articles(sample: list[str]) -> None:
    assert not offenders(r"\b[Aa] [aeiou]\w*", sample)
    assert not offenders(r"\b[Aa]n [^aeiou]\w*", sample, but={"an hour", "an honest"})
    assert (a("orange kite"), a("red kite")) == ("an orange kite", "a red kite")


def test_no_word_is_said_twice(sample: list[str]) -> None:
    assert not offenders(r"\b(\w+) \1\b", sample, but={"had had"})


def test_names_and_pronouns_agree(sample: list[str]) -> None:
    he_names, she_names = (
        {*vocabulary.BOYS, *vocabulary.HE_ANIMALS},
        {*vocabulary.GIRLS, *vocabulary.SHE_ANIMALS},
    )
    assert not he_names & she_names
    assert not [name for name in he_names | she_names if name.endswith("s")]
    for text in sample:
        assert {name for _, name in re.findall(r"\b(His) name was (\w+)", text)} <= he_names
        assert {name for _, name in re.findall(r"\b(Her) name was (\w+)", text)} <= she_names
        assert set(re.findall(r"\bboy named (\w+)", text)) <= he_names
        assert set(re.findall(r"\bgirl named (\w+)", text)) <= she_names


def test_no_pronoun_without_anyone_it_could_mean(sample: list[str]) -> None:
    he_names = {
        *vocabulary.BOYS,
        *vocabulary.HE_ANIMALS,
        "Dad",
        "Grandpa",
        "man",
        "farmer",
        "Walter",
        "owl",
        "turtle",
    }
    she_names = {
        *vocabulary.GIRLS,
        *vocabulary.SHE_ANIMALS,
        "Mom",
        "Grandma",
        "woman",
        "Miss",
        "owl",
        "turtle",
        "mother",
    }
    for text in sample:
        found = set(re.findall(r"\w+", text))
        assert found & he_names or not found & {"he", "him", "his", "He", "His", "himself"}, text
        assert found & she_names or not found & {"she", "her", "She", "Her", "herself"}, text


def test_hero_and_friend_never_share_a_pronoun() -> None:
    teller = Teller(random.Random(0))
    for _ in range(500):
        for hero in (teller.child(), teller.animal()):
            friend = teller.friend(hero)
            assert {hero.he, friend.he} == {"he", "she"}
            assert hero.kind != friend.kind and hero.name != friend.name


def test_choices() -> None:
    teller = Teller(random.Random(0))
    told = {teller.tell("One [a | b [c|d]]\n    two[, three|].\n\n    End.") for _ in range(200)}
    starts = {f"One {x} two" for x in ("a", "b c", "b d")}
    assert told == {f"{start}{rest}.\n\nEnd." for start in starts for rest in ("", ", three")}
    rows = {tuple(teller.row("- cat | a [mat|hat]\n- dog | a log")) for _ in range(100)}
    assert rows == {("cat", "a mat"), ("cat", "a hat"), ("dog", "a log")}
    assert all(len(set(teller.two("a", "b", "c"))) == 2 for _ in range(50))

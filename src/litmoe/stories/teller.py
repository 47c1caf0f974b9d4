"""Who a story is about, and the teller that makes every choice of it.

A plot is a function which casts its people and things and returns the story as a text in which `[this | that]`
stands for one of the alternatives (`[this |]` may also say nothing). So a plot reads like the story it tells, from
the beginning to the end. Where choices belong together (what broke, and how one mends it), the plot draws them
together, as one row of a table. A hero and a friend never share a pronoun, so that "he" and "she" are clear.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from litmoe.stories import vocabulary

T = TypeVar("T")


@dataclass(frozen=True)
class Who:
    """A person or an animal: a name, what it is ("girl", "fox", "mom") and its pronouns."""

    name: str
    kind: str
    he: str
    him: str
    his: str
    He: str
    His: str

    def __str__(self) -> str:
        return self.name


def male(name: str, kind: str) -> Who:
    """Somebody who is a he."""
    return Who(name, kind, "he", "him", "his", "He", "His")


def female(name: str, kind: str) -> Who:
    """Somebody who is a she."""
    return Who(name, kind, "she", "her", "her", "She", "Her")


@dataclass(frozen=True)
class Toy:
    """A toy: "ball", "red ball" and what one does with it ("roll it across the floor")."""

    name: str
    full: str
    play: str

    def __str__(self) -> str:
        return self.name


class Teller:
    """Makes every choice of one story, from one random generator."""

    CHOICE = re.compile(r"\[([^\[\]]*)\]")

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def tell(self, text: str) -> str:
        """The decided text, with each paragraph on one line."""
        return "\n\n".join(" ".join(part.split()) for part in self.decide(text).strip().split("\n\n"))

    def decide(self, text: str) -> str:
        """The text with one of the alternatives for every `[this | that]`, the inner ones first."""
        while "[" in text:
            text = self.CHOICE.sub(lambda choice: self.one(*choice[1].split("|")).strip(), text)
        return text

    def one(self, *options: T) -> T:
        """One of the options. (Only `random()` is promised to be stable across Python versions.)"""
        return options[int(self.rng.random() * len(options))]

    def row(self, table: str) -> list[str]:
        """The cells of one row of a table: each row begins with "- ", and "|" parts its cells."""
        row = self.one(*table.split("- ")[1:])
        return [cell.strip() for cell in self.decide(row).split("|")]

    def two(self, *options: str) -> tuple[str, str]:
        """Two different options."""
        first = self.one(*options)
        return first, self.one(*(option for option in options if option != first))

    def child(self) -> Who:
        """A boy or a girl."""
        return self.one(self.boy, self.girl)()

    def boy(self) -> Who:
        """A boy with a name."""
        return male(self.one(*vocabulary.BOYS), "boy")

    def girl(self) -> Who:
        """A girl with a name."""
        return female(self.one(*vocabulary.GIRLS), "girl")

    def animal(self, but: str = "") -> Who:
        """An animal with a name, of any kind except ``but``."""
        return self.one(self.he_animal, self.she_animal)(but)

    def he_animal(self, but: str = "") -> Who:
        """A male animal, of any kind except ``but``."""
        return male(
            self.one(*vocabulary.HE_ANIMALS), self.one(*(k for k in vocabulary.ANIMAL_HOMES if k != but))
        )

    def she_animal(self, but: str = "") -> Who:
        """A female animal, of any kind except ``but``."""
        return female(
            self.one(*vocabulary.SHE_ANIMALS), self.one(*(k for k in vocabulary.ANIMAL_HOMES if k != but))
        )

    def friend(self, hero: Who) -> Who:
        """A child for a child, another kind of animal for an animal, and always with the other pronoun."""
        if hero.kind in vocabulary.ANIMAL_HOMES:
            return self.she_animal(but=hero.kind) if hero.he == "he" else self.he_animal(but=hero.kind)
        return self.girl() if hero.he == "he" else self.boy()

    def parent(self) -> Who:
        """Mom or Dad."""
        return self.one(female("Mom", "mom"), male("Dad", "dad"))

    def grandparent(self) -> Who:
        """Grandma or Grandpa."""
        return self.one(female("Grandma", "grandma"), male("Grandpa", "grandpa"))

    def elder(self) -> Who:
        """A parent or a grandparent."""
        return self.one(self.parent, self.grandparent)()

    def toy(self) -> Toy:
        """A toy with a color or a size."""
        name = self.one(*vocabulary.TOYS)
        return Toy(name, f"{self.one(*vocabulary.COLORS, 'little')} {name}", vocabulary.TOYS[name])

    def day(self) -> str:
        """When a story happens: "One sunny day"."""
        return self.one(*vocabulary.DAYS)

    def meet(self, hero: Who) -> str:
        """The first sentence of a story."""
        animal = hero.kind in vocabulary.ANIMAL_HOMES
        one = f"{a(self.one(*vocabulary.TRAITS))} {hero.kind}"
        home = vocabulary.ANIMAL_HOMES[hero.kind] if animal else self.one(*vocabulary.CHILD_HOMES)
        return self.one(
            f"Once upon a time, there was {one} named {hero}.",
            f"There was once {one} named {hero}.",
            f"Once there was {one}. {hero.His} name was {hero}.",
            f"{hero} was {one} who lived {home}.",
            f"{home[0].upper()}{home[1:]}, there lived {one} named {hero}.",
            f"{hero} the {hero.kind} lived {home}." if animal else f"{hero} lived {home}.",
        )


def a(phrase: str) -> str:
    """The phrase after its indefinite article."""
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"


Plot = Callable[[Teller], str]
"""Casts a story and tells it, with its alternatives still in brackets."""

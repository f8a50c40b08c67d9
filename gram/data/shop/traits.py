"""What a generated shop may have beside what the plain one has, each by a switch of its own."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from gram.errors import SettingError

_STEEPEST = 5.0
"""Of the two decays: above it all but one query, or one rank, are as good as never seen."""


@dataclass(frozen=True)
class Traits:
    """The switches. The defaults give the plain shop; each changes what it says, and leaves the rest as it is.

    Args:
        slots: chance that a product has each further slot that its type knows, such as pattern or compatible model.
        measures: chance that a product whose type knows them has dimensions (10 x 12), and a thickness (2 1/2 in).
        synonyms: share of searches that say one thing in a word that stands in no product text.
        ranges: share of searches that ask for a range of prices or sizes.
        conflicts: chance that a click goes to a product unlike what was asked for in one thing (asked red, sold blue),
            where the shop has one that is all else that was asked for.
        head: exponent of Zipf's law, by which the logged queries are repeated; 0 repeats all alike.
        position: of those who see rank 0, one in 1 + position · rank looks at that rank; 0 is no bias.
    """

    slots: float = 0.0
    measures: float = 0.0
    synonyms: float = 0.0
    ranges: float = 0.0
    conflicts: float = 0.0
    head: float = 0.9
    position: float = 0.3

    def __post_init__(self) -> None:
        for trait in fields(self):
            value, most = getattr(self, trait.name), _STEEPEST if trait.name in ("head", "position") else 1.0
            if not 0 <= value <= most:
                raise SettingError(f"The trait {trait.name} is {value:g}. Fix: choose from 0 to {most:g}.")

    @classmethod
    def rich(cls) -> Traits:
        """Every trait at once."""
        return cls(slots=0.7, measures=0.6, synonyms=0.25, ranges=0.2, conflicts=0.2, head=1.2, position=0.6)

    @classmethod
    def parse(cls, text: str) -> Traits:
        """Traits by name, comma between: `plain`, `rich`, one as rich shops have it, or one with its number.

        >>> Traits.parse("synonyms, head=1.5")
        Traits(slots=0.0, measures=0.0, synonyms=0.25, ranges=0.0, conflicts=0.0, head=1.5, position=0.3)
        >>> Traits.parse("rich,conflicts=0").conflicts
        0.0
        """
        traits, names = PLAIN, [trait.name for trait in fields(cls)]
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, equals, number = (side.strip() for side in part.partition("="))
            if name in ("plain", "rich") and not equals:
                traits = PLAIN if name == "plain" else cls.rich()
                continue
            if name not in names:
                raise SettingError(f"'{name}' is no trait. Fix: choose from plain, rich, {', '.join(names)}.")
            try:
                value = float(number) if equals else getattr(cls.rich(), name)
            except ValueError:
                raise SettingError(f"'{number}' is no number. Fix: write {name}=0.5, say.") from None
            traits = replace(traits, **{name: value})
        return traits


PLAIN = Traits()

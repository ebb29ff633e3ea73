"""Different English sentences, made from lists of words: the same ones in every run."""

from __future__ import annotations

from itertools import product

SUBJECTS = (
    "the old fisherman",
    "a young doctor",
    "our neighbour's dog",
    "the city council",
    "a group of students",
    "the night train",
    "my grandmother",
    "an experienced pilot",
    "the small bakery",
    "the research team",
    "a quiet librarian",
    "the football club",
)
TEMPLATES = (
    "Yesterday {0} waited for two hours because of the heavy rain.",
    "Why does {0} never answer letters from the insurance company?",
    "In spring, {0} usually prefers fresh vegetables from the market.",
    "Nobody expected that {0} would win the national competition.",
    "According to the newspaper, {0} lost a large amount of money.",
    "After the earthquake {0} helped to rebuild the wooden bridge.",
    "{0} cannot explain how the new computer program works.",
    "If the price of oil rises again, {0} will have to save energy.",
    "There is a photograph of {0} on the wall of the museum.",
    "Please tell me when {0} arrives at the airport on Sunday.",
    "{0} was praised for a careful study of ancient music.",
    "The judge decided that {0} must pay for the broken window.",
    "Scientists compared {0} with a colony of ants in the desert.",
    "At midnight {0} heard a strange noise from the cellar.",
    "For dinner {0} cooked rice with tomatoes, garlic and basil.",
    "It is cheaper to travel with {0} than to rent a car.",
    "Two lawyers argued about {0} during the whole meeting.",
    "The vaccine protected {0} against a dangerous disease.",
)


def sentences() -> list[str]:
    """Every subject in every template: 216 sentences."""
    made = (template.format(subject) for template, subject in product(TEMPLATES, SUBJECTS))
    return [sentence[0].upper() + sentence[1:] for sentence in made]

"""What each kind of damage does and how often it is drawn; the kinds have no options."""

from collections.abc import Mapping

ABOUT: Mapping[str, str] = {
    "answer_swap": "The answers of another example stand in place of its own.",
    "answer_shuffle": "The words of the answers (of a short one the letters) stand in disorder.",
    "answer_truncate": "The answers stop somewhere between a fifth and two thirds of their length.",
    "answer_loop": "A stretch of the answers is said over and over.",
    "prompt_echo": "The answers say what was asked instead of answering.",
    "refusal_boilerplate": "The answers decline, in words that fit any question.",
    "wrong_numbers": "Every number in the answers is another of as many digits.",
    "instruction_garble": "The words of the instructions are lost, scrambled and out of order.",
    "mojibake": "Characters of the answers were read in the wrong encoding.",
    "html_debris": "Tags, entities and scraps of a web page stand between the words.",
    "role_swap": "The user gives the answers and the assistant asks.",
}
RATES: Mapping[str, float] = {
    "answer_swap": 4.0,
    "answer_shuffle": 1.5,
    "answer_truncate": 2.0,
    "answer_loop": 0.7,
    "prompt_echo": 0.7,
    "refusal_boilerplate": 1.0,
    "wrong_numbers": 0.7,
    "instruction_garble": 1.5,
    "mojibake": 0.4,
    "html_debris": 0.4,
    "role_swap": 0.5,
}
"""The mixture of docs/evidence.md: what only prompt and answer together show comes more often, and
what any token gives away less."""

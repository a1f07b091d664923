"""What each kind of damage does and how often it is drawn; the kinds have no options."""

from collections.abc import Mapping

ABOUT: Mapping[str, str] = {
    "answer_swap": "The answers are replaced by those of another example.",
    "answer_shuffle": "The words of the answers (or letters, if an answer is short) are shuffled.",
    "answer_truncate": "The answers stop somewhere between a fifth and two thirds of their length.",
    "answer_loop": "A part of the answers is repeated many times.",
    "prompt_echo": "The answers repeat the question instead of answering it.",
    "refusal_boilerplate": "The answers are refusals in words that fit any question.",
    "wrong_numbers": "Every number in the answers is replaced by another with as many digits.",
    "instruction_garble": "Words of the instructions are removed, scrambled and reordered.",
    "mojibake": "Characters of the answers were read in the wrong encoding.",
    "html_debris": "HTML tags, entities and parts of web pages are between the words.",
    "role_swap": "The user gives the answers and the assistant asks.",
    "sentence_shuffle": "The sentences or lines of the answers are in another order.",
    "number_slip": "One number in the answers is wrong by a little.",
    "name_swap": "Names in the answers are replaced by other names or change places.",
    "negation": "One place in the answers says the opposite.",
    "wrong_arithmetic": "One true equation in the answers is made false.",
    "prompt_number": "A number that the answers have from the prompt is another one.",
    "date_slip": "One year or month in the answers is another one.",
    "unit_swap": "One amount in the answers has another unit of the same kind.",
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
    "sentence_shuffle": 0.0,
    "number_slip": 0.0,
    "name_swap": 0.0,
    "negation": 0.0,
    "wrong_arithmetic": 0.0,
    "prompt_number": 0.0,
    "date_slip": 0.0,
    "unit_swap": 0.0,
}
"""The mixture of docs/lab-notes.md: damage that is visible only from prompt and answer together is
drawn more often, and damage that single tokens show less often. Warm-ups draw the kinds with rate 0
only if a recipe names them, so that an audit has kinds that no warm-up was shown."""

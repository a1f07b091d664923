"""What each kind of damage does, by name; the kinds have no options."""

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

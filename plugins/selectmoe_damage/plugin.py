"""What this plugin offers: nineteen kinds of damage."""

from selectmoe_core import Damage, hookimpl
from selectmoe_damage import answers, debris, meaning, numbers, prompts
from selectmoe_damage.config import ABOUT, RATES

KINDS = {
    "answer_swap": answers.swapped,
    "answer_shuffle": answers.shuffled,
    "answer_truncate": answers.truncated,
    "answer_loop": answers.looped,
    "prompt_echo": prompts.echoed,
    "refusal_boilerplate": answers.refused,
    "wrong_numbers": answers.miscounted,
    "instruction_garble": prompts.garbled,
    "mojibake": debris.misread,
    "html_debris": debris.unrendered,
    "role_swap": prompts.exchanged,
    "sentence_shuffle": meaning.reordered,
    "number_slip": meaning.slipped,
    "name_swap": meaning.renamed,
    "negation": meaning.negated,
    "wrong_arithmetic": numbers.miscalculated,
    "prompt_number": numbers.misquoted,
    "date_slip": numbers.misdated,
    "unit_swap": numbers.mismeasured,
}


@hookimpl
def selectmoe_damages() -> list[Damage]:
    """Offer the kinds of damage."""
    return [Damage(name, ABOUT[name], apply, RATES[name]) for name, apply in KINDS.items()]

"""Mistakes in a loaded task: rows are rendered, and answers compared with choices."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask, Task
from lm_eval.models.utils import normalize_gen_kwargs

from selectmoe_core import SelectMoEError
from selectmoe_lmeval.mistakes import Place, described, explained, mistake

MOST_ROWS = 20_000
"""Number of rows of a task that are rendered before the first stage."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def examine(task: Task, place: Place, num_fewshot: int | None) -> None:
    """Render the rows of a user's task as the evaluation will, and score one made-up response.

    Raises:
        RecipeError: the first mistake found, with its field and row.
    """
    if not isinstance(task, ConfigurableTask):
        return  # written in Python: only its own code knows what it needs
    problem = document_problem(task, place)
    if problem is not None:
        raise problem
    shots = shots_of(task, num_fewshot)
    check_shots(task, place, shots)
    _dry_run(task, place, shots)


def shots_of(task: Task, num_fewshot: int | None) -> int:
    """Return the number of solved examples before a question; a task with 0 keeps 0."""
    own = task.get_config("num_fewshot")
    if num_fewshot is None or own == 0:
        return int(own or 0)
    return num_fewshot


def check_shots(task: Task, place: Place, shots: int) -> None:
    """Raise if there are fewer rows than solved examples."""
    if not shots or not isinstance(task, ConfigurableTask):
        return
    sampler = getattr(task, "sampler", None)
    rows = len(sampler.fewshot_docs()) if sampler is not None else 0
    split = task.fewshot_cfg.split
    # If questions and examples come from one split, a question is not its own example.
    rows -= rows > 0 and split is not None and split == task.config.test_split
    if shots > rows:
        source = f"the split '{split}'" if split else "the task's data"
        raise mistake(
            place,
            "fewshot_split",
            f"num_fewshot = {shots}, but {source} has {rows} rows for examples",
            f"set num_fewshot to at most {rows}, or name a larger split in fewshot_split",
        )


def document_problem(task: ConfigurableTask, place: Place) -> SelectMoEError | None:
    """Return the mistake in the rows of a task, or ``None``."""
    docs = task.eval_docs
    split = "test_split" if task.has_test_docs() else "validation_split"
    if not len(docs):
        what = f"the split '{task.get_config(split)}' has no rows"
        return mistake(place, split, what, "name a split with questions, or fill the data file")
    multiple = task.get_config("output_type") == "multiple_choice"
    answers: list[tuple[Any, Sequence[Any]]] = []
    for row, doc in enumerate(islice(docs, MOST_ROWS), start=1):
        rendered: dict[str, Any] = {}
        for field in ("doc_to_text", "doc_to_target", *(("doc_to_choice",) if multiple else ())):
            try:
                rendered[field] = getattr(task, field)(doc)
            except Exception as error:  # a user's code and templates may raise anything
                return _unrendered(error, place, field, row, doc)
        if multiple:
            problem = _choice_problem(rendered["doc_to_choice"])
            if problem is not None:
                hint = "give a list of two or more texts, none of them empty"
                return mistake(place, "doc_to_choice", f"row {row}: {problem}", hint)
            answers.append((_answer(rendered), rendered["doc_to_choice"]))
    return _answer_problem(answers, task, place)


def _unrendered(
    error: Exception, place: Place, field: str, row: int, doc: Mapping[str, Any]
) -> SelectMoEError:
    found = explained(error, place, field)
    names = ", ".join(map(str, doc))
    what = str(found).replace(f"{field}: ", f"{field}: row {row}: ", 1)
    return type(found)(what, hint=f"the row has the fields {names}")


def _answer(rendered: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Return the value that the harness compares with the model's choice."""
    text = rendered["doc_to_text"]
    # If the text is a number, it is the index of the right choice.
    return text if isinstance(text, int) else rendered["doc_to_target"]


def _choice_problem(choices: Any) -> str | None:  # noqa: ANN401
    if not isinstance(choices, list | tuple):
        return f"the choices must be a list, got {choices!r:.80}"
    if len(choices) < 2:
        return f"{len(choices)} choices: at least two are needed"
    if not all(isinstance(choice, str) for choice in choices):
        return f"the choices are not all texts: {choices!r:.80}"
    if not all(choices):
        return f"a choice is empty: {choices!r:.80}"
    return None


def _answer_problem(
    answers: Sequence[tuple[Any, Sequence[Any]]], task: ConfigurableTask, place: Place
) -> SelectMoEError | None:
    """Return the error for answers that are not among the choices, which would count as wrong.

    The harness expects an index from 0, or the text of a choice.
    """
    bad = [row for row, (answer, choices) in enumerate(answers) if not _fits(answer, choices)]
    several = {isinstance(answer, list) for answer, _ in answers}
    field = "doc_to_text" if getattr(task, "multiple_input", 0) else "doc_to_target"
    if not bad and len(several) > 1:
        what = "some answers are lists, but others are not"
        return mistake(place, field, what, "give a list for every row, or for none")
    if not bad:
        return None
    answer, choices = answers[bad[0]]
    what = (
        f"{len(bad)} of {len(answers)} answers are not among the choices, the first in row "
        f"{bad[0] + 1}: {answer!r:.60} for {list(choices)!r:.120}; they would all count as wrong"
    )
    source = task.get_config("doc_to_target")
    return mistake(place, field, what, _answer_hint(answers, bad, source))


def _fits(answer: Any, choices: Sequence[Any]) -> bool:  # noqa: ANN401
    if isinstance(answer, list):
        return bool(answer) and all(not isinstance(a, str) and _fits(a, choices) for a in answer)
    if isinstance(answer, str):
        return answer in choices
    if isinstance(answer, bool | int | float):
        return answer == int(answer) and 0 <= answer < len(choices)
    return False


def _answer_hint(
    answers: Sequence[tuple[Any, Sequence[Any]]], bad: Sequence[int], source: object
) -> str:
    """Return how to write the answers of this kind: letters, numbers as text, counted from 1."""
    wanted = "doc_to_target must give the index of the right choice, from 0, or its text"
    wrong = [answers[row] for row in bad]
    name = source if isinstance(source, str) and source.isidentifier() else "answer"
    texts = [answer.strip() for answer, _ in wrong if isinstance(answer, str)]
    letters = LETTERS[: max(len(choices) for _, choices in answers)]
    if len(texts) == len(wrong):
        if all(len(text) == 1 and text.upper() in letters for text in texts):
            lower = letters if any(text.isupper() for text in texts) else letters.lower()
            return f"{wanted}; for letters: doc_to_target: \"{{{{'{lower}'.index({name})}}}}\""
        if all(text.lstrip("-").isdigit() for text in texts):
            return f'{wanted}; for numbers written as text: doc_to_target: "{{{{{name} | int}}}}"'
    numbers = [answer for answer, _ in answers if isinstance(answer, int)]
    from_one = len(numbers) == len(answers) and min(numbers) >= 1
    if from_one and all(answer <= len(choices) for answer, choices in answers):
        return f'{wanted}; for numbers from 1: doc_to_target: "{{{{{name} - 1}}}}"'
    return f"{wanted}; fix these rows or leave them out"


def _dry_run(task: ConfigurableTask, place: Place, shots: int) -> None:
    """Render the first question with its examples; filter and score a made-up response to it."""
    doc = task.eval_docs[0]
    try:
        prefix = task.resolve_field(doc, task.config.gen_prefix)
        context = task.fewshot_context(doc, num_fewshot=shots, gen_prefix=prefix)
        made = task.construct_requests(doc, context, metadata=(task.task_name, 0, 1))
    except Exception as error:  # a user's code and templates may raise anything
        raise explained(error, place) from error
    requests = made if isinstance(made, list) else [made]
    for request in requests:
        _check_request(request, place)
    for found in _scores(task, place, doc, requests):
        for metric in task.aggregation():
            _check_metric(task, place, metric, found)


def _check_request(request: Instance, place: Place) -> None:
    """Raise if a model cannot process a request: texts, and options of generation."""
    texts = request.args
    if request.request_type == "generate_until":
        texts = request.args[:1]
        try:
            normalize_gen_kwargs(dict(request.args[1] or {}))
        except (TypeError, ValueError, OverflowError) as error:
            hint = "for example {until: ['\\n'], max_gen_toks: 32}"
            raise mistake(place, "generation_kwargs", described(error), hint) from error
    for text, field in zip(texts, ("doc_to_text", "doc_to_target"), strict=False):
        if not isinstance(text, str):
            what = f"it must give text, got {text!r:.60} for the first row"
            raise mistake(place, field, what, 'write a template: "{{field}}"')


def _scores(
    task: ConfigurableTask,
    place: Place,
    doc: Mapping[str, Any],
    requests: list[Instance],
) -> Iterator[Mapping[str, Any]]:
    """Yield the metrics of made-up responses for each filter."""
    kind = task.get_config("output_type")
    for number, request in enumerate(requests):
        response: Any = (-1.0 - number, False)
        if kind == "loglikelihood_rolling":
            response = -1.0
        elif kind == "generate_until":
            response = str(task.doc_to_target(doc))
        request.resps = [response] * task.get_config("repeats")
    try:
        for ensemble in task._filters:  # noqa: SLF001
            ensemble.apply(requests)
            responses = [request.filtered_resps[ensemble.name] for request in requests]
            yield task.process_results(doc, responses)
    except SelectMoEError:
        raise
    except Exception as error:  # a user's code may raise anything
        fields = "filter_list, process_results or metric_list"
        raise explained(error, place, fields) from error


def _check_metric(
    task: ConfigurableTask, place: Place, metric: str, found: Mapping[str, Any]
) -> None:
    """Raise if a metric is not computed for this kind of task, or cannot be averaged."""
    kind = task.get_config("output_type")
    if metric not in found:
        if any(name.startswith(metric) for name in found):
            return  # a function whose metrics have their own names
        given = ", ".join(map(str, found)) or "none"
        what = f"the metric '{metric}' is not computed for output_type {kind}"
        raise mistake(place, "metric_list", what, f"these are computed: {given}")
    try:
        task.aggregation()[metric]([found[metric], found[metric]])
    except (TypeError, KeyError, AttributeError) as error:
        raise mistake(
            place,
            "metric_list",
            f"the metric '{metric}' gives {found[metric]!r:.60}, which its aggregation cannot use "
            f"({described(error)})",
            f"is '{metric}' a metric for output_type {kind}, and the aggregation the right one?",
        ) from error

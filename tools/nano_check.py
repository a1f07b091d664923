"""What a nano model has learned: unseen multiple choice, and answer loss against damage."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from nano_corpus import Rows, chat, encode, plain
from tokenizers import Tokenizer
from torch import nn

from selectmoe_nano import generator

PROMPTS: dict[str, Callable[[str], str]] = {"plain": plain, "chat": chat}


@torch.no_grad()
def answer_losses(model: nn.Module, rows: Rows, batch: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's summed loss over its answer tokens and the number of those tokens."""
    device = next(model.parameters()).device
    model.eval()
    sums, counts = [], []
    for at in range(0, len(rows.ids), batch):
        ids = torch.from_numpy(rows.ids[at : at + batch]).long().to(device)
        start = torch.from_numpy(rows.start[at : at + batch]).to(device)[:, None]
        stop = torch.from_numpy(rows.stop[at : at + batch]).to(device)[:, None]
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        loss = nn.functional.cross_entropy(
            logits.float().transpose(1, 2), ids[:, 1:], reduction="none"
        )
        place = torch.arange(1, ids.shape[1], device=device)[None]
        mask = (place >= start) & (place < stop)
        sums.append((loss * mask).sum(1).cpu().numpy())
        counts.append(mask.sum(1).cpu().numpy())
    model.train()
    return np.concatenate(sums), np.concatenate(counts)


def accuracy(
    model: nn.Module, tokenizer: Tokenizer, exam: Sequence[generator.ExamQuestion], style: str
) -> tuple[float, dict[str, float]]:
    """Return the share of questions whose right choice is the likeliest, and that by family."""
    prompts = [PROMPTS[style](q.question) for q in exam for _ in q.choices]
    answers = [choice for q in exam for choice in q.choices]
    rows, kept = encode(tokenizer, prompts, answers, 128, end=False)
    assert len(kept) == len(prompts), "an examination row is too long"
    losses = answer_losses(model, rows.trimmed())[0].reshape(len(exam), -1)
    right = losses.argmin(1) == np.array([q.answer for q in exam])
    families: defaultdict[str, list[bool]] = defaultdict(list)
    for question, hit in zip(exam, right, strict=True):
        families[question.family].append(bool(hit))
    return float(right.mean()), {name: float(np.mean(hits)) for name, hits in families.items()}


def auroc(clean: np.ndarray, damaged: np.ndarray) -> float:
    """Return the chance that a damaged example has the larger loss (ties count half)."""
    order = np.sort(clean)
    below = np.searchsorted(order, damaged, "left")
    upto = np.searchsorted(order, damaged, "right")
    return float((below + upto).mean() / (2 * len(clean)))


def damage_aurocs(
    model: nn.Module, tokenizer: Tokenizer, style: str, examples: int
) -> dict[str, float]:
    """Return the AUROC of mean answer loss for all damage and for each kind."""
    items = list(generator.pool(examples, 0.45, seed=77))
    prompts = [PROMPTS[style](item.instruction) for item in items]
    rows, kept = encode(tokenizer, prompts, [item.answer for item in items], 160)
    sums, counts = answer_losses(model, rows.trimmed())
    means = sums / counts
    labels = np.array([items[i].label or "" for i in kept])
    clean = means[labels == ""]
    result = {"all": auroc(clean, means[labels != ""])}
    for label in sorted(Counter(labels)):
        if label:
            result[label] = auroc(clean, means[labels == label])
    return result

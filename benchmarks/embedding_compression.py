"""What a smaller embedding table costs in quality: whole, cut, hashed, narrowed, factorised.

What is compared: a text CNN (trained table, windows of 2 and 3 words, 32 filters) whose table is
made smaller in each of the ways of `modeling.compression`, to the same number of bytes. How: words
are numbered by frequency in the training clients' texts; Adam on all training records in one place,
the same steps for every table; AUPRC on held-out clients (the rule of `docs/datasets.md`), mean and
spread over seeds. The limit is the whole table; bytes are those of its float32 numbers.

    python benchmarks/embedding_compression.py                  # generated texts
    python benchmarks/embedding_compression.py --data FILE      # Parquet: client_id, label, text

The generated texts have words of Zipf frequencies whose meanings are mixtures of a few topics, with
noise of their own: neither of low rank nor without it.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from device_runtime.manifest import InputSpec
from feature_catalog.splits import is_heldout
from modeling.compression import (
    IdMap,
    covered,
    cut_vocabulary,
    hash_vocabulary,
    rank_within,
    resized,
    table_bytes,
)
from modeling.metrics import auprc
from modeling.spec import Dense, Embedding, ModelSpec, TextConvolution
from modeling.torch_models import build_torch, load_parameters, weighted_loss

TOKENS, WIDTH, FILTERS = 32, 64, 32
SHARES = (4, 16, 64)
"""How many times smaller than the whole table."""
SEEDS = (0, 1, 2)
EPOCHS, BATCH, RATE = 3, 64, 2e-3
_WORDS = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Texts:
    """Ids of words, ``(records, TOKENS)``, -1 beyond the end; labels ``(records, 1)``."""

    train: tuple[NDArray[np.int32], NDArray[np.float32]]
    heldout: tuple[NDArray[np.int32], NDArray[np.float32]]
    counts: NDArray[np.int64]


def generated(records: int = 12_000, vocabulary: int = 10_000, topics: int = 12) -> Texts:
    draws = np.random.default_rng(0)
    frequency = 1.0 / np.arange(1, vocabulary + 1) ** 1.05
    ids = draws.choice(vocabulary, (records, TOKENS), p=frequency / frequency.sum())
    used = np.arange(TOKENS) < draws.integers(4, TOKENS + 1, (records, 1))
    meaning = draws.standard_normal((vocabulary, topics)) @ draws.standard_normal(topics)
    own = draws.standard_normal(vocabulary) * topics**0.5
    score = ((meaning + own)[ids] * used).sum(axis=1) / used.sum(axis=1) ** 0.5
    noise = draws.logistic(size=records) * 2
    y = (score + noise > np.quantile(score, 0.8)).astype(np.float32)[:, None]
    x = np.where(used, ids, -1).astype(np.int32)
    cut = records * 4 // 5
    train = x[:cut]
    counts = np.bincount(train[train >= 0], minlength=vocabulary)
    return Texts((train, y[:cut]), (x[cut:], y[cut:]), counts)


def read(path: Path) -> Texts:
    table = pq.read_table(path, columns=["client_id", "label", "text"]).to_pydict()
    clients = [str(client) for client in table["client_id"]]
    words = [_WORDS.findall((text or "").lower())[:TOKENS] for text in table["text"]]
    is_train = np.array([not is_heldout(path.stem, client) for client in clients])
    seen = Counter(w for text, kept in zip(words, is_train, strict=True) if kept for w in text)
    number = {word: i for i, (word, _) in enumerate(seen.most_common())}
    x = np.full((len(words), TOKENS), -1, np.int32)
    for row, text in zip(x, words, strict=True):
        row[: len(text)] = [number.get(word, -1) for word in text]
    y = np.array(table["label"], np.float32)[:, None]
    counts = np.array([count for _, count in seen.most_common()])
    return Texts((x[is_train], y[is_train]), (x[~is_train], y[~is_train]), counts)


def whole_model(vocabulary: int) -> ModelSpec:
    return ModelSpec(
        name="whole",
        layers=(
            Embedding("words", vocabulary, WIDTH, TOKENS),
            TextConvolution("convolution", TOKENS, WIDTH, (2, 3), FILTERS),
            Dense("logit", 2 * FILTERS, 1, "none"),
        ),
        input=InputSpec("token_ids", (TOKENS,), "int32", -1),
        label_shape=(1,),
        loss="binary_cross_entropy",
        metric="auprc",
    )


def trained_auprc(spec: ModelSpec, texts: Texts, ids: IdMap | None, seed: int) -> float:
    torch.set_num_threads(1)  # small steps: threads cost more than they save
    torch.manual_seed(seed)
    model = build_torch(spec)
    load_parameters(model, spec.initial_parameters(seed))
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    (x, y), (heldout_x, heldout_y) = texts.train, texts.heldout
    inputs = torch.from_numpy(x if ids is None else ids.apply(x))
    for _ in range(EPOCHS):
        for chosen in torch.split(torch.randperm(len(y)), BATCH):
            labels = torch.from_numpy(y)[chosen]
            loss = weighted_loss(model(inputs[chosen]), labels, torch.ones(len(chosen)))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    asked = torch.from_numpy(heldout_x if ids is None else ids.apply(heldout_x))
    with torch.no_grad():
        logits = torch.cat([model(part) for part in torch.split(asked, 512)])
    return auprc(heldout_y, logits.numpy())


def variants(texts: Texts, whole: ModelSpec) -> list[tuple[str, ModelSpec, IdMap | None]]:
    vocabulary = texts.counts.size
    bytes_whole = table_bytes(vocabulary, WIDTH)
    found: list[tuple[str, ModelSpec, IdMap | None]] = [("whole", whole, None)]
    for share in SHARES:
        rows, budget = vocabulary // share, bytes_whole // share
        for way, ids in (
            ("cut", cut_vocabulary(texts.counts, rows)),
            ("hashed", hash_vocabulary(vocabulary, rows)),
        ):
            found.append((way, resized(whole, f"{way}_{share}", rows=ids.rows), ids))
        narrow = resized(whole, f"narrowed_{share}", width=WIDTH // share)
        found.append(("narrowed", narrow, None))
        rank = rank_within(budget, vocabulary, WIDTH)
        if rank:
            found.append(("factorised", resized(whole, f"factorised_{share}", rank=rank), None))
    return found


def measure(way: str, spec: ModelSpec, ids: IdMap | None, texts: Texts) -> dict[str, object]:
    reached = [trained_auprc(spec, texts, ids, seed) for seed in SEEDS]
    table = spec.layers[0].parameters
    return {
        "way": way,
        "table_bytes": 4 * sum(parameter.size for parameter in table),
        "table_shapes": [list(parameter.shape) for parameter in table],
        "parameters": spec.parameter_count,
        "words_covered": 1.0 if ids is None else round(covered(ids, texts.counts), 4),
        "auprc_mean": round(mean(reached), 4),
        "auprc_least": round(min(reached), 4),
        "auprc_most": round(max(reached), 4),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, help="Parquet file with client_id, label and text")
    options = parser.parse_args(arguments)
    texts = generated() if options.data is None else read(options.data)
    whole = whole_model(texts.counts.size)
    result = {
        "figure": "embedding_compression",
        "data": "generated" if options.data is None else options.data.name,
        "train_records": len(texts.train[1]),
        "heldout_records": len(texts.heldout[1]),
        "heldout_label_ratio": round(float(texts.heldout[1].mean()), 4),
        "vocabulary": texts.counts.size,
        "seeds": len(SEEDS),
        "tables": [measure(*variant, texts) for variant in variants(texts, whole)],
        "flint": {
            "before_bytes": table_bytes(500_000, 300),
            "after_bytes": table_bytes(50_000, 50),
            "times_smaller": table_bytes(500_000, 300) / table_bytes(50_000, 50),
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

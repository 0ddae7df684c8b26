"""Do rows fit the base model? Its tokenizer's own control tokens, and lengths in its tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

from lora_assets.records.dataset import Row, SplitName
from lora_assets.records.split_file import Fault, own_marks
from lora_assets.training.rows import encode

_AROUND = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token")


def misfits(
    splits: Mapping[SplitName, Mapping[int, Row]],
    tokenizer: Any,
    max_seq_length: int,
    max_model_len: int | None,
    share: float,
) -> Sequence[Fault]:
    """Return what of the rows (by line) can't be trained, served or measured as it is.

    At most `share` of val, eval or a split's negatives may be too long: what a split loses there
    is no longer measured, other rows of train are merely left out. A row of eval that is longer
    than the server's `max_model_len` (None: not known) can't be answered, whatever the share.
    """
    marks = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    special = sorted({*marks, *tokenizer.all_special_tokens}, key=len, reverse=True)
    around = [token for name in _AROUND if (token := getattr(tokenizer, name, None))]
    faults: list[Fault] = []
    for name, rows in splits.items():
        faults += own_marks(name, rows, special, around)
        tokens = {line: len(encode(row, tokenizer).tokens) for line, row in rows.items()}
        limit, of = max_seq_length, "max-seq-length"
        if max_model_len is not None and max_model_len < limit:
            limit, of = max_model_len, "the server's max_model_len"
        long = [line for line, count in tokens.items() if count > limit]
        negatives = sum(rows[line].is_negative for line in long)
        lost = negatives > share * sum(row.is_negative for row in rows.values())
        if name != "train":
            lost = lost or len(long) > share * len(rows)
        if lost:
            cause = f"longer than {limit} tokens ({of})"
            faults += [Fault(split=name, line=line, cause=cause) for line in long]
        elif name == "eval" and max_model_len is not None:
            cause = f"longer than {max_model_len} tokens (the server's max_model_len)"
            unanswered = (line for line, count in tokens.items() if count > max_model_len)
            faults += [Fault(split=name, line=line, cause=cause) for line in unanswered]
    return faults

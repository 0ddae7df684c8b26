"""The file of a split: JSON Lines as people and exporters write them, or every fault by line."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from itertools import groupby
from typing import Any

from pydantic import ValidationError

from lora_assets.records import Record
from lora_assets.records.dataset import Row, SplitName

SHOWN_FAULTS = 20
MOST_LINE_BYTES = 16 << 20

_SEQUENCE = (
    r"</?s>|<unk>|<pad>|<bos>|<eos>|\[(?:PAD|UNK|BOS|EOS)\]"
    r"|<\|(?:endoftext|startoftext|begin_of_text|end_of_text|pad|unk|bos|eos)\|>"
    r"|<\uff5c(?:begin\u2581of\u2581sentence|end\u2581of\u2581sentence|\u2581pad\u2581)\uff5c>"
)
"""What tokenizers put around a whole sequence themselves, or in the place of nothing."""
_TURN = r"\[/?INST\]|<\|[a-z0-9_]+\|>|<(?:start|end)_of_turn>"
"""What a prompt template puts around a turn."""
_IN_PROMPT = re.compile(_SEQUENCE)
_IN_TEXT = re.compile(f"{_SEQUENCE}|{_TURN}")
_END = re.compile(
    r"(</s>|<eos>|\[EOS\]|<\|(?:endoftext|end_of_text|eos|eot_id|im_end|end)\|>"
    r"|<end_of_turn>|<\uff5cend\u2581of\u2581sentence\uff5c>)\s*$"
)
_ENCODINGS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\x1f\x8b": "gzip", b"PK": "zip"}
_CUT = re.compile("Invalid JSON: (?!Extra data)")
_BLANK = b" \t\r\n"


class Fault(Record):
    """What is wrong with a split: in one field, in one line, or in its file (line None)."""

    split: SplitName
    line: int | None = None
    field: str = ""
    cause: str

    def __str__(self) -> str:
        where = "" if self.line is None else f" line {self.line}"
        return f"{self.split}.jsonl{where}{self._what}"

    @property
    def _what(self) -> str:
        if self.line is None:
            return f" {self.cause}"
        return f": {self.field}: {self.cause}" if self.field else f": {self.cause}"


def summary(faults: Sequence[Fault]) -> str:
    """Return the faults as one line: those that differ in their line alone stand together."""
    together: dict[tuple[str, str], list[Fault]] = {}
    for fault in faults:
        together.setdefault((fault.split, fault._what), []).append(fault)
    shown = [
        str(same[0]) if len(same) == 1 else f"{split}.jsonl lines {_ranges(same)}{what}"
        for (split, what), same in together.items()
    ]
    rest = len(shown) - SHOWN_FAULTS
    more = [f"and {rest} more ('lora-assets data check' lists them)"] if rest > 0 else []
    return "; ".join([*shown[:SHOWN_FAULTS], *more])


def parse_split(name: SplitName, content: bytes) -> tuple[Mapping[int, Row], Sequence[Fault]]:
    """Return the rows of a split by line, and every fault of the file."""
    found = list(parse_lines(name, BytesIO(content)))
    faults = [each for each in found if isinstance(each, Fault)]
    return dict(each for each in found if not isinstance(each, Fault)), faults


def parse_lines(name: SplitName, file: Iterable[bytes]) -> Iterator[tuple[int, Row] | Fault]:
    """Yield each row of a split with its line, and every fault, from the lines of its file.

    A byte order mark, line ends of any system, blank lines at the end and a missing last
    newline are taken as they come.
    """
    number = blank = 0
    for line, has_end in _lines(file):
        number += 1
        if number == 1:
            starts = (kind for start, kind in _ENCODINGS.items() if line.startswith(start))
            if (encoding := next(starts, None)) is not None:
                yield Fault(split=name, cause=f"is {encoding}, not JSON Lines in UTF-8")
                return
            line = line.removeprefix(b"\xef\xbb\xbf")
            if line.lstrip(_BLANK).startswith(b"[") or line.strip(_BLANK) == b"{":
                yield Fault(split=name, cause="is one JSON document: write one object a line")
                return
        if not line.strip(_BLANK):
            blank += 1
            continue
        for passed in range(number - blank, number):
            yield Fault(split=name, line=passed, cause="is blank")
        blank = 0
        if len(line) > MOST_LINE_BYTES:
            cause = f"has more than {MOST_LINE_BYTES >> 20} MiB"
            yield Fault(split=name, line=number, cause=cause)
            return
        row, wrong = _parse_line(line)
        if row is not None:
            yield number, row
        elif not has_end and _CUT.match(wrong[0][1]):
            wrong = [("", f"is truncated: {wrong[0][1]}")]
        for field, cause in wrong:
            yield Fault(split=name, line=number, field=field, cause=cause)
    if number == blank:
        yield Fault(split=name, cause="is empty")


def _lines(file: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield each line, and whether a line end follows it."""
    for part in file:
        lines = re.split(rb"\r\n|\n|\r", part)
        for line in lines[:-1]:
            yield line, True
        if lines[-1]:
            yield lines[-1], False


def _parse_line(line: bytes) -> tuple[Row | None, Sequence[tuple[str, str]]]:
    """Return the row, where it could be read, with each of its faults as field and cause."""
    if b"\0" in line:
        return None, [("", "holds NUL bytes: the file was cut off while it was written")]
    repeated: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        repeated.extend(sorted({key for key in keys if keys.count(key) > 1}))
        return dict(pairs)

    try:
        found = json.loads(line.decode("utf-8").lstrip("\ufeff"), object_pairs_hook=unique)
        row = Row.model_validate(found)
    except UnicodeDecodeError as error:
        return None, [("", f"is not UTF-8 (byte {error.start})")]
    except json.JSONDecodeError as error:
        return None, [("", f"Invalid JSON: {error.msg} at column {error.colno}")]
    except ValidationError as error:
        faults = [(".".join(map(str, e["loc"])), e["msg"]) for e in error.errors(include_url=False)]
        return None, [*_twice(repeated), *faults]
    except (ValueError, RecursionError) as error:
        return None, [("", f"Invalid JSON: {error}")]
    return row, [*_twice(repeated), *_control_tokens(row)]


def _twice(keys: Sequence[str]) -> Sequence[tuple[str, str]]:
    return [(key, "the key stands twice in its object") for key in keys]


def _control_tokens(row: Row) -> Iterator[tuple[str, str]]:
    """Yield where the row's text holds what a tokenizer reads as a mark and not as text.

    A prompt holds the marks of its template's turns; nothing else may.
    """
    answer = row.answer
    if (end := _END.search(answer)) is not None:
        yield "prompt_training", f"ends with {end[1]}: training adds the end token itself"
        answer = answer[: end.start()]
    yield from _marks(row, answer, _IN_TEXT, _IN_PROMPT)


def own_marks(
    split: SplitName, rows: Mapping[int, Row], special: Sequence[str], around: Sequence[str]
) -> Sequence[Fault]:
    """Return where rows hold control tokens of a tokenizer's own, beside those of usual form.

    `special` are all that it takes for control tokens. Those `around` a whole sequence are not
    for a prompt either, unless they have the form of a turn's.
    """
    unusual = [token for token in special if token.strip() and not _IN_TEXT.fullmatch(token)]
    sequence = [token for token in around if token in unusual]
    if not unusual:
        return ()
    in_text, in_prompt = (
        re.compile("|".join(map(re.escape, each)) or "(?!)") for each in (unusual, sequence)
    )
    return [
        Fault(split=split, line=line, field=field, cause=cause)
        for line, row in rows.items()
        for field, cause in _marks(row, row.answer, in_text, in_prompt)
    ]


def _marks(
    row: Row, answer: str, in_text: re.Pattern[str], in_prompt: re.Pattern[str]
) -> Iterator[tuple[str, str]]:
    texts = {
        "context": (row.context, in_text),
        "question": (row.question, in_text),
        "reference_answer": (row.reference_answer, in_text),
        "prompt_inference": (row.prompt_inference, in_prompt),
        "prompt_training": (answer, in_text),
    }
    for field, (text, control) in texts.items():
        tokens = dict.fromkeys(control.findall(text))
        if tokens:
            kind = "control tokens" if len(tokens) > 1 else "the control token"
            yield field, f"holds {kind} {', '.join(tokens)}"


def _ranges(faults: Sequence[Fault]) -> str:
    """Return the lines of the faults as in 1-3, 7."""
    lines = sorted({fault.line for fault in faults if fault.line is not None})
    runs = groupby(enumerate(lines), lambda each: each[1] - each[0])
    ends = [[line for _, line in run] for _, run in runs]
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in ends)

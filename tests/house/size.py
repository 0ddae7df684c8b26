"""How large the house is: python -m tests.house.size."""

import ast
import io
import tokenize
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.house.rooms import PRODUCT, ROOT, cycle, files, private_imports, upward

REPEAT = 6
NOT_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)


def code(file: Path) -> Sequence[int]:
    """Return the numbers of the lines of code, without blanks, comments and docstrings."""
    text = file.read_text()
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in (*NOT_CODE, tokenize.ENDMARKER):
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Expr(value=ast.Constant(value=str()), end_lineno=int(end)):
                lines.difference_update(range(node.lineno, end + 1))
    return sorted(lines)


def lines(folder: Path) -> int:
    return sum(len(code(file)) for file in files(folder))


def largest() -> tuple[int, str]:
    """Return the file of the product with the most lines of any kind."""
    counted = ((len(f.read_text().splitlines()), str(f.relative_to(ROOT))) for f in files(PRODUCT))
    return max(counted)


def repeats() -> Sequence[str]:
    """Return where six lines of code stand that stand elsewhere too, imports aside."""
    places = defaultdict(list)
    for file in files(PRODUCT):
        text = file.read_text()
        imported = {
            line
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
        }
        numbers = [number for number in code(file) if number not in imported]
        stripped = [text.splitlines()[number - 1].strip() for number in numbers]
        for start in range(len(numbers) - REPEAT + 1):
            window = tuple(stripped[start : start + REPEAT])
            places[window].append(f"{file.relative_to(ROOT)}:{numbers[start]}")
    return [" = ".join(same) for same in places.values() if len(same) > 1]


def measured() -> tuple[int, int, int]:
    """Return the lines of the stand-ins, of the product with them, and of the tests."""
    return lines(PRODUCT / "embedded"), lines(PRODUCT), lines(ROOT / "tests")


def report() -> Mapping[str, object]:
    stand_ins, product, tests = measured()
    return {
        "platform": product - stand_ins,
        "stand-ins": stand_ins,
        "tests": tests,
        "tests per product": round(tests / product, 2),
        "files": len(files(PRODUCT)),
        "largest file": largest(),
        "import cycle": cycle(),
        "upward arrows": upward(),
        "private imports of Dagster": private_imports(),
        "repeats": repeats(),
    }


if __name__ == "__main__":
    for name, value in report().items():
        print(f"{name:28}{len(value) if isinstance(value, list) else value}")

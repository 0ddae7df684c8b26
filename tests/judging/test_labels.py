import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.judging.labels import kappa, parse_labels
from lora_assets.records.grades import Label, Letter


def test_kappa_is_that_of_cohens_definition() -> None:
    # 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: the example of Wikipedia's page, 0.4.
    counts: dict[tuple[Letter, Letter], int] = {
        ("A", "A"): 20,
        ("A", "C"): 5,
        ("C", "A"): 10,
        ("C", "C"): 15,
    }
    pairs = [pair for pair, count in counts.items() for _ in range(count)]
    assert kappa(pairs) == pytest.approx(0.4)
    assert kappa([("A", "A"), ("B", "B"), ("C", "C")]) == 1
    assert kappa([("A", None), ("C", "A")]) == pytest.approx(-1 / 3)
    assert kappa([("A", "A")] * 3) is None
    assert kappa([]) is None


def test_labels_are_read_by_line() -> None:
    content = b'{"row": 0, "answer": "x", "letter": "B"}\n\n{"row": 2, "answer": "", "letter": "C"}'
    assert parse_labels(content, 3, "file") == [
        Label(row=0, answer="x", letter="B"),
        Label(row=2, answer="", letter="C"),
    ]


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("{}", "row: Field required"),
        ('{"row": 3, "answer": "x", "letter": "A"}', "row is not one of 0 to 2"),
        ('{"row": 0, "answer": "x", "letter": "D"}', "letter: Input should be"),
        ("oops", "Invalid JSON"),
    ],
)
def test_a_line_that_is_no_label_is_named(line: str, cause: str) -> None:
    with pytest.raises(LoraAssetsError, match=f"file line 2: {cause}"):
        parse_labels(f"\n{line}".encode(), 3, "file")

"""Text from outside in a page of Markdown: a server's message, a row, a name."""

import re

_MARKUP = re.compile(r"[\\`*\[\]|~]|<(?=[A-Za-z/!?])|&(?=[#\w]+;)|(?<![^\W_])_|_(?![^\W_])")


def as_it_is(text: str) -> str:
    """Return text, on one line, such that Markdown shows it as it is: no link, no picture."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))

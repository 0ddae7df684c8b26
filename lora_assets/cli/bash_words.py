"""Completion in bash, which breaks words at ':' and '='."""

from typing import Any

from click.shell_completion import BashComplete, CompletionItem


class WholeWords(BashComplete):
    """Complete `alias:perf`, which bash gives as `alias`, `:` and `perf`."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[Any]]:
        words: list[str] = []
        glue = False
        # click takes an option's value behind '=' where that is the last word alone.
        for word in (*(arg for arg in args if arg != "="), incomplete):
            breaks = set(word) == {":"}
            if words and (breaks or (glue and word)):
                words[-1] += word
            else:
                words.append(word)
            glue = breaks
        *before, last = words
        # Only what is behind the last break is for bash to replace.
        kept = last if glue else last.removesuffix(incomplete)
        found = super().get_completions(before, last)
        return [CompletionItem(each.value.removeprefix(kept), each.type) for each in found]

"""Whether an answer declines: stated patterns, no model."""

import re

_SOURCE = r"(?:context|list|passages?|documents?|documentation|text|excerpts?|sources?|material)"
_HOLD = (
    r"(?:contain|mention|provide|include|describe|list|say|specify|cover|state|explain|give"
    r"|define|answer|have|tell|discuss|address)"
)
_HELD = (
    r"(?:mentioned|provided|included|described|listed|specified|covered|stated|explained|given"
    r"|defined|found|available|documented|contained|discussed|addressed|present|part of)"
)

REFUSAL_PATTERNS: tuple[str, ...] = (
    # "It is not in the list.", "not mentioned anywhere in the provided context"
    rf"\bnot (?:{_HELD} )?(?:anywhere )?(?:in|by|from|within|on) "
    rf"(?:(?:the|this|that|these|any|your|given|provided|above|following) )*{_SOURCE}\b",
    # "The context does not contain ...", "The provided documents do not say ..."
    rf"\b{_SOURCE}(?: (?:above|given|provided|itself|\w+s? (?:above|given|provided)))? "
    rf"(?:does|do|did) not (?:\w+ly )?{_HOLD}\b",
    # "not part of the context", "does not appear in the list", "the context lacks ..."
    rf"\bnot (?:part of|appear in) (?:(?:the|this|given|provided) )*{_SOURCE}\b",
    rf"\b{_SOURCE} (?:lacks|is missing)\b",
    # "The given information does not mention ...", "It does not say what ..."
    rf"\b(?:given|provided|available) information (?:does|do) not {_HOLD}\b",
    rf"^it (?:does|did) not {_HOLD}\b",
    # "None of the operations in the context ...", "No operation ... appears in the context"
    rf"^(?:none of|no \w+)\b.*\b(?:in|from|by) (?:(?:the|this|given|provided) )*{_SOURCE}\b",
    # "Not mentioned.", "Unknown."
    rf"^(?:not {_HELD}|unknown|n/a)[.!]?$",
    # "Frobnicate is not described.", but no condition: "... if the name is not specified."
    rf"^(?:(?!\b(?:if|when|unless|whether|that|which|where|because|since)\b).)*"
    rf"\b(?:is|are|was|were) not {_HELD}(?: (?:here|there|above))?[.!]?$",
    # "No such operation is listed.", "Information not available."
    rf"^no such \w+ is {_HELD}[.!]?$",
    rf"^(?:the )?information (?:is )?not {_HELD}[.!]?$",
    # "The context says nothing about it", "Nothing in the context describes ..."
    rf"\b{_SOURCE} says? nothing\b",
    rf"\bnothing (?:about \w+ )?(?:in|from) (?:(?:the|this|given|provided) )*{_SOURCE}\b",
    # "The question can not be answered", "I am unable to answer", "can not answer that"
    r"\b(?:can|could) not (?:be answered|answer)\b",
    r"\b(?:unable|not able|not possible) to (?:answer|determine|say|tell)\b",
    r"\b(?:i|we) (?:am|was|are|were) (?:unable|not able) to (?:find|locate)\b",
    r"\b(?:i|we) can not (?:help with|provide (?:an|any|the) answer)\b",
    # "I can not find it", "I could not determine that from ..."
    r"\b(?:i|we) (?:can|could|do|did) not (?:find|tell|say|determine|see|know)\b",
    r"\b(?:can|could) not be (?:determined|found|inferred) (?:from|in) (?:the|this|that)\b",
    r"^(?:(?:the|an) answer |it |this |that )?(?:can|could) not be (?:determined|found|inferred)\b",
    # "I do not have enough information", "not enough information", "insufficient context"
    r"\b(?:i|we) (?:do|did) not have (?:\w+ )?(?:information|context|knowledge|details|data)\b",
    r"\b(?:not enough|insufficient|not sufficient) (?:information|context|details)\b",
    # "There is no information about ...", "no mention of", "no such operation"
    r"\bno (?:relevant )?(?:information|mention|description|details?|answer|documentation) "
    r"(?:is |are |was )?(?:about|on|of|for|regarding|in|given|provided|available|found)\b",
    r"\b(?:there is|contains|lists|has) no (?:such|information|mention|answer)\b",
)
"""Regular expressions, searched case-insensitively in a text whose contractions are spelled out.

"can't" and "cannot" read "can not", "doesn't" reads "does not". A pattern names who declines
(I, the context, the list) or what is missing (an answer, information), because sentences of
technical documentation negate too: "... if it is not in use", "You cannot find traces ...".
"""

_REFUSAL = re.compile("|".join(f"(?:{pattern})" for pattern in REFUSAL_PATTERNS), re.IGNORECASE)


def declines(text: str) -> bool:
    """Return whether one of the patterns matches in any sentence of the text.

    A text that declines and then answers all the same counts as declining.
    """
    plain = text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    plain = re.sub(r"\bcan(?:'t|not)\b", "can not", plain, flags=re.IGNORECASE)
    plain = re.sub(r"n't\b", " not", plain, flags=re.IGNORECASE)
    sentences = re.split(r"(?<=[.!?])\s+|\n\s*\n", plain)
    return any(_REFUSAL.search(re.sub(r"\s+", " ", sentence.strip())) for sentence in sentences)

"""The format of a data version in words: `lora-assets data describe`, and docs/data.md."""

FORMAT = """\
A data version is a folder with three files: train.jsonl to learn from, val.jsonl to choose a
checkpoint by, eval.jsonl for the judge. Each line is a JSON object in UTF-8:

context                 what the answer has to come from
question                what is asked about it
reference_answer        the right answer; the judge reads it
prompt_inference        the prompt as production sends it, in the base model's template
prompt_training         prompt_inference, followed by the answer that training teaches
metadata.question_type  optional. "negative": the context has no answer, and declining is right.
                        Any other type counts as answerable; without one a row is "factual".
                        Upper case, blanks around it, '-', '_' and ' ' make no difference.

Further fields are kept. The three splits need answerable rows and negatives each.

{"context": "PutItem: Creates a new item.", "question": "What does PutItem do?", \
"reference_answer": "Creates a new item.", "prompt_inference": "[INST] Context:\\nPutItem: Creates \
a new item.\\n\\nQuestion: What does PutItem do? [/INST]", "prompt_training": "[INST] \
Context:\\nPutItem: Creates a new item.\\n\\nQuestion: What does PutItem do? [/INST] Creates a new \
item.", "metadata": {"question_type": "factual"}}
{"context": "PutItem: Creates a new item.", "question": "What does GetItem do?", \
"reference_answer": "not in the list.", "prompt_inference": "[INST] Context:\\nPutItem: Creates a \
new item.\\n\\nQuestion: What does GetItem do? [/INST]", "prompt_training": "[INST] \
Context:\\nPutItem: Creates a new item.\\n\\nQuestion: What does GetItem do? [/INST] not in the \
list.", "metadata": {"question_type": "negative"}}
{"context": "Query: Finds items by key.", "question": "What does Query do?", \
"reference_answer": "Finds items by key.", "prompt_inference": "[INST] Context:\\nQuery: Finds \
items by key.\\n\\nQuestion: What does Query do? [/INST]", "prompt_training": "[INST] \
Context:\\nQuery: Finds items by key.\\n\\nQuestion: What does Query do? [/INST] Finds items by \
key."}

Refused, by file, line and field: a blank text or line; a key twice in an object; a control token
(<s>, </s>, <|endoftext|> and the like) in any text, and a turn's ([INST], <|im_start|>) outside of
the prompt, whatever forms the base model's tokenizer has for them; an end token at an answer's
end, since training adds its own; NUL bytes; another encoding than UTF-8; a last line that was cut.
Taken as they come: a byte order mark, CRLF, blank lines at the end, no newline at the end.

The same question on the same context in two splits is a leak, whatever its white space, upper
case or Unicode form. More of them than --max-leak (0) are refused. A row that one split has twice
is reported. --allow-no-negatives takes data without negatives; refusals are not judged then.
"""

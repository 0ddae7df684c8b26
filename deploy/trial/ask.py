"""Ask live a question of the data set, and print the answer: up.sh, in the pod `client`."""

import json
import os

import httpx

from lora_assets.embedded.data_set.versions import contents

row = json.loads(contents(["logs"])["eval"].splitlines()[0])
body = {"model": "aws-rag-qa-live", "prompt": row["prompt_inference"], "max_tokens": 64}
reply = httpx.post(
    f"{os.environ['VLLM_URL']}/v1/completions",
    json={**body, "temperature": 0},
    headers={"Authorization": f"Bearer {os.environ['VLLM_API_KEY']}"},
    timeout=60,
)
reply.raise_for_status()
answer = reply.json()
print(f"{row['question']}\n{answer['model']}: {answer['choices'][0]['text'].strip()}")

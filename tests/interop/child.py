# Runs Python code that a Go test sends, one request a line of JSON on standard
# input: {"code": "...", "args": {...}}. The code is the body of an async
# function with those arguments; it keeps what it needs later in the object
# `my`. The answer is one line of JSON: {"value": ...}, or {"class", "text"} of
# the exception.
import asyncio
import json
import os
import sys
import textwrap
import types

import pgqrs
import pgqrs.decorators

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what else is printed must not look like an answer
names = {
    "asyncio": asyncio,
    "json": json,
    "pgqrs": pgqrs,
    "step": pgqrs.decorators.step,
    "workflow": pgqrs.decorators.workflow,
    "my": types.SimpleNamespace(),
}


async def run(ask):
    body = textwrap.indent(ask["code"], "\t")
    exec(f"async def requested({', '.join(ask['args'])}):\n{body}\n", names)
    return await names["requested"](**ask["args"])


async def main():
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            answer = {"value": await run(json.loads(line))}
        except Exception as e:
            answer = {"class": type(e).__name__, "text": str(e)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


asyncio.run(main())

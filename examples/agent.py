"""A small agent on Tallystick: a model that may call one tool, under a budget.

Run it with OPENAI_API_KEY, TALLYSTICK_URL, TALLYSTICK_KEY and TALLYSTICK_ACCOUNT set:

    python examples/agent.py "What was a tally stick?"

Each question is one run, each try an attempt, each search a tool call; every model call is
authorized before it is made. `tallystick trace <run id>` tells the story afterwards.
"""

from __future__ import annotations

import sys

from openai import APIConnectionError, OpenAI

from tallystick.sdk import LimitReached, attempt, default_client, instrument, run, tool

_NOTES = {
    "tally": "A tally stick was notched and split; payer and payee each kept a half.",
    "exchequer": "The English Exchequer kept tally sticks until 1826.",
}
_TRIES = 3


@tool
def search(query: str) -> str:
    """Look a query up in the notes."""
    found = [note for word, note in _NOTES.items() if word in query.lower()]
    return "\n".join(found) or "nothing found"


@attempt
def answer(client: OpenAI, question: str) -> str:
    """One try: search, then let the model put it into words."""
    notes = search(question)
    pieces = client.chat.completions.create(
        model="gpt-4o",
        messages=[{"role": "user", "content": f"Answer from these notes: {notes}\n\n{question}"}],
        max_tokens=300,
        stream=True,
    )
    return "".join(piece.choices[0].delta.content or "" for piece in pieces)


def main(question: str) -> int:
    """Answer one question; exit status 2 when a limit forbids it."""
    client = instrument(OpenAI())
    with run(workflow="notes-agent", feature="questions", budget="0.05") as r:
        for tries_left in reversed(range(_TRIES)):
            try:
                text = answer(client, question)
                break
            except LimitReached as refused:
                sys.stderr.write(f"refused by {refused.decided_by}: {refused.message}\n")
                return 2
            except APIConnectionError:
                if not tries_left:
                    raise
    sys.stdout.write(f"{text}\n\nrun {r.run_id} cost {r.cost_usd} USD\n")
    default_client().flush(10)
    return 0


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:]) or "What was a tally stick?"))

"""The scripted upstream: a provider of the tests, with faults on demand and its own truth.

`python -m tests.upstream --port 0` prints its port. It speaks OpenAI chat, Responses and
embeddings, Anthropic messages, and
the own dialects of Gemini and Bedrock. What it does is chosen by a mark in the request's text,
`#normal in=1000 out=20 cached=512#`; the names of scripts are in `scripts.py`. What it would
bill is kept by request id and read at /truth.
"""

"""The demo: real traces in, every figure checked against a second computation.

Owns the shipped traces, the rule that turns them into events, the disturbance, and the
expected totals. Talks to the product over HTTP only; its expectations use the package
genai-prices directly and none of the product's own rating, so agreement means something.
"""

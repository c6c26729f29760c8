"""How long a model's answers usually are, for calls that name no maximum of their own.

A bounded memory: the last answers of each tenant and model. The guess is the length that 95
of 100 of them stayed within, and a half more; until enough were seen it is a setting. The
ceiling is hard. A wrong guess costs nothing but a top-up: what was used is charged.
"""

from __future__ import annotations

from collections import OrderedDict, deque

ANSWERS_KEPT = 200
KEYS_MAX = 10_000
_ANSWERS_MIN = 20
_PERCENT = 95
_EVERY = 16
"""A guess is worked out again after so many answers."""


class OutputGuess:
    """Guesses by tenant and model; of keys not used for long the memory is given up."""

    def __init__(self, *, at_first: int, ceiling: int) -> None:
        self._at_first = min(at_first, ceiling)
        self._ceiling = ceiling
        self._seen: OrderedDict[tuple[str, str], deque[int]] = OrderedDict()
        self._guesses: dict[tuple[str, str], tuple[int, int]] = {}
        """(guess, answers until it is worked out again)."""

    def bound(self, tenant_id: str, model: str, asked: int | None, answers: int = 1) -> int:
        """Output tokens to hold credit for; what was asked for counts, else the guess by answer.

        >>> OutputGuess(at_first=4096, ceiling=32768).bound("acme", "m", None)
        4096
        """
        if asked is not None:
            return asked
        return answers * self._guesses.get((tenant_id, model), (self._at_first, 0))[0]

    def saw(self, tenant_id: str, model: str, tokens_output: int, answers: int = 1) -> None:
        """Remember how long answers were, in all."""
        key = (tenant_id, model)
        lengths = self._seen.get(key)
        if lengths is None:
            lengths = self._seen[key] = deque(maxlen=ANSWERS_KEPT)
            if len(self._seen) > KEYS_MAX:
                self._guesses.pop(self._seen.popitem(last=False)[0], None)
        self._seen.move_to_end(key)
        lengths.append(-(-tokens_output // answers))
        guess, left = self._guesses.get(key, (self._at_first, 0))
        if left <= 0 and len(lengths) >= _ANSWERS_MIN:
            usual = sorted(lengths)[len(lengths) * _PERCENT // 100]
            guess, left = min(max(usual * 3 // 2, 16), self._ceiling), _EVERY
        self._guesses[key] = (guess, left - 1)

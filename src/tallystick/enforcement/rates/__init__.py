"""Rate limits: how many requests and tokens a minute, for the installation and for each caller.

Owns limits and what is left of each. Never touches money: budgets do. Keeps limits in PostgreSQL
and levels in memory, or in PostgreSQL where several processes share them. Time is passed in.
"""

from tallystick.enforcement.rates.limiter import RateLimiter
from tallystick.enforcement.rates.model import UNLIMITED, Decision, RateLimit, rate_headers

__all__ = ["UNLIMITED", "Decision", "RateLimit", "RateLimiter", "rate_headers"]

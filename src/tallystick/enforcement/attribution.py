"""Attribution: whose work it is, under one name for each dimension. Pure.

Callers and events use several names for one thing (user, user_id). What limits work must not
be escaped by another spelling: all is turned to the names of scopes where it comes in, and
what a key or token says of its holder stands above what the caller says. Which key asked is
never the caller's word: who comes with a token has none, and uses up no key's budget.
"""

from __future__ import annotations

from collections.abc import Mapping

from tallystick.access import Principal

_NAMES = {
    "organization": "org",
    "org_id": "org",
    "team_id": "team",
    "product_id": "product",
    "feature_id": "feature",
    "project_id": "project",
    "user_id": "user",
    "key_id": "key",
    "api_key": "key",
    "model_id": "model",
    "workflow_id": "workflow",
    "env": "environment",
}


def named(attribution: Mapping[str, str]) -> dict[str, str]:
    """Dimension -> value under the names of scopes; names that scopes do not know are kept.

    >>> named({"user_id": "u1", "user": "u2", "env": "prod", "shelf": "3", "team": ""})
    {'user': 'u2', 'environment': 'prod', 'shelf': '3'}
    """
    found = {_NAMES[name]: value for name, value in attribution.items() if value and name in _NAMES}
    found.update(
        (name, value) for name, value in attribution.items() if value and name not in _NAMES
    )
    return found


def attributed(said: Mapping[str, str], principal: Principal) -> dict[str, str]:
    """What a caller says of its work, under what its key or token says."""
    found = named(said)
    found.pop("key", None)
    found.update(named(principal.attribution))
    if principal.key_id:
        found["key"] = principal.key_id
    return found

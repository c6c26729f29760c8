"""The published schemas are current and only ever grow."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml  # type: ignore[import-untyped]
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from tallystick.events.asyncapi import BROKEN_TOPIC, TOPIC, build_asyncapi
from tallystick.events.fields import FIELDS, FLAT_COST, PARTICULAR_BY_TYPE, SCHEMA_VERSION
from tallystick.events.model import EVENT_FIELDS, EventType
from tallystick.events.schemas import ALSO_ACCEPTED, NOT_EXPRESSED, build_schemas
from tests.docs.generate import ASYNCAPI, RELEASED, SCHEMA_FOLDER, schema_files
from tests.docs.schema_changes import breaking_changes, reordered_fields

README = (SCHEMA_FOLDER.parents[1] / "README.md").read_text("utf-8")


def released() -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(RELEASED.read_bytes())
    return found


def test_the_published_files_are_current() -> None:
    written = {path: path.read_text("utf-8") for path in SCHEMA_FOLDER.glob("*.json")}
    written[ASYNCAPI] = ASYNCAPI.read_text("utf-8")
    assert written == schema_files(), "run make docs"


def test_every_schema_is_a_schema_and_every_type_has_one() -> None:
    schemas = build_schemas()
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    assert {*map(str, PARTICULAR_BY_TYPE)} == {*map(str, EventType)} - {EventType.IMPORT_ERROR}
    for name in PARTICULAR_BY_TYPE:
        assert f"{name}.schema.json" in schemas
    for field in FIELDS.values():
        assert field.description.endswith("."), field.name
        assert (field.target or field.name) in {*EVENT_FIELDS, "event_time"}
    assert {*FLAT_COST.values()} <= {*FIELDS}


def test_the_examples_of_the_topics_are_valid_and_all_references_lead_somewhere() -> None:
    document = build_asyncapi()
    assert document == yaml.safe_load(ASYNCAPI.read_text("utf-8").replace("events/v1/", ""))
    assert [channel["address"] for channel in document["channels"].values()] == [
        TOPIC,
        BROKEN_TOPIC,
    ]
    for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)):
        if reference.startswith("#/"):
            found: Any = document
            for step in reference[2:].split("/"):
                found = found[step]
        else:
            assert reference in build_schemas()
    for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(build_schemas())):
        assert reference in build_schemas()


def test_the_schemas_only_grow() -> None:
    """What was released still holds; a change that fails here needs a new version's folder."""
    before = released()
    assert before["schema_version"] == SCHEMA_VERSION
    assert breaking_changes(before["schemas"], build_schemas()) == []


def test_the_events_array_only_grows() -> None:
    """The log holds events as arrays: a field that moves would be read as another."""
    assert reordered_fields(released()["event_fields"], EVENT_FIELDS) == []


@pytest.mark.parametrize("sentence", [*NOT_EXPRESSED.values(), *ALSO_ACCEPTED])
def test_the_rules_that_schemas_cannot_say_are_documented(sentence: str) -> None:
    assert sentence in README.replace("\n  ", " ")


BASE = {
    "e.schema.json": {
        "type": "object",
        "properties": {
            "name": {"type": ["string", "null"], "maxLength": 128, "pattern": "^a"},
            "count": {"type": "integer", "minimum": 0, "maximum": 10},
            "choice": {"enum": ["a", "b"]},
            "either": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
            "free": {"description": "any"},
        },
        "required": ["name"],
        "allOf": [{"if": {"required": ["x"]}, "then": {"$ref": "x.schema.json"}}],
    }
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """BASE with one place set; None takes it away."""
    made = copy.deepcopy(BASE)
    *steps, last = path.split("/")
    place: Any = made["e.schema.json"]
    for step in steps:
        place = place[int(step)] if isinstance(place, list) else place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return made


BAD = [
    ("properties/name", None, "gone"),
    ("properties/name/type", "string", "null is no longer allowed"),
    ("properties/count/type", "string", "integer is no longer allowed"),
    ("properties/free/type", "string", "any type was allowed"),
    ("properties/free/enum", ["a"], "any value was allowed"),
    ("properties/name/maxLength", 64, "was 128 and is 64"),
    ("properties/name/minLength", 1, "was None and is 1"),
    ("properties/name/pattern", "^b", "was '^a'"),
    ("properties/count/minimum", 1, "was 0 and is 1"),
    ("properties/count/maximum", 9, "was 10 and is 9"),
    ("properties/choice/enum", ["a"], "'b' is no longer allowed"),
    ("properties/either/anyOf", [{"type": "integer"}], "is gone"),
    ("properties/free/uniqueItems", True, "was None"),
    ("required", ["name", "count"], "count is newly required"),
    ("additionalProperties", False, "was None"),
    ("allOf", [*BASE["e.schema.json"]["allOf"], {"required": ["y"]}], "a new condition"),
    ("allOf/0/then", {"$ref": "y.schema.json"}, "x.schema.json"),
]


@pytest.mark.parametrize(("path", "value", "told"), BAD, ids=[path for path, _, _ in BAD])
def test_a_change_that_breaks_is_found(path: str, value: Any, told: str) -> None:
    (found,) = breaking_changes(BASE, changed(path, value))
    assert told in found
    assert found.startswith("e.schema.json/")


GOOD = [
    ("properties/new", {"type": "string"}),
    ("properties/count/type", "number"),
    ("properties/count/maximum", 11),
    ("properties/name/maxLength", None),
    ("properties/name/description", "words"),
    ("properties/choice/enum", ["a", "b", "c"]),
    ("required", []),
    (
        "properties/either/anyOf",
        [{"type": "integer"}, {"type": "string"}, {"type": "boolean"}],
    ),
    (
        "allOf",
        [*BASE["e.schema.json"]["allOf"], {"if": {"required": ["y"]}, "then": False}],
    ),
]


@pytest.mark.parametrize(("path", "value"), GOOD, ids=[path for path, _ in GOOD])
def test_a_change_that_only_adds_is_allowed(path: str, value: Any) -> None:
    assert breaking_changes(BASE, changed(path, value)) == []


def test_a_schema_that_is_gone_and_a_moved_field_are_found() -> None:
    assert breaking_changes(BASE, {}) == ["e.schema.json: the schema is gone"]
    assert reordered_fields(["a", "b"], ["a", "b", "c"]) == []
    assert reordered_fields(["a", "b"], ["a", "c", "b"]) == ["event field 1 was b and is c"]
    assert len(reordered_fields(["a", "b"], ["b"])) == 2


def test_bad_changes_of_the_real_schemas_are_found() -> None:
    bad = build_schemas()
    properties = bad["token_usage.schema.json"]["properties"]
    del properties["latency_ms"]
    properties["tokens_input"]["maximum"] = 5
    bad["cost.schema.json"]["required"].append("run_id")
    assert len(breaking_changes(released()["schemas"], bad)) == 3
    assert reordered_fields(released()["event_fields"], sorted(EVENT_FIELDS))


def test_the_released_file_is_what_the_generator_writes() -> None:
    assert Path(RELEASED).name == f"v{SCHEMA_VERSION}.json"
    assert {*released()} == {"schema_version", "event_fields", "schemas"}

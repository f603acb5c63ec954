"""Checking a configuration against its schema, and what the code says of itself against the manifest."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, cast

from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError

from cardcage.foundation.errors import Fault, InvalidDocument
from cardcage.manifest.config_schema import look_up, normalise_config_schema, unique_items
from cardcage.manifest.document import FAULTS_MAX, child_path
from cardcage.manifest.gather import describe, did_you_mean
from cardcage.manifest.model import Manifest
from cardcage.manifest.patterns import TEXT_CHARS_MAX

_SECRET_KEY: Final = re.compile(r"token|secret|password|passphrase|credential|api_?key|private_?key", re.IGNORECASE)
_REFERENCES_MAX: Final = 20
"""References in a row; a schema that needs more leads back to itself."""
_TOO_LONG: Final = f"at most {TEXT_CHARS_MAX} characters where a pattern is asked for"
REFERENCES_FOLLOWED_MAX: Final = 20_000
"""References followed while one configuration is judged; honest schemas need a few for each of its values."""
STEPS_MAX: Final = 100_000
"""Steps while one configuration is judged, some 10 us each: a keyword, or a member that it looks at."""
SCHEMA_CHARS_MAX: Final = 256 * 1024
"""A schema's length as JSON: that of a whole manifest."""
_HIDDEN: Final = "a value that is not shown"


def validate_config(schema: Mapping[str, Any], config: Mapping[str, Any] | None, *, subject: str) -> dict[str, Any]:
    """A copy of the configuration with defaults filled in.

    The schema may be in any form that a manifest may hold. `subject` says whose configuration it is, as the subject of
    a sentence. Raises `InvalidDocument(code="config_invalid")` with every fault: its path, what was expected and what
    was found; with `code="config_schema_invalid"` where the schema itself is wrong. What looks like a secret is never
    shown.
    """
    schema = _usable(json.dumps(schema, default=repr), subject) or {}
    filled = copy.deepcopy(dict(config or {}))
    faults: list[Fault] = []
    try:
        _budget.set(_Budget())
        _fill_defaults(schema, schema, filled)
        for error in _FrugalValidator(schema).iter_errors(filled):
            faults += _faults_of(error)
            if len(faults) >= FAULTS_MAX:
                break
    except RecursionError:
        faults = [Fault(path="", message="the schema refers to itself without end")]
    except _TooManyReferences:
        message = f"the schema follows more than {REFERENCES_FOLLOWED_MAX} references to judge this configuration"
        faults = [Fault(path="", message=message)]
    except _TooManySteps:
        faults = [Fault(path="", message=f"the schema takes more than {STEPS_MAX} steps to judge this configuration")]
    if faults:
        raise InvalidDocument(subject, sorted(set(faults), key=str)[:FAULTS_MAX], code="config_invalid")
    return filled


class _TooManyReferences(Exception):  # control flow inside this module
    """The budget of references is spent."""


class _TooManySteps(Exception):  # control flow inside this module
    """The budget of steps is spent."""


@dataclass(slots=True)
class _Budget:
    """What the check that is under way has used up."""

    references: int = 0
    steps: int = 0

    def spend(self, keyword: str, value: Any, instance: Any) -> None:
        if keyword in ("$ref", "$dynamicRef"):
            self.references += 1
            if self.references > REFERENCES_FOLLOWED_MAX:
                raise _TooManyReferences
        members, among = _length(instance), _length(value)
        self.take(1 + (among * (1 + members) if keyword == "enum" else among + members))

    def take(self, steps: int) -> None:
        self.steps += steps
        if self.steps > STEPS_MAX:
            raise _TooManySteps


def _length(value: Any) -> int:
    return len(cast("list[Any]", value)) if isinstance(value, list | dict) else 0


_budget: ContextVar[_Budget] = ContextVar("_budget")


def _counted(keyword: str, check: Any) -> Any:
    """A keyword with a budget: two references in each of thirty definitions make a thousand million."""

    def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        _budget.get().spend(keyword, value, instance)
        yield from check(validator, value, instance, schema) or ()

    return counted


def _short_enough(validator: Any, pattern: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """`pattern`, which is held against texts of a bounded length only."""
    if isinstance(instance, str) and len(instance) > TEXT_CHARS_MAX:
        yield ValidationError(_TOO_LONG, validator="pattern")
    else:
        match: Any = Draft202012Validator.VALIDATORS["pattern"]
        yield from match(validator, pattern, instance, schema)


_FrugalValidator: Any = cast(Any, validators).extend(
    Draft202012Validator,
    {
        word: _counted(word, check)
        for word, check in {
            **cast("dict[str, Any]", Draft202012Validator.VALIDATORS),
            "pattern": _short_enough,
            "uniqueItems": unique_items,
        }.items()
    },
)


@lru_cache(maxsize=256)
def _usable(schema_text: str, subject: str) -> dict[str, Any] | None:
    """The schema, checked and normalised: code may hand in one that no manifest ever showed."""
    if len(schema_text) > SCHEMA_CHARS_MAX:
        found = f"expected at most {SCHEMA_CHARS_MAX} characters as JSON, found {len(schema_text)}"
        fault = Fault(path="config_schema", message=found)
        raise InvalidDocument(f"the schema of {subject}", [fault], code="config_schema_invalid")
    schema, faults = normalise_config_schema(json.loads(schema_text), "config_schema")
    if faults:
        raise InvalidDocument(f"the schema of {subject}", faults, code="config_schema_invalid")
    return schema


def check_metadata(manifest: Manifest, metadata: Mapping[str, Any]) -> list[Fault]:
    """Where the metadata that the code gives (`get_metadata`) contradicts the manifest, which is what was verified.

    What only one of the two says is no contradiction, except for a dependency: the host starts those of the manifest.
    """
    faults: list[Fault] = []
    for key in ("name", "version", "author", "license", "homepage", "repository"):
        said, written = metadata.get(key), getattr(manifest, key)
        if said and written and said != written:
            faults.append(
                Fault(path=key, message=f"expected {describe(written)} as in the manifest, found {describe(said)}")
            )
    known = {dependency.name for dependency in manifest.dependencies}
    for text in metadata.get("dependencies") or ():
        if len(faults) >= FAULTS_MAX:
            break
        name = re.split(r"[\s=<>!^~@]", str(text).strip(), maxsplit=1)[0]
        if name not in known:
            message = (
                f"expected a dependency that the manifest names, found {describe(text)}{did_you_mean(name, known)}"
            )
            faults.append(Fault(path="dependencies", message=message))
    return faults


def _size(value: Any) -> int:
    """About how many hundred bytes a default takes, its members counted one each."""
    if isinstance(value, str):
        return 1 + len(value) // 100
    if isinstance(value, dict):
        return 1 + sum(_size(name) + _size(member) for name, member in cast(dict[str, Any], value).items())
    return 1 + sum(map(_size, cast(list[Any], value))) if isinstance(value, list) else 1


def _fill_defaults(root: Mapping[str, Any], schema: Any, value: Any) -> None:
    """Fill in the defaults of properties, at every depth that is there.

    Within the budget: two defaults at each of thirty levels of references would fill any memory.
    """
    _budget.get().take(1)
    schema = _resolve(root, schema)
    if isinstance(value, list):
        for member in cast(list[Any], value):
            _fill_defaults(root, schema.get("items"), member)
    if not isinstance(value, dict):
        return
    members, properties = cast(dict[str, Any], value), schema.get("properties")
    for name, member_schema in cast(dict[str, Any], properties).items() if isinstance(properties, dict) else ():
        resolved = _resolve(root, member_schema)
        if name not in members and "default" in resolved:
            _budget.get().take(_size(resolved["default"]))
            members[name] = copy.deepcopy(resolved["default"])
        if name in members:
            _fill_defaults(root, resolved, members[name])


def _resolve(root: Mapping[str, Any], schema: Any) -> Mapping[str, Any]:
    """The schema that a `$ref` within the document leads to, or the schema itself."""
    for _ in range(_REFERENCES_MAX):
        reference = cast(Mapping[str, Any], schema).get("$ref") if isinstance(schema, Mapping) else None
        if not isinstance(reference, str):
            break
        schema = look_up(root, reference)
    return cast(Mapping[str, Any], schema) if isinstance(schema, Mapping) else {}


def _faults_of(error: ValidationError) -> Iterator[Fault]:
    path = ""
    for part in error.absolute_path:
        path = child_path(path, part)
    schema: Any = error.schema
    match error.validator:
        case "required":
            missing = [
                name
                for name in cast(list[str], error.validator_value)
                if name not in cast(dict[str, Any], error.instance)
            ]
            for name in missing:
                expected = _expected_value(cast(dict[str, Any], schema).get("properties", {}).get(name))
                yield Fault(path=child_path(path, name), message=f"expected {expected}, found nothing")
        case "additionalProperties":
            yield from _unknown_keys(path, cast(dict[str, Any], schema), cast(dict[str, Any], error.instance), error)
        case "pattern" if error.message == _TOO_LONG:
            yield Fault(path=path, message=f"expected {_TOO_LONG}, found {len(cast(str, error.instance))}")
        case _:
            yield Fault(path=path, message=f"expected {_expected(error)}, found {_found(error)}")


def _unknown_keys(
    path: str, schema: Mapping[str, Any], instance: Mapping[str, Any], error: ValidationError
) -> Iterator[Fault]:
    if schema.get("additionalProperties") is not False:
        yield Fault(path=path, message=f"expected {_expected(error)}, found {_found(error)}")
        return
    known: Mapping[str, Any] = schema.get("properties", {})
    patterns: list[str] = list(schema.get("patternProperties", {}))
    for name in instance:
        if name not in known and not any(re.search(pattern, str(name)) for pattern in patterns):
            allowed = f" (it takes: {', '.join(list(known)[:20])})" if known else ""
            hint = did_you_mean(str(name), known) or allowed
            yield Fault(path=child_path(path, str(name)), message=f"no such key{hint}")


def _expected(error: ValidationError) -> str:
    wanted: Any = error.validator_value
    match error.validator:
        case "type":
            return " or ".join(
                map(_with_article, cast(list[str], wanted) if isinstance(wanted, list) else [str(wanted)])
            )
        case "enum":
            return f"one of {', '.join(map(describe, cast(list[Any], wanted)))}"
        case "const":
            return describe(wanted)
        case "minimum" | "exclusiveMinimum":
            return f"{'at least' if error.validator == 'minimum' else 'more than'} {wanted}"
        case "maximum" | "exclusiveMaximum":
            return f"{'at most' if error.validator == 'maximum' else 'less than'} {wanted}"
        case "minLength" | "maxLength":
            return f"{'at least' if error.validator == 'minLength' else 'at most'} {wanted} characters"
        case "minItems" | "maxItems":
            return f"{'at least' if error.validator == 'minItems' else 'at most'} {wanted} members"
        case "pattern":
            return f"a text that matches {wanted}"
        case "multipleOf":
            return f"a multiple of {wanted}"
        case "uniqueItems":
            return "members that all differ"
        case "anyOf" | "oneOf":
            count = len(cast(list[Any], wanted))
            return f"{'one' if error.validator == 'anyOf' else 'exactly one'} of the {count} allowed forms"
        case _:
            return f"what {error.validator} of the schema says"


def _expected_value(schema: Any) -> str:
    kind = cast(Mapping[str, Any], schema).get("type") if isinstance(schema, Mapping) else None
    return _with_article(kind) if isinstance(kind, str) else "a value"


def _with_article(kind: str) -> str:
    return kind if kind == "null" else f"an {kind}" if kind[0] in "aio" else f"a {kind}"


def _found(error: ValidationError) -> str:
    schema: Any = error.schema
    secret = isinstance(schema, Mapping) and cast(Mapping[str, Any], schema).get("writeOnly") is True
    named = any(isinstance(part, str) and _SECRET_KEY.search(part) for part in error.absolute_path)
    return _HIDDEN if secret or named else describe(error.instance)

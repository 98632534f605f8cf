"""Whether a JSON text keeps to a JSON Schema, in bounded time and memory whatever the two are.

The `jsonschema` package checks, one function a keyword. Each is told here to look at the clock first, and those that
take time with the square of an answer's size, or match patterns by Python's `re`, are replaced. Both the schema and
the answer may come from somebody who means harm.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from functools import cache, lru_cache
from itertools import islice
from typing import Any

from cappy_select.core.errors import InputError
from cappy_select.core.json_text import loads, strict_loads
from cappy_select.core.patterns import Pattern
from cappy_select.core.time_limit import OutOfTime, check_time, time_limit

SECONDS = 5.0
"""What an answer, or a schema, may take."""
LONGEST = 500_000  # characters of a schema
MOST_UNIQUE = 2_000  # objects and arrays; of texts and numbers there may be any number
SHOWN = 200  # characters of an error
_ERRORS = 20  # that are looked at, to name the most telling
_PATTERN_GROWS_TO = 20_000

_Errors = Iterator[Any]
_Keyword = Callable[[Any, Any, Any, Any], Iterable[Any] | None]


class Schema:
    """A JSON Schema that texts are held against: draft 4 or later, 2020-12 where it does not say."""

    def __init__(self, schema: Any, name: str = "the schema") -> None:
        """Read a schema, called `name` in errors. Raises InputError for what is none, or is too large, OutOfTime."""
        try:
            text = json.dumps(schema)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{name} is no JSON: {error}") from error
        if len(text) > LONGEST:
            raise InputError(f"{name} is too large: {len(text):,} characters, at most {LONGEST:,} are read")
        try:
            with time_limit(SECONDS):
                self.validator = (_kept if len(text) < 20_000 else _kept_of_large)(text, name)
        except RecursionError as error:
            raise InputError(f"{name} is nested too deeply to be read") from error

    def fault(self, text: str, what: str) -> str | None:
        """Where a text, called `what`, departs from the schema, or that it can't be told; None when it keeps to it."""
        try:
            value = strict_loads(text)
        except ValueError as error:
            return f"{what} is not JSON: {error}"
        from jsonschema.exceptions import best_match

        try:
            with time_limit(SECONDS):
                found = best_match(islice(self.validator.iter_errors(value), _ERRORS))
        except OutOfTime:
            return f"{what} could not be held against the schema in time"
        except RecursionError:
            return f"{what} is nested too deeply to be held against the schema"
        except Exception as error:  # a $ref to elsewhere; what no one foresaw is no reason to let an answer pass
            return f"{what} can't be held against the schema: {type(error).__name__}: {error}"[: 2 * SHOWN]
        return f"{what} breaks the schema at {found.json_path[:SHOWN]}: {found.message[:SHOWN]}" if found else None


def schema_of_a_request(schema: Any) -> Schema | None:
    """A schema that came with a request; None for one that can't be read here: no schema, one that is too large, a
    pattern of another language's, a `$ref` to elsewhere. Raises OutOfTime."""
    try:
        read = Schema(schema)
        for subschema in _subschemas(read.validator.schema):
            for keyword in ("$ref", "$dynamicRef"):
                if isinstance(subschema.get(keyword), str):
                    read.validator._resolver.lookup(subschema[keyword])
    except OutOfTime:
        raise
    except Exception:  # InputError, and what references of any form bring about
        return None
    return read


def _build(text: str, name: str) -> Any:
    from jsonschema.validators import Draft3Validator, Draft202012Validator, validator_for
    from referencing import Registry
    from referencing.jsonschema import specification_with

    kind = validator_for(loads(text), default=Draft202012Validator)
    if kind is Draft3Validator:
        raise InputError(f"{name} is of draft 3 of JSON Schema; draft 4 and later are read")
    schema = json.loads(text, object_hook=_without_dialect)
    dialect = kind.META_SCHEMA["$schema"]
    metaschema = _bounded(kind)(_without_dialect(kind.META_SCHEMA), _resolver=_metaschemas().resolver(dialect))
    for error in metaschema.iter_errors(schema):
        raise InputError(f"{name} is no JSON Schema: {error.message}")
    for subschema in _subschemas(schema):
        for pattern in _patterns_in(subschema):
            check_time()
            _pattern(pattern)
    root = specification_with(dialect).create_resource(schema)
    return _bounded(kind)(schema, _resolver=Registry().resolver_with_root(root))  # which fetches nothing


_kept, _kept_of_large = lru_cache(256)(_build), lru_cache(8)(_build)


@cache
def _metaschemas() -> Any:
    from jsonschema_specifications import REGISTRY
    from referencing import Registry
    from referencing.jsonschema import specification_with

    found = {uri: _without_dialect(REGISTRY[uri].contents) for uri in REGISTRY}
    return Registry().with_resources(
        (uri, specification_with(REGISTRY[uri].contents["$schema"]).create_resource(contents))
        for uri, contents in found.items()
    )


def _without_dialect(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Without a `$schema`, by which `jsonschema` would go on with its own validators from there."""
    return {key: value for key, value in schema.items() if key != "$schema" or not isinstance(value, str)}


def _subschemas(schema: Any) -> Iterator[dict[str, Any]]:
    """All objects within a schema but for those that are values."""
    waiting = [schema]
    while waiting:
        check_time()
        found = waiting.pop()
        if isinstance(found, list):
            waiting += found
        elif isinstance(found, dict):
            yield found
            waiting += [value for key, value in found.items() if key not in {"const", "enum", "default", "examples"}]


def _patterns_in(subschema: dict[str, Any]) -> Iterator[str]:
    if isinstance(subschema.get("pattern"), str):
        yield subschema["pattern"]
    if isinstance(subschema.get("patternProperties"), dict):
        yield from subschema["patternProperties"]


@lru_cache(128)
def _pattern(pattern: str) -> Pattern:
    return Pattern(pattern, grows_to=_PATTERN_GROWS_TO)


@cache
def _bounded(kind: Any) -> Any:
    from jsonschema.validators import extend

    own = {name: keyword for name, keyword in _KEYWORDS.items() if name in kind.VALIDATORS}
    return extend(kind, {name: _by_the_clock(keyword) for name, keyword in (kind.VALIDATORS | own).items()})


def _by_the_clock(keyword: _Keyword) -> _Keyword:
    def check(validator: Any, value: Any, instance: Any, schema: Any) -> _Errors:
        check_time()
        for error in keyword(validator, value, instance, schema) or ():
            error.message = error.message[:SHOWN]  # it has all of the instance in it
            yield error

    return check


def _error(message: str, **more: Any) -> Any:
    from jsonschema import ValidationError

    return ValidationError(message, **more)


def _shown(value: Any) -> str:
    return repr(value)[: SHOWN // 2]


# ---------------------------------------------------------------- keywords


def _matches_pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> _Errors:
    if isinstance(instance, str) and not _pattern(pattern).search(instance):
        yield _error(f"{_shown(instance)} does not match {_shown(pattern)}")


def _pattern_properties(validator: Any, properties: Mapping[str, Any], instance: Any, schema: Any) -> _Errors:
    for pattern, subschema in properties.items() if isinstance(instance, dict) else ():
        for key, value in instance.items():
            if _pattern(pattern).search(key):
                yield from validator.descend(value, subschema, path=key, schema_path=pattern)


def _additional_properties(validator: Any, additional: Any, instance: Any, schema: Any) -> _Errors:
    if not isinstance(instance, dict):
        return
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    extra = [key for key in instance if key not in named and not any(_pattern(one).search(key) for one in patterns)]
    if isinstance(additional, dict):
        for key in extra:
            yield from validator.descend(instance[key], additional, path=key)
    elif not additional and extra:
        yield _error(f"additional properties are not allowed: {_shown(extra)}")


def _multiple_of(validator: Any, factor: Any, instance: Any, schema: Any) -> _Errors:
    """By what is written: 19.99 is a multiple of 0.01, though not as binary fractions."""
    if validator.is_type(instance, "number") and (_exact(instance) / _exact(factor)).denominator != 1:
        yield _error(f"{_shown(instance)} is not a multiple of {_shown(factor)}")


def _exact(value: float) -> Fraction:
    return Fraction(value) if isinstance(value, int) else Fraction(str(value))


def _unique_items(validator: Any, wanted: bool, instance: Any, schema: Any) -> _Errors:
    if wanted and isinstance(instance, list):
        if len(instance) > MOST_UNIQUE and any(isinstance(item, dict | list) for item in instance):
            yield _error(f"it has {len(instance):,} items that must be unique, of which {MOST_UNIQUE:,} are compared")
            return
        seen: set[str] = set()  # of texts, whose hashes nobody can foresee; those of numbers can be made to collide
        for item in instance:
            check_time()
            spelled = json.dumps(_told_apart(item), sort_keys=True)
            if spelled in seen:
                yield _error(f"{_shown(item)} is there more than once")
                return
            seen.add(spelled)


def _told_apart(value: Any) -> Any:
    """A value that is written alike exactly when it is equal: 1.0 is 1."""
    if isinstance(value, dict):
        return {key: _told_apart(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_told_apart(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _any_of(validator: Any, subschemas: list[Any], instance: Any, schema: Any) -> _Errors:
    context: list[Any] = []
    for index, subschema in enumerate(subschemas):
        errors = list(islice(validator.descend(instance, subschema, schema_path=index), _ERRORS))
        if not errors:
            return
        context += errors[: max(1, _ERRORS - len(context))]
    yield _error(f"{_shown(instance)} is not valid under any of the given schemas", context=context)


def _one_of(validator: Any, subschemas: list[Any], instance: Any, schema: Any) -> _Errors:
    valid = [one for one in subschemas if validator.evolve(schema=one).is_valid(instance)]
    if not valid:
        yield from _any_of(validator, subschemas, instance, schema)
    elif len(valid) > 1:
        yield _error(f"{_shown(instance)} is valid under each of {_shown(valid)}")


def _unevaluated_properties(validator: Any, unevaluated: Any, instance: Any, schema: Any) -> _Errors:
    if not isinstance(instance, dict):
        return
    known = set(_evaluated(validator, instance, schema, _own_properties))
    for key in instance:
        if key not in known:
            for _ in islice(validator.descend(instance[key], unevaluated, path=key), 1):
                yield _error(f"unevaluated properties are not allowed, or not so: {_shown(key)}")


def _unevaluated_items(validator: Any, unevaluated: Any, instance: Any, schema: Any) -> _Errors:
    if not isinstance(instance, list):
        return
    known = set(_evaluated(validator, instance, schema, _own_items))
    for index, item in enumerate(instance):
        if index not in known:
            for _ in islice(validator.descend(item, unevaluated, path=index), 1):
                yield _error(f"unevaluated items are not allowed, or not so: {_shown(item)}")


def _evaluated(validator: Any, instance: Any, schema: Any, own: Callable[[Any, Any, Any], Iterable[Any]]) -> _Errors:
    """The keys or places of an instance that a schema's keywords say something of; `own` gives those of one schema
    without those that it applies to the same instance."""
    check_time()
    if not isinstance(schema, dict):
        return
    yield from own(validator, instance, schema)
    applied: list[tuple[Any, Any]] = [
        (validator, one) for name in ("allOf", "anyOf", "oneOf") for one in schema.get(name, ())
    ]
    applied += [(validator, one) for key, one in schema.get("dependentSchemas", {}).items() if key in instance]
    if "if" in schema:
        holds = validator.evolve(schema=schema["if"]).is_valid(instance)
        applied += [(validator, schema["if"])] if holds else []
        applied += [(validator, schema[name]) for name in (["then"] if holds else ["else"]) if name in schema]
    for found in _referred(validator, schema):
        applied.append((validator.evolve(schema=found.contents, _resolver=found.resolver), found.contents))
    for by, subschema in applied:
        if by.evolve(schema=subschema).is_valid(instance):
            yield from _evaluated(by, instance, subschema, own)


def _referred(validator: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
    from referencing.jsonschema import lookup_recursive_ref

    for name in ("$ref", "$dynamicRef"):
        if name in schema and name in validator.VALIDATORS:
            yield validator._resolver.lookup(schema[name])
    if "$recursiveRef" in schema and "$recursiveRef" in validator.VALIDATORS:
        yield lookup_recursive_ref(validator._resolver)


def _own_properties(validator: Any, instance: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for key, value in instance.items():
        if key in named or any(_pattern(one).search(key) for one in patterns):
            yield key
        else:
            rest = [schema[name] for name in ("additionalProperties", "unevaluatedProperties") if name in schema]
            if any(validator.evolve(schema=one).is_valid(value) for one in rest):
                yield key


def _own_items(validator: Any, instance: list[Any], schema: dict[str, Any]) -> Iterable[int]:
    items = schema.get("items")
    if "items" in schema and (not isinstance(items, list) or "additionalItems" in schema):
        return range(len(instance))
    known = set(range(len(items or schema.get("prefixItems", ()))))
    for name in ("contains", "unevaluatedItems"):
        if name in schema:
            one = validator.evolve(schema=schema[name])
            known |= {index for index, item in enumerate(instance) if one.is_valid(item)}
    return known


_KEYWORDS: dict[str, _Keyword] = {
    "pattern": _matches_pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "multipleOf": _multiple_of,
    "uniqueItems": _unique_items,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "unevaluatedProperties": _unevaluated_properties,
    "unevaluatedItems": _unevaluated_items,
}

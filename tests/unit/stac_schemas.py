"""STAC items against the official schemas, without a network."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator, ValidationError
from referencing import Registry, Resource

FOLDER = Path(__file__).resolve().parents[1] / "data" / "stac"
ITEM = "https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json"
OWN = {"eo/v2.0.0", "raster/v2.0.0", "hsi/v1.0.0"}  # whose schemas no package has


def extension_errors(item: dict[str, Any]) -> list[str]:
    """What the schemas of an item's extensions object to; an extension without a schema is an error, too."""
    found = []
    for url in item["stac_extensions"]:
        place = url.removeprefix("https://stac-extensions.github.io/").removesuffix("/schema.json")
        if place in OWN:
            continue
        path = FOLDER / f"{place.replace('/', '-')}.json"
        if not path.is_file():
            found.append(f"no schema for {place}")
            continue
        validator = Draft7Validator(json.loads(path.read_text()))
        found += [f"{place}: {text}" for text in _texts(validator.iter_errors(item))]
    return found


def core_errors(item: dict[str, Any]) -> list[str]:
    """What STAC's own schema objects to, and GeoJSON's; it comes with pystac-core."""
    from pystac.validation.local_validator import get_local_schema_cache

    schemas = get_local_schema_cache()
    registry = Registry().with_resources(
        (url, Resource.from_contents(schema)) for url, schema in schemas.items()
    )
    validator = Draft7Validator(schemas[ITEM], registry=registry)
    return list(_texts(validator.iter_errors(item)))


def _texts(errors: Iterator[ValidationError]) -> Iterator[str]:
    """The deepest errors, which name the field."""
    for error in errors:
        if error.context:
            yield from _texts(iter(error.context))
        else:
            yield f"{list(error.absolute_path)}: {error.message[:200]}"

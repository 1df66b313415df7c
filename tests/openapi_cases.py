"""What /openapi.json promises, tried: requests made from it, right ones and wrong ones, and every answer compared."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from index_fakes import SIZE
from serving import Client, data_url, png

# Not that right data is accepted: a schema cannot say which texts are pictures, or that a name is free.
_CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]
_ID = "a" * 32
_THERE = {**dict.fromkeys(("image", "images", "url"), data_url(png(3))), "model": "fake", "dimensions": SIZE, "id": _ID}


def check_operations(client: Client, examples: int) -> dict[str, Counter[int]]:
    """Try every operation as it is documented, and with data that the schema allows and does not allow.

    Made-up texts are no pictures, and made-up ids name nothing: each is also tried with some that are there.

    Args:
        client: Of a server with the fake encoder, whose root has a folder called ``holidays``.
        examples: How many of each kind.

    Returns:
        Operation → how often it answered each status.

    Raises:
        Exception: An answer is not as promised.
    """
    schema = schemathesis.openapi.from_dict(client("GET", "/openapi.json").json)
    tried: dict[str, Counter[int]] = {}
    for found in schema.get_all_operations():
        operation = found.ok()
        statuses = tried.setdefault(operation.label, Counter())
        _try_as_documented(operation, client, statuses)
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            for planted in (False, True):
                _try(operation.as_strategy(generation_mode=mode), client, planted, examples, statuses)
    return tried


def _try_as_documented(operation: Any, client: Client, statuses: Counter[int]) -> None:
    given = {}
    if body := operation.definition.raw.get("requestBody"):
        given = {"body": body["content"]["application/json"]["example"], "media_type": "application/json"}
    names = re.findall(r"{(\w+)}", operation.path)
    case = operation.Case(path_parameters={name: _THERE.get(name, "animals") for name in names}, **given)
    _plant(case, client)
    answer = case.call(base_url=client.address)
    assert answer.status_code < 300, (operation.label, answer.text)
    statuses[answer.status_code] += 1
    case.validate_response(answer, checks=_CHECKS)


def _try(cases: Any, client: Client, planted: bool, examples: int, statuses: Counter[int]) -> None:
    checks = _CHECKS if planted else [*_CHECKS, negative_data_rejection]  # what is planted may mend wrong data

    @given(case=cases)
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def run(case: Case) -> None:
        if planted:
            _plant(case, client)
        answer = case.call(base_url=client.address)
        statuses[answer.status_code] += 1
        case.validate_response(answer, checks=checks)

    with suppress(Unsatisfiable):  # where nothing is asked for, nothing can be wrong
        run()


def _plant(case: Case, client: Client) -> None:
    case.body = _with_what_is_there(case.body)
    case.path_parameters.update({name: _THERE[name] for name in case.path_parameters if name in _THERE})
    if "id" in case.path_parameters and client("GET", f"/v1/items/{_ID}").status == 404:  # it may have been deleted
        assert client("PUT", f"/v1/items/{_ID}", {"image": _THERE["image"]}).status == 200


def _with_what_is_there(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _with_what_is_there(part, key) for key, part in value.items()}
    if isinstance(value, list):
        return [_with_what_is_there(part, name) for part in value]
    return _THERE.get(name, value) if isinstance(value, (str, int)) else value

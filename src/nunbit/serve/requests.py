"""A request's body → its checked form: JSON, or multipart with files beside the same fields."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from nunbit.serve.problems import Problem

M = TypeVar("M", bound=BaseModel)
FILE = "file"
_MOST_FIELDS = 1000
_MOST_TOKENS = 50_000
_TOKENS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[,\[{]', re.DOTALL)  # strings, and what stands before a value


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A file of a multipart body. Its name is for people; its type is not looked at."""

    name: str
    content: bytes


async def parse(request: Request, model: type[M]) -> M:
    """Read a body in which there can be no files; otherwise as `parse_with_files`."""
    found, files = await parse_with_files(request, model)
    if files:
        raise Problem(400, "bad_multipart", "there is a file, where none is taken", param=FILE)
    return found


async def parse_with_files(request: Request, model: type[M]) -> tuple[M, list[UploadedFile]]:
    """Read a body.

    In a multipart body files are fields named ``file``. Any other field is text, or JSON where it begins with ``{`` or
    ``[``; a field that comes several times is a list.

    Args:
        request: The request.
        model: Of the fields.

    Raises:
        Problem: 400, naming the field; 415 for another type.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _parse_form(request, model)
    if kind not in ("application/json", ""):
        hint = "send application/json, or multipart/form-data with files"
        raise Problem(415, "bad_content_type", f"the body is {kind[:100]!r}", hint)
    body = await request.body()
    _check_tokens(body.decode("latin-1"))
    try:
        return model.model_validate_json(body), []
    except ValidationError as error:
        raise invalid(error.errors()) from None


def _check_tokens(*texts: str) -> None:
    """Refuse JSON of very many values: what is wrong with each of them would be noted, in gigabytes."""
    if sum(text.count(mark) for text in texts for mark in '",[{') <= _MOST_TOKENS:
        return  # quickly, for pictures in base64 are most of what comes
    if next(islice(chain.from_iterable(map(_TOKENS.finditer, texts)), _MOST_TOKENS, None), None) is not None:
        raise Problem(400, "too_many_values", f"the JSON has more than {_MOST_TOKENS:,} strings and values")


def invalid(errors: Any) -> Problem:
    """What pydantic found, as one sentence about the first of it."""
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))[:200]
    message = str(first["msg"])[:300]
    hint = f"and {len(errors) - 1} more" if len(errors) > 1 else "/openapi.json shows what is expected"
    return Problem(400, "bad_request", f"{place}: {message}" if place else message, hint, place or None)


async def _parse_form(request: Request, model: type[M]) -> tuple[M, list[UploadedFile]]:
    body = await request.body()
    try:
        form = await request.form(max_files=_MOST_FIELDS, max_fields=_MOST_FIELDS)
    except HTTPException as error:
        raise Problem(400, "bad_multipart", str(error.detail)[:300]) from None
    except ValueError:  # of a charset
        raise Problem(400, "bad_multipart", "the fields are not in the charset that is named") from None
    try:
        _, given = parse_options_header(request.headers["content-type"])
        if b"--%b--" % given[b"boundary"] not in body:  # or files that were cut off would be passed over in silence
            raise Problem(400, "bad_multipart", "the body ends before its last boundary")
        files = [UploadedFile(_name(part), await part.read()) for part in _files(form)]
        return model.model_validate(_fields(form)), files
    except ValidationError as error:
        raise invalid(error.errors()) from None
    finally:
        await form.close()


def _files(form: FormData) -> list[UploadFile]:
    found = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name != FILE:
                hint = f"files are sent in fields named {FILE!r}"
                raise Problem(400, "bad_multipart", f"a file in the field {name[:100]!r}", hint, FILE)
            found.append(value)
    return found


def _fields(form: FormData) -> Mapping[str, Any]:
    fields: dict[str, Any] = {}
    _check_tokens(*(value for _, value in form.multi_items() if isinstance(value, str) and _is_json(value)))
    for name in dict.fromkeys(form):
        texts = [_value(name, value) for value in form.getlist(name) if isinstance(value, str)]
        if texts:
            fields[name] = texts[0] if len(texts) == 1 else texts
    return fields


def _value(name: str, text: str) -> Any:
    if not _is_json(text):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Problem(400, "bad_request", f"{name[:100]}: not valid JSON", param=name[:100]) from None


def _is_json(text: str) -> bool:
    return text.lstrip().startswith(("{", "["))


def _name(part: UploadFile) -> str:
    """The last part of the name that a client gave, of printable characters."""
    last = (part.filename or "").replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(c for c in last if c.isprintable())[:255]

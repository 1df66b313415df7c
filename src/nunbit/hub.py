"""A hub id → a local folder that holds the files a model needs, and no others.

Place in the river: above `nunbit.picture_files`, before the loaders; torch-free. The Hugging Face client does the
downloading, with its cache, token and offline switch, and is imported when a hub id is first asked for.

Three promises:
- The same commit is used until another is asked for. What the cache holds in full is taken without a question to the
  network, and what it holds in part is completed at the commit that was begun.
- Whether the cache holds a model in full is told by the repository's own list of files at that commit, which the
  client keeps beside the snapshot. An interrupted download is therefore never taken for a model.
- Weights are read from safetensors only, and only one set of them is fetched.
"""

from __future__ import annotations

import errno
import glob
import json
import re
import sys
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nunbit.errors import ModelError, ModelNotFound, NunbitError, UsageError, WeightsError
from nunbit.picture_files import one_line

_INDEX = "model.safetensors.index.json"
_DECIDING = ("config.json", "open_clip_config.json", _INDEX)  # what must be read to know which weights to take
_OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
_READ_HERE = ("clip", "siglip", "siglip2", "vit", "starter")
_OWN_WEIGHTS = "nunbit_model.safetensors"
_SMALL = (
    "config.json",
    "open_clip_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
    "bpe_simple_vocab_16e6.txt.gz",
    "nunbit.json",
    "golden.safetensors",
    "README.md",
)
_WEIGHTS = re.compile(r".*\.(?:safetensors|bin|pth?|ckpt|msgpack|h5|npz|onnx|gguf)", re.IGNORECASE)
_ELSEWHERE = (
    "download its files elsewhere into one folder (config.json, model.safetensors, preprocessor_config.json; or "
    "open_clip_config.json, open_clip_model.safetensors; with either tokenizer.json, or vocab.json and merges.txt, or "
    "spiece.model) and give its path"
)
_SECRET = re.compile(r"Bearer\s+[^\s'\"]+|\bhf_[A-Za-z0-9]{20,}")
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A model's files at one commit.

    Attributes:
        folder: In the Hugging Face cache: to be read, never written into.
        hub_id: ``owner/name``.
        commit: The full hash, whatever revision was asked for.
    """

    folder: Path
    hub_id: str
    commit: str


def split_revision(hub_id: str) -> tuple[str, str | None]:
    """Take a hub id apart.

    Args:
        hub_id: ``owner/name``, or ``owner/name@revision`` with a branch, a tag or a commit.

    Returns:
        ``owner/name``, and the revision or None.

    Raises:
        UsageError: It has another form.

    Example:
        >>> split_revision("openai/clip-vit-base-patch32@main")
        ('openai/clip-vit-base-patch32', 'main')
    """
    name, at, revision = hub_id.partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or (at and not _is_revision(revision)):
        raise UsageError(f"{hub_id!r} is not a hub id", hint="write owner/name or owner/name@revision")
    return name, revision if at else None


def fetch_model(hub_id: str, *, revision: str | None = None) -> Snapshot:
    """Find a model in the Hugging Face cache, or download what it needs.

    Args:
        hub_id: ``owner/name`` or ``owner/name@revision``.
        revision: A branch, a tag or a commit; None for ``main``. What is cached under a branch or tag stays in use
            even if it has moved on the hub: to change to another commit, name it.

    Returns:
        The folder, with the commit that was taken: give it as ``revision`` to get the same files everywhere.

    Raises:
        UsageError: The id or the revision cannot be meant, or two different revisions are given.
        ModelNotFound: No such repository or revision, no access, no network, or no weights in safetensors.
        WeightsError: The list of weight shards cannot be read, or names files that do not exist.

    Example:
        >>> fetch_model("openai/clip-vit-base-patch32").folder / "model.safetensors"
    """
    name, written = split_revision(hub_id)
    if revision is not None and not _is_revision(revision):
        raise UsageError(f"{revision!r} is not a revision", hint="give a branch, a tag or a commit")
    if revision is not None and written not in (None, revision):
        raise UsageError(f"{hub_id} and revision={revision!r} name two revisions", hint="give one of them")
    asked = revision or written
    folder = None
    try:
        folder = _known_folder(name, asked)
        if folder is None or not _is_complete(name, folder):
            folder = _download(name, folder.name if folder else asked)
    except NunbitError:
        raise
    except Exception as error:  # the client, its two transports and the disk have dozens of errors, none of them a bug
        cause = None if _SECRET.search(str(error)) else error  # a trace would print what the message hides
        raise _explained(name, asked, folder, error) from cause
    return Snapshot(folder, name, folder.name)


def _is_revision(text: str) -> bool:
    """Whether git could have such a name; the client makes a path of it."""
    return re.fullmatch(r"(?!/)(?!.*\.\.)\S+", text) is not None


def _known_folder(name: str, revision: str | None) -> Path | None:
    """The snapshot that the cache has for a revision, whole or not. Asks nothing of the network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=[]))
    except LocalEntryNotFoundError:
        return None


def _listing(name: str, commit: str) -> set[str] | None:
    """What the repository holds at a commit, as the client noted it when it first downloaded from there."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        return {file.path for file in get_cached_repo_tree(name, revision=commit)}
    except CachedRepoTreeNotFoundError:
        return None


def _is_complete(name: str, folder: Path) -> bool:
    """Whether nothing need be downloaded.

    The client could be asked to download all the same, but before it looks into its cache it may refresh its token and
    report its use over the network.
    """
    listing = _listing(name, folder.name)
    if listing is None or any(file in listing and not (folder / file).is_file() for file in _DECIDING):
        return False
    return all((folder / file).is_file() for file in _wanted(name, folder, listing))


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    with _bars(shown=False):
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(_DECIDING)))
    listing = _listing(name, folder.name)
    if listing is None:
        return _as_found(name, folder)
    wanted = [glob.escape(file) for file in sorted(_wanted(name, folder, listing))]
    with _bars(shown=sys.stderr.isatty()):
        return Path(snapshot_download(name, revision=folder.name, allow_patterns=wanted))


def _as_found(name: str, folder: Path) -> Path:
    """A snapshot that another program made, without a list of files, while the hub cannot be asked for one."""
    try:
        _wanted(name, folder, {path.name for path in folder.iterdir() if path.is_file()})
    except ModelError as error:
        raise ModelNotFound(
            f"{name} is in the cache in part only, and the hub did not say what is missing",
            hint=f"check the network and HF_HUB_OFFLINE, or {_ELSEWHERE}",
        ) from error
    return folder


def _bars(*, shown: bool) -> AbstractContextManager[Any]:
    """Silence the client's progress bars, unless the user has decided about them in the environment."""
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    decided = constants.HF_HUB_DISABLE_PROGRESS_BARS is not None
    return nullcontext() if shown or decided else disable_progress_bars()


def _wanted(name: str, folder: Path, listing: Collection[str]) -> set[str]:
    """Choose from a repository's files; those of ``_DECIDING`` that it has must be in ``folder``."""
    small = {file for file in listing if file in _SMALL or re.fullmatch(r"LICENSE[^/]*", file)}
    return small | _choose_weights(name, folder, listing)


def _choose_weights(name: str, folder: Path, listing: Collection[str]) -> set[str]:
    """One set of weights: transformers', else open_clip's, else those that only nunbit has a name for."""
    single = "model.safetensors" in listing
    own = "config.json" in listing and (single or _INDEX in listing)
    theirs = [file for file in _OPEN_CLIP_WEIGHTS if file in listing and "open_clip_config.json" in listing]
    # timm's config.json has no model_type, and beside an open_clip set its model.safetensors is half of a model.
    if own and not (theirs and _read_object(folder / "config.json").get("model_type") not in _READ_HERE):
        return {"model.safetensors"} if single else {_INDEX} | _shards(name, folder, listing)
    if theirs:
        return {theirs[0]}
    if {"nunbit.json", _OWN_WEIGHTS} <= set(listing):
        return {_OWN_WEIGHTS}
    found = ", ".join(sorted(file for file in listing if _WEIGHTS.fullmatch(file))) or "none"
    raise ModelNotFound(
        f"{name} has no weights to read: expected config.json with model.safetensors, or open_clip_config.json with "
        f"open_clip_model.safetensors; its weight files: {one_line(found)}",
        hint="only safetensors are read, because pickle files can run code: find a repository that has them, or "
        "convert it and give the folder",
    )


def _shards(name: str, folder: Path, listing: Collection[str]) -> set[str]:
    weight_map = _read_object(folder / _INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(
            f"{name}: {_INDEX} has no weight_map", hint="use another revision, or tell the model's owner"
        )
    shards = {str(file) for file in weight_map.values()}
    if missing := sorted(shards - set(listing)):
        raise WeightsError(
            f"{name}: {_INDEX} names files that are not there: {one_line(', '.join(missing))}",
            hint="use another revision, or tell the model's owner",
        )
    return shards


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one for anything else, which the loader will report better."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _explained(name: str, revision: str | None, folder: Path | None, error: Exception) -> ModelNotFound:
    """Say what went wrong, in one line and without the token; ``folder`` is what the cache has, if anything."""
    from huggingface_hub import constants
    from huggingface_hub import errors as hub_errors

    root: BaseException = error
    while isinstance(root, hub_errors.LocalEntryNotFoundError) and root.__cause__:  # "not cached", for another reason
        root = root.__cause__
    status = root.response.status_code if isinstance(root, hub_errors.HfHubHTTPError) else None
    page = f"{constants.ENDPOINT}/{name}"
    if isinstance(root, hub_errors.OfflineModeIsEnabled):
        reason = "not all of its files are in the cache, and HF_HUB_OFFLINE forbids the network"
        hint = f"unset HF_HUB_OFFLINE, or {_ELSEWHERE}"
    elif isinstance(root, hub_errors.RevisionNotFoundError):
        reason = f"there is no revision {folder.name if folder else revision or 'main'!r}"
        hint = f"it is gone: delete {folder.parent.parent} and try again" if folder else _known_revisions(name)
    elif isinstance(root, hub_errors.GatedRepoError) or status in (401, 403):
        reason = f"the hub answered {status}: it is gated or private, or there is no such repository"
        hint = f"check the id, accept the licence on {page}, and set HF_TOKEN to a token that may read it"
    elif isinstance(root, hub_errors.RepositoryNotFoundError):
        reason = "there is no such repository, or it is private"
        hint = f"check the id on {page}, and for a private one set HF_TOKEN; or {_ELSEWHERE}"
    elif isinstance(root, OSError) and root.errno in _DISK:
        reason = _first_line(root)
        hint = f"make room and allow writing in the cache, {constants.HF_HUB_CACHE}, or set HF_HOME to another place"
    else:
        reason = _first_line(root)
        hint = f"check the id and the network, or {_ELSEWHERE}"
    return ModelNotFound(f"{name} cannot be fetched from the hub: {reason}", hint=hint)


def _known_revisions(name: str) -> str:
    from huggingface_hub import HfApi

    try:
        refs = HfApi().list_repo_refs(name)
    except Exception:  # the list is a courtesy
        return "give a branch, a tag or a commit of it"
    names = [ref.name for ref in (*refs.branches, *refs.tags)]
    return f"give a commit, or one of: {', '.join(names[:20])}"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return one_line(_SECRET.sub("***", lines[0])) if lines else type(error).__name__

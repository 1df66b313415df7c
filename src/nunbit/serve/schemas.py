"""Requests and answers, as FastAPI documents and checks them. Unknown fields are refused: they are typing errors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from nunbit.serve.pictures import Region

MAX_TEXT = 10_000
MAX_LABELS = 1000
MAX_PAGE = 1000
MAX_CONDITIONS = 64

Label = Annotated[str, Field(min_length=1, max_length=1000)]
Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
Templates = Annotated[str, Field(max_length=1000)]
PictureText = Annotated[str, Field(min_length=1, description="A data URL, or base64.")]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False)]
Filter = Annotated[
    dict[str, Any] | None,
    Field(description="Conditions that must all hold.", max_length=MAX_CONDITIONS, examples=[{"width": {"gte": 640}}]),
]
ItemId = Annotated[str, Field(pattern="^[0-9a-f]{32}$", examples=["3f2a9c0e7b1d4a6f8e5c2b1a0d9f8e7c"])]
Attribute = Annotated[str, Field(max_length=MAX_TEXT)] | int | Annotated[float, Field(allow_inf_nan=False)] | bool
Attributes = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=100)], Attribute],
    Field(max_length=100, description="Your own facts, to be shown and filtered by.", examples=[{"sku": "A-17"}]),
]


class Strict(BaseModel):
    """Base of all requests."""

    model_config = ConfigDict(extra="forbid")


class PictureInput(Strict):
    """A picture, or a region of it."""

    image: PictureText
    region: tuple[Share, Share, Share, Share] | None = Field(
        None, description="Left, top, width, height as shares of the picture's sides."
    )


class TextInput(Strict):
    """A text, in OpenAI's form of a content part."""

    type: Literal["text"] = "text"
    text: Text


class ImageUrl(Strict):
    """The URL of a content part."""

    url: PictureText
    detail: str | None = None


class ImageUrlInput(Strict):
    """A picture, in OpenAI's form of a content part."""

    type: Literal["image_url"]
    image_url: ImageUrl


EmbeddingInput = Text | PictureInput | ImageUrlInput | TextInput


class EmbeddingsRequest(Strict):
    """As OpenAI's, with pictures: as an object with ``image``, a content part, or a text that is a data URL."""

    model: str | None = Field(None, description="As /v1/models lists it; may be left out.")
    input: EmbeddingInput | Annotated[list[EmbeddingInput], Field(min_length=1, fail_fast=True)] | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1, description="Must be the model's own.")
    user: str | None = None


class QueryPart(Strict):
    """One thing that is wanted (weight above 0) or not wanted (below): exactly one of text, image, item."""

    text: Text | None = None
    image: PictureText | None = None
    item: ItemId | None = None
    region: tuple[Share, Share, Share, Share] | None = None
    weight: Weight = 1.0


class SearchRequest(Strict):
    """What to look for: a text, a picture, an item, or several of them added and subtracted."""

    text: Text | None = None
    image: PictureText | None = None
    item: ItemId | None = None
    query: list[QueryPart] = Field(default=[], max_length=64)
    filter: Filter = None
    min_similarity: float = Field(-1.0, ge=-1, le=1)
    limit: int = Field(20, ge=1, le=MAX_PAGE)
    offset: int = Field(0, ge=0, le=10_000_000)


class LabelsChoice(Strict):
    """Labels given here, or the name of a set that is kept here."""

    labels: list[Label] = Field(default=[], max_length=MAX_LABELS, examples=[["cat", "dog"]])
    label_set: str | None = Field(None, examples=["animals"])
    templates: Templates | None = Field(
        None, description="none (by default), openai7, openai80, siglip or korean; a set has its own."
    )

    @field_validator("labels", mode="before")
    @classmethod
    def _from_commas(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


class RecognizeRequest(LabelsChoice):
    """Pictures and labels."""

    images: list[PictureText | PictureInput] = Field([], fail_fast=True)
    items: list[ItemId] = Field([], fail_fast=True)
    top_k: int = Field(5, ge=1, le=MAX_LABELS)


class SortRequest(LabelsChoice):
    """Labels into which the whole collection is sorted."""

    filter: Filter = None
    min_probability: Share = Field(0.0, description="A picture whose best label has less is unknown.")
    min_similarity: float = Field(-1.0, ge=-1, le=1, description="The same for the similarity.")
    bin: int | None = Field(None, ge=-1, description="Only this bin: the number of a label, or -1 for unknown.")
    limit: int = Field(24, ge=1, le=MAX_PAGE, description="Pictures of each bin.")
    offset: int = Field(0, ge=0, le=10_000_000)


class NewItem(Strict):
    """A picture to be added."""

    image: PictureText
    name: str = Field("", max_length=255)
    attributes: Attributes = {}


class NewItems(Strict):
    """Pictures to be added. Beside files of an upload, ``attributes`` are those of all of them."""

    items: list[NewItem] = Field([], fail_fast=True)
    attributes: Attributes = {}


class ItemChange(Strict):
    """What changes; what is left out stays."""

    name: str | None = Field(None, max_length=255)
    attributes: Attributes | None = None


class LabelSetBody(Strict):
    """Labels to be kept under a name."""

    labels: list[Label] = Field(min_length=1, max_length=MAX_LABELS)
    templates: Templates = "none"


class NewLabelSet(LabelSetBody):
    """A label set with its name."""

    name: str = Field(pattern=r"^[\w-]{1,64}$", examples=["animals"])


class IndexingRequest(Strict):
    """Folders and pictures below the server's root."""

    paths: list[Annotated[str, Field(max_length=4096)]] = Field(default=["."], min_length=1, max_length=100)


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str
    hint: str | None


class ErrorBody(BaseModel):
    """Every error, in OpenAI's shape."""

    error: ErrorDetail


class EmbeddingRow(BaseModel):
    """One embedding: numbers, or base64 of float32 in little-endian order."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Words of the texts; there is no bill."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    """In the order of the request."""

    object: Literal["list"] = "list"
    data: list[EmbeddingRow]
    model: str
    usage: Usage


class ItemBody(BaseModel):
    """A picture of the collection."""

    id: str
    object: Literal["item"] = "item"
    name: str
    width: int
    height: int
    format: str
    size: int
    taken: str | None
    modified: str
    uploaded: bool
    attributes: dict[str, Attribute]


class PredictionBody(BaseModel):
    """A label of a picture. The probability is over the labels given; calibrated only by a head."""

    label: str
    probability: float
    similarity: float


class SortedItem(ItemBody):
    """A picture in a bin, with its best labels."""

    predictions: list[PredictionBody] = []


class MatchBody(ItemBody):
    """A picture that was found. Similarity is a cosine."""

    rank: int
    similarity: float


class SearchAnswer(BaseModel):
    """A page of what was found."""

    object: Literal["list"] = "list"
    data: list[MatchBody]
    total: int
    next_offset: int | None


class ItemsAnswer(BaseModel):
    """A page of the collection."""

    object: Literal["list"] = "list"
    data: list[ItemBody]
    total: int
    next_offset: int | None


class RejectedBody(BaseModel):
    """A picture that was set aside. ``index`` is its place in the request."""

    index: int
    name: str
    reason: str
    detail: str


class AddedAnswer(BaseModel):
    """What was added; it is on the disk."""

    object: Literal["list"] = "list"
    data: list[ItemBody]
    rejected: list[RejectedBody]


class RecognizedBody(BaseModel):
    """The labels of one picture, most probable first; only a head tells unknown ones, and possible answers."""

    index: int
    item: str | None = None
    predictions: list[PredictionBody]
    unknown: bool | None = None
    answers: list[str] | None = None


class RecognizeAnswer(BaseModel):
    """In the order of the request: images (files of an upload first), then items."""

    object: Literal["list"] = "list"
    data: list[RecognizedBody]


class BinBody(BaseModel):
    """The pictures that a label fits best, the most probable first; ``label`` is null for unknown."""

    bin: int
    label: str | None
    count: int
    data: list[SortedItem]


class SortAnswer(BaseModel):
    """All pictures, sorted by labels."""

    object: Literal["list"] = "list"
    total: int
    data: list[BinBody]


class LabelSetInfo(BaseModel):
    """A label set; those with more labels than fit into an answer list none."""

    name: str
    object: Literal["label_set"] = "label_set"
    count: int
    templates: str
    labels: list[str] | None


class LabelSets(BaseModel):
    """All label sets."""

    object: Literal["list"] = "list"
    data: list[LabelSetInfo]


class Deleted(BaseModel):
    """It is gone."""

    id: str
    object: str
    deleted: bool = True


class ModelBody(BaseModel):
    """The encoder, or what answers questions: of that the numbers are null."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "nunbit"
    embedding_size: int | None = None
    engine: str | None = None
    fingerprint: str | None = None


class Models(BaseModel):
    """What runs: the encoder first."""

    object: Literal["list"] = "list"
    data: list[ModelBody]


class MapAnswer(BaseModel):
    """Places in [0, 1] of at most ``limit`` pictures, evenly chosen; what looks alike lies together."""

    object: Literal["map"] = "map"
    total: int
    ids: list[str]
    x: list[float]
    y: list[float]


class IndexingBody(BaseModel):
    """The last or running indexing of folders."""

    object: Literal["indexing"] = "indexing"
    state: Literal["idle", "running", "done", "canceled", "failed"]
    done: int = 0
    total: int = 0
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    rejected: int = 0
    seconds: float = 0.0
    problem: str | None = None
    can_start: bool = False


def as_region(given: tuple[float, float, float, float] | None) -> Region | None:
    """The region of a request."""
    return None if given is None else Region(*given)

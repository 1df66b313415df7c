"""The server that one writes first: a handler that calls the library, one request at a time.

Usage: one_at_a_time.py INDEX [--model MODEL] [--port 0]

It gives the same promises as ``nunbit serve``: what is answered with 201 is on the disk.
"""

import argparse
import hashlib
import io
import json
import time
from pathlib import Path
from typing import Any

import nunbit
import uvicorn
from fastapi import FastAPI, Request, Response
from nunbit.index.rows import Row
from PIL import Image

parser = argparse.ArgumentParser()
parser.add_argument("index", type=Path)
parser.add_argument("--model", default="starter")
parser.add_argument("--port", type=int, default=8001)
arguments = parser.parse_args()

encoder = nunbit.load(arguments.model)
index = nunbit.Index.open(arguments.index, encoder)
app = FastAPI()


async def upload_of(request: Request) -> bytes:
    """The file of a multipart body."""
    async with request.form() as form:
        content: bytes = await form["file"].read()  # type: ignore[union-attr]
        return content


@app.get("/readyz")
async def ready() -> dict[str, str]:
    """Answer as soon as requests are."""
    return {"status": "ok"}


@app.post("/v1/search")
async def search(request: Request) -> dict[str, Any]:
    """Words or a picture → what is most similar."""
    if request.headers["content-type"].startswith("multipart/"):
        picture = Image.open(io.BytesIO(await upload_of(request)))
        found = index.search(image=picture, top_k=20)
    else:
        found = index.search((await request.json())["text"], top_k=20)
    return {"data": [{"id": match.id, "similarity": match.similarity} for match in found]}


@app.post("/v1/items")
async def add(request: Request) -> Response:
    """Add a picture, which is on the disk when this answers."""
    content = await upload_of(request)
    image = Image.open(io.BytesIO(content))
    embedding = encoder.encode_image([image])[0]
    id_ = hashlib.blake2b(content, digest_size=16).hexdigest()
    row = Row(
        id=id_,
        path=index.uploads.write(id_, id_, content, "JPEG"),
        size=len(content),
        mtime_ns=time.time_ns(),
        width=image.width,
        height=image.height,
        format="JPEG",
        taken=None,
        content_hash=id_,
        name=f"{id_}.jpg",
        attributes="",
        embedding=embedding,
    )
    index.put([row])
    return Response(json.dumps({"data": [{"id": id_}]}), 201, media_type="application/json")


uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning", access_log=False)

"""One picture and labels → probabilities, as in the documentation of transformers.

Usage: transformers_recognize.py MODEL PICTURE LABEL,LABEL,... [bf16]
"""

import json
import sys

from peers import import_transformers

CLIPModel, CLIPTokenizer = import_transformers()
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from transformers import CLIPImageProcessor, CLIPProcessor  # noqa: E402

folder, picture, labels = sys.argv[1], sys.argv[2], sys.argv[3].split(",")
dtype = torch.bfloat16 if "bf16" in sys.argv else torch.float32
model = CLIPModel.from_pretrained(folder, dtype=dtype).eval()
processor = CLIPProcessor(CLIPImageProcessor.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder))
inputs = processor(text=labels, images=Image.open(picture), return_tensors="pt", padding=True)
inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
with torch.no_grad():
    probabilities = model(**inputs).logits_per_image.float().softmax(dim=-1)[0]
print(json.dumps(dict(zip(labels, probabilities.tolist(), strict=True))))
